"""What estimates are worth on models that they were not made from."""
