"""Graph mode: a step that ran eagerly is compiled."""
