"""The timeline drawn: what is in it, decided once, and written as a picture or a live strip."""
