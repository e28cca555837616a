"""Pure: what a step holds in memory, by name, and what it would hold after a change."""
