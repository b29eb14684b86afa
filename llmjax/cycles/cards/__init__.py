"""Published measurements of chips that are not here, and the cards fitted to them."""
