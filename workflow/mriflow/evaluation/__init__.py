"""How good predictions are, and what they are compared with."""
