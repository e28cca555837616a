"""The run of one cell: hooks, sampler, recording file, file descriptor 2, facts, release, rerun."""
