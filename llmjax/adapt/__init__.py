"""What changes a model: pure functions from a parameter tree to a parameter tree, and a mask or a config with it."""
