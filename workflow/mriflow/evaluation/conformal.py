"""Conformal intervals and sets: how far a prediction must reach to hold the truth nine times in ten, whatever its errors.

Split conformal (Vovk et al. 2005; Angelopoulos & Bates 2023): the errors on scans that were not learned from are put in order,
and the one at nine tenths of the way is taken. If a new scan is like those, it holds at least as often as it says.
"""

import math
from typing import Any

import numpy as np
from scipy.stats import beta

from mriflow.evaluation.metrics import number

LEVEL = 0.9


def conformal_quantile(scores: np.ndarray, level: float = LEVEL) -> float:
    """Return the score that a new scan does not exceed with the probability `level`; infinity if there are too few.

    It is the ceil((n + 1) level)-th smallest of the n scores, shape (scans,).

    >>> conformal_quantile(np.arange(1.0, 20.0)), conformal_quantile(np.arange(8.0))
    (18.0, inf)
    """
    rank = math.ceil(round((len(scores) + 1) * level, 9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def half_width(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    """Return w such that predicted - w to predicted + w holds the truth at the level; None if any w might be too small."""
    return number(conformal_quantile(np.abs(predicted - truth)))


def set_quantile(truth: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Return the quantile of 1 - the true class's probability; `truth` are numbers of classes. None if there are too few."""
    return number(conformal_quantile(1 - probabilities[np.arange(len(truth)), truth]))


def prediction_sets(probabilities: np.ndarray, quantile: float | None) -> np.ndarray:
    """Return which classes are in each scan's set, shape (scans, classes) of bool; the likeliest always is.

    With a quantile of None, nothing is known and all are.
    """
    if quantile is None:
        return np.ones(probabilities.shape, bool)
    within = 1 - probabilities <= quantile
    within[np.arange(len(within)), probabilities.argmax(1)] = True
    return within


def coverage(held: np.ndarray, people: int) -> dict[str, Any]:
    """Return how often the truth was held: level, n, value, low and high (Clopper & Pearson 1934).

    Parameters
    ----------
    held
        Whether it was, shape (scans,).
    people
        How many these scans are of: scans of one person are one observation.
    """
    value = float(held.mean())
    return {"level": LEVEL, "n": len(held), **exact_interval(value * people, people)}


def exact_interval(hits: float, n: int) -> dict[str, float | None]:
    """Return a share as value, low and high: the interval of Clopper and Pearson, 95 %.

    >>> {name: round(number, 3) for name, number in exact_interval(9, 10).items()}
    {'value': 0.9, 'low': 0.555, 'high': 0.997}
    """
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return {"value": hits / n, "low": low, "high": high}
