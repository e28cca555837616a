"""Where the batch size of a training comes from, in whatever way a notebook writes it. Pure."""
