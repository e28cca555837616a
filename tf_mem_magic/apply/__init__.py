"""Run-time functions that an edited cell may call, visibly: one file each, plain and documented."""
