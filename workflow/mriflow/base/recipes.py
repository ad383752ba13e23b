"""One number per stage. Snakemake does not watch this package, so that a `git pull` never retrains by accident.

Raise a stage's number when its results should change: then it, and what follows from it, is made again everywhere.
"""

SIMULATE = 1
ORGANIZE = 5
PREPROCESS = 4
SPLIT = 1
TRAIN = 5
EVALUATE = 6
AGREEMENT = 3
CONTROLS = 3
ATTENTION = 3
BUNDLE = 2
PLOT = 4
