"""Processes and kernels that begin with TensorFlow imported."""
