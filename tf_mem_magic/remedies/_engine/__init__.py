"""How remedies are asked: the registry, the question, the order of answers, several remedies at once. Pure."""
