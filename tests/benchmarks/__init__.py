"""Speed benchmarks: what watching a cell costs. ``python -m tests.benchmarks`` runs them and prints one table."""
