"""Live objects to facts: what models, datasets, devices and names hold, as numbers and text."""
