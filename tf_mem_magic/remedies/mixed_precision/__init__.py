"""Mixed precision: 16-bit compute, 32-bit variables."""
