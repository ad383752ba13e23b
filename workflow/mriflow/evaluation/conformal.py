"""Conformal intervals and sets: how far a prediction must reach to hold the truth nine times in ten, whatever its errors.

Split conformal (Vovk et al. 2005; Angelopoulos & Bates 2023): the errors on scans that were not learned from are put in order,
and the one at nine tenths of the way is taken. If a new scan is like those, it holds at least as often as it says.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import beta

from mriflow.evaluation.metrics import number

LEVEL = 0.9


def conformal_quantile(scores: np.ndarray, subjects: Sequence[str], level: float = LEVEL) -> float:
    """Return the score that a scan of a new person does not exceed with the probability `level`; infinity if they are too few.

    Of n people with a scan each it is the ceil((n + 1) level)-th smallest score, shape (scans,). Several scans of a person
    count as one together (Dunn et al. 2023, Journal of the American Statistical Association 118:2491).

    >>> conformal_quantile(np.arange(1.0, 20.0), list(range(19))), conformal_quantile(np.arange(8.0), list(range(8)))
    (18.0, inf)
    """
    _, person, scans = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1 / scans[person[order]]) >= (len(scans) + 1) * level - 1e-9
    return float(scores[order][reached.argmax()]) if reached.any() else math.inf


def half_width(truth: np.ndarray, predicted: np.ndarray, subjects: Sequence[str]) -> float | None:
    """Return w such that predicted - w to predicted + w holds the truth at the level; None if any w might be too small."""
    return number(conformal_quantile(np.abs(predicted - truth), subjects))


def set_quantile(truth: np.ndarray, probabilities: np.ndarray, subjects: Sequence[str]) -> float | None:
    """Return the quantile of 1 - the true class's probability; `truth` are numbers of classes. None if there are too few."""
    return number(conformal_quantile(1 - probabilities[np.arange(len(truth)), truth], subjects))


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


def exact_interval(hits: float, n: int, level: float = 0.95) -> dict[str, float | None]:
    """Return a share as value, low and high: the interval of Clopper and Pearson, 95 % or another `level`.

    >>> {name: round(number, 3) for name, number in exact_interval(9, 10).items()}
    {'value': 0.9, 'low': 0.555, 'high': 0.997}
    """
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return {"value": hits / n, "low": low, "high": high}
