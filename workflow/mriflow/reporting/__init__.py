"""What figures and pages share."""
