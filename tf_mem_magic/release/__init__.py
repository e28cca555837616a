"""Letting go of memory that is held: what an error keeps, what a run left, what names hold."""
