"""Which commands there are, in running order, with what each makes."""

COMMANDS = {
    "download": "one file, whole and right, or not at all",
    "ukbfetch": "the scans of UK Biobank, by its own program",
    "simulate": "the demo cohort",
    "organize": "labels.csv: one row per scan, with what is wrong with it",
    "layout": "the scans in folders of subjects or classes, with a labels.csv",
    "check": "what is wrong with a dataset, before hours are spent on it",
    "preprocess": "the scans on the network's grid, in shards",
    "quality": "how well that went",
    "split": "folds with a training, a validation and a test part",
    "train": "one network on one fold",
    "choose": "what a search over training keys found best in each fold",
    "evaluate": "how good the predictions are, beside the baselines",
    "compare": "which of several experiments is better, or that it cannot be told",
    "plot": "a figure, as PDF and PNG",
    "pages": "a page to read before a run has ended",
    "report": "the report: one page with all that was found",
    "status": "how far a run is: what is done, running, failed and waiting",
    "prune": "what preprocess kept for the next grid, removed",
    "reference": "the reference pages of the documentation, for those who change mriflow",
}
