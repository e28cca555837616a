"""The notebook as text, read once: cells, names, origins, call sites, effects, and edits of the text. Pure."""
