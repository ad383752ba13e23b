"""The generator of the demo cohort."""
