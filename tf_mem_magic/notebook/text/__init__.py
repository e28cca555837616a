"""A cell as text: IPython's syntax masked, the parsed cell, and the one editor of its text. Pure."""
