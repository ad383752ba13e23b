"""What opens an image."""
