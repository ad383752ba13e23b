"""What opens a table."""
