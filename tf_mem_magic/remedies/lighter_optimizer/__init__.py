"""Lighter optimizer: one that keeps fewer values for each weight."""
