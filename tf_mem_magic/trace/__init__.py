"""Shell: graphs that TensorFlow has already made of a step, read into the numbers of the memory model."""
