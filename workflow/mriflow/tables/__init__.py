"""What opens a table: those of a dataset, and labels.csv and splits.csv, which the stages hand on."""
