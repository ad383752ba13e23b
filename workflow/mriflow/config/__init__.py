"""The config: merged, checked, filled in, explained."""
