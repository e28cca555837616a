"""The recording file: written while a cell runs, readable after its process died."""
