"""Callback in batches: the model is called on some samples at a time."""
