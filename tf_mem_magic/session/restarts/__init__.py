"""Restarts: their plans, what replays them in a page or by ``%tfmem resume``, whose they are."""
