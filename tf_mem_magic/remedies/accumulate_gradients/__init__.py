"""Accumulate gradients: the same effective batch in smaller steps."""
