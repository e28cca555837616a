"""Free leftovers: what earlier cells hold and this one does not need is released."""
