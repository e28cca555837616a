"""Rematerialize: activations of repeated blocks are recomputed in the backward pass."""
