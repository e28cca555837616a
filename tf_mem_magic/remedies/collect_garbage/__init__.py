"""Collect garbage: what each round of a loop leaves is released before the next begins."""
