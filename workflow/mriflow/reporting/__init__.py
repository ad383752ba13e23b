"""Every figure and every page of the report, and what they share."""
