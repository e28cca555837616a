"""What a loop over batches adds up: its means stay means as the batches shrink."""
