"""What uses trained networks."""
