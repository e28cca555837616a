"""The golden file: every answer of the gallery, and the command that writes it anew (``python -m tests.golden``)."""
