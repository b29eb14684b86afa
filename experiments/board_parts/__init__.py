"""What the board job is made of."""
