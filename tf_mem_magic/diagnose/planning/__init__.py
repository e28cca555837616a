"""A plan: what training will need, and what fits, before anything ran."""
