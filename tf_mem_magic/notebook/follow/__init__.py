"""Values followed through names, calls, classes and containers. Pure."""
