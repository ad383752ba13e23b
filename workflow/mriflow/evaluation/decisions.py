"""Decisions between two classes: thresholds, what is right at them, and the curves of all thresholds."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from mriflow.evaluation.metrics import Metrics, alone, once

SENSITIVITY = 0.9  # at which specificity is told
POINTS = 200  # of a curve at most


def youden_threshold(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the threshold with the largest sensitivity + specificity (Youden 1950): scores from there on are positive.

    It lies half-way between two scores; of several as good ones it is the middle one.

    Parameters
    ----------
    positive, scores
        Whether each scan is of the positive class, and its probability; shape (scans,).

    >>> youden_threshold(np.array([False, False, True, True]), np.array([0.1, 0.2, 0.6, 0.7]))
    0.4
    """
    levels, place = np.unique(scores, return_inverse=True)
    found, other = (np.bincount(place[positive == side], minlength=len(levels)) for side in (True, False))
    # With the threshold below each level but the lowest, and below that.
    sensitivity = found[::-1].cumsum()[::-1] / found.sum()
    specificity = (other.cumsum() - other) / other.sum()
    youden = sensitivity + specificity
    best = np.flatnonzero(youden >= youden.max() - 1e-12)
    level = best[len(best) // 2]
    return float((levels[level] + levels[level - 1]) / 2) if level else float(levels[0])


def threshold_of_sensitivity(positive: np.ndarray, scores: np.ndarray, sensitivity: float) -> float:
    """Return the highest threshold at which so large a share of the positive scans is found.

    >>> threshold_of_sensitivity(np.array([True, True, True, False]), np.array([0.3, 0.5, 0.9, 0.1]), 0.6)
    0.5
    """
    ordered = np.sort(scores[positive])[::-1]
    return float(ordered[max(math.ceil(round(sensitivity * len(ordered), 9)), 1) - 1])


def decision_metrics(positive: np.ndarray, decided: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
    """Return sensitivity, specificity, ppv and npv (the share of positive, of negative decisions that are right).

    Parameters
    ----------
    positive, decided
        What each scan is, and what it was taken for; shape (scans,) of bool.
    weights
        As of `mriflow.evaluation.metrics.regression_metrics`.
    """
    counted = once(positive) if weights is None else weights
    counts = counted @ np.eye(4)[2 * positive.astype(int) + decided.astype(int)]
    true_negative, false_positive, false_negative, true_positive = counts.T
    with np.errstate(invalid="ignore"):
        metrics = {
            "sensitivity": true_positive / (true_positive + false_negative),
            "specificity": true_negative / (true_negative + false_positive),
            "ppv": true_positive / (true_positive + false_positive),
            "npv": true_negative / (true_negative + false_negative),
        }
    return alone(metrics) if weights is None else metrics


def curves_of(methods: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: list[str]) -> pd.DataFrame:
    """Return the ROC and the precision-recall curve of methods, of more than two classes of each against the rest.

    Parameters
    ----------
    methods
        Of each the number of every scan's class, shape (scans,), and the probabilities, shape (scans, classes).

    Returns
    -------
    Columns method, class, curve (``roc``: x false positive rate, y sensitivity; ``precision-recall``: x sensitivity, y
    precision), x, y and threshold; at most `POINTS` points each, spread evenly over those that there are.
    """
    parts = []
    shown = list(enumerate(classes))[1 if len(classes) == 2 else 0 :]
    for method, number, name in ((method, *one) for method in methods for one in shown):
        truth, probabilities = methods[method]
        positive = truth == number
        if positive.all() or not positive.any():
            continue
        false, true, limits = roc_curve(positive, probabilities[:, number])
        precision, recall, levels = precision_recall_curve(positive, probabilities[:, number])
        drawn = {"roc": (false, true, limits), "precision-recall": (recall, precision, np.append(levels, np.nan))}
        for curve, (x, y, threshold) in drawn.items():
            kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
            points = {"x": x[kept], "y": y[kept], "threshold": np.where(np.isfinite(threshold), threshold, np.nan)[kept]}
            parts.append(pd.DataFrame({"method": method, "class": name, "curve": curve, **points}))
    names = ["method", "class", "curve", "x", "y", "threshold"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
