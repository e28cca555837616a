"""What the data of a training take beside the step."""
