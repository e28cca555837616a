"""Smaller batch: fewer samples a step."""
