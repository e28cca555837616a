"""The run-time functions of the remedies for deployment, and what measures their effect."""
