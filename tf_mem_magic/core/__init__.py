"""Frozen values and pure functions: what was seen, what it means, what to do about it.

Nothing in here imports IPython, TensorFlow, ipywidgets, matplotlib, pynvml or psutil; the linter and a
test hold that line. Sizes are ``int`` bytes, times ``float`` seconds, missing is ``None``, sequences tuples.
"""
