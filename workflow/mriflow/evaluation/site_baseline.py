"""How well the site alone predicts a target, without any image.

What it reaches, a network can reach by telling the scanners apart, and would be praised for it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from mriflow.evaluation.metrics import Metrics, classification_metrics, regression_metrics, with_intervals

FOLDS = 5
LEAST = 10  # subjects, below which an interval says nothing


@dataclass(frozen=True)
class SiteMetric:
    """One metric of the site's guess, with its 95 % interval, and that of the guess that knows no site."""

    name: str
    value: float
    low: float
    high: float
    trivial: float

    @property
    def beats_trivial(self) -> bool:
        """Whether the interval lies wholly on the better side of the trivial guess."""
        return self.high < self.trivial if self.name == "mae" else self.low > self.trivial


def site_baseline(scans: pd.DataFrame, target: str, classes: Sequence[str]) -> list[SiteMetric]:
    """Return what the guess "as the others of the same site" reaches for scans of subjects it has not seen.

    That guess is the site's mean or, of a classification, its commonest class (accuracy) and its share of the second class
    (AUC, of two classes). It is cross-validated by subject, and the interval is the bootstrap over subjects.

    Parameters
    ----------
    scans
        Columns subject, site and `target`, all known.
    classes
        Of a classification; empty for a number.

    Returns
    -------
    ``accuracy`` (and ``auc``) or ``r2`` and ``mae``; nothing where there are fewer than two sites or ten subjects, or where
    all targets are equal or each class has fewer than five scans.
    """
    subjects, sites, values = scans["subject"].to_numpy(str), scans["site"].to_numpy(str), scans[target]
    if len(set(sites)) < 2 or len(set(subjects)) < LEAST or values.nunique() < 2:
        return []
    if classes and values.value_counts().max() < FOLDS:
        return []
    if classes:
        truth = values.map(list(classes).index).to_numpy(int)
        guessed = np.eye(len(classes))[truth]  # the mean of these is the share of each class
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    else:
        truth = values.to_numpy(float)
        guessed = truth[:, None]
        folds = GroupKFold(FOLDS, shuffle=True, random_state=0)
    by_site, by_all = np.zeros_like(guessed), np.zeros_like(guessed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class with fewer members than folds
        parts = list(folds.split(guessed, truth, subjects))
    for known, ahead in parts:
        by_all[ahead] = by_site[ahead] = guessed[known].mean(0)
        for site in set(sites[ahead]) & set(sites[known]):
            by_site[ahead[sites[ahead] == site]] = guessed[known[sites[known] == site]].mean(0)
    if classes:
        cells = with_intervals(class_metrics, truth, by_site, subjects)
        chance = class_metrics(truth, by_all) | ({"auc": 0.5} if len(classes) == 2 else {})
    else:
        cells = with_intervals(regression_metrics, truth, by_site[:, 0], subjects)
        chance = {"r2": 0.0, "mae": regression_metrics(truth, by_all[:, 0])["mae"]}
    return [
        SiteMetric(name, cell["value"], cell["low"], cell["high"], trivial)
        for name, trivial in chance.items()
        if (cell := cells[name])["value"] is not None and cell["low"] is not None and cell["high"] is not None
    ]


def class_metrics(truth: np.ndarray, shares: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
    """Return accuracy and, of two classes, auc; `truth` of shape (scans,), `shares` (scans, classes)."""
    found = classification_metrics(truth, shares, weights)
    return {name: found[name] for name in ("accuracy", *(["auc"] if shares.shape[1] == 2 else []))}
