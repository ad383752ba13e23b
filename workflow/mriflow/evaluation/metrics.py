"""Metrics of how good predictions are, each with its 95 % confidence interval: the bootstrap over subjects.

A resample is a row of weights, how often each scan was drawn, and a metric takes many rows at once. So a thousand resamples of
40,000 scans take a second or two.
"""

import functools
import warnings
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

METHODS = ("network", "stacked", "tissue", "classical", "pca", "confounders", "trivial")  # side by side, those that were made
RIVALS = ("tissue", "classical")  # the best known before; the first of them that was made is what the network has to beat
ALWAYS = ("network", "classical", "trivial")
LESS_IS_BETTER = {"mae", "rmse"}
RESAMPLES = 1000
BATCH = 400_000  # weights at once: more leave the processor's cache. The numbers are the same

Metrics = dict[str, Any]  # a float each or, of resamples, shape (resamples,)
Cell = dict[str, float | None]  # value, low and high
MetricsWithIntervals = dict[str, Cell]


def rival_of(made: Container[str]) -> str:
    """Return which of the methods that were made a network has to beat."""
    return next((method for method in RIVALS if method in made), "classical")


def regression_metrics(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
    """Return mae, rmse, r2, r (Pearson), and slope of the residual (predicted - true) against the truth, and its mean, bias.

    Parameters
    ----------
    truth, predicted
        Shape (scans,), in the target's unit. A slope of -1 is that of a constant guess, 0 that of no bias.
    weights
        How often each scan counts, shape (resamples, scans); without, once.

    Returns
    -------
    Of each metric a float or, with weights, shape (resamples,). One that is not defined is not a number.

    >>> metrics = regression_metrics(np.array([20.0, 40.0, 60.0]), np.array([25.0, 40.0, 55.0]))
    >>> {name: round(value, 2) for name, value in metrics.items()}
    {'mae': 3.33, 'rmse': 4.08, 'r2': 0.94, 'r': 1.0, 'slope': -0.25, 'bias': 0.0}
    """
    counted = once(truth) if weights is None else weights
    residual = predicted - truth
    mae, mse = mean_of(np.stack([np.abs(residual), np.square(residual)], 1), counted).T
    on_truth, both = moments(truth, residual, counted), moments(truth, predicted, counted)
    with np.errstate(invalid="ignore"):
        metrics = {
            "mae": mae,
            "rmse": np.sqrt(mse),
            "r2": 1 - mse / on_truth.var_x,
            "r": both.covariance / np.sqrt(both.var_x * both.var_y),
            "slope": on_truth.covariance / on_truth.var_x,
            "bias": on_truth.mean_y,
        }
    return alone(metrics) if weights is None else metrics


@dataclass(frozen=True)
class Moments:
    """Means, variances and covariance of two measures, shape (resamples,); a variance of 0 is not a number."""

    mean_x: np.ndarray
    mean_y: np.ndarray
    var_x: np.ndarray
    var_y: np.ndarray
    covariance: np.ndarray


def moments(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Moments:
    """Return the moments of two measures, shape (scans,), with every row of the weights, shape (resamples, scans)."""
    centre_x, centre_y = x.mean(), y.mean()  # sums of squares lose no digits so
    a, b = x - centre_x, y - centre_y
    mean_a, mean_b, aa, bb, ab = mean_of(np.stack([a, b, a * a, b * b, a * b], 1), weights).T

    def variance(squares: np.ndarray, mean: np.ndarray, values: np.ndarray, size: float) -> np.ndarray:
        rounding = 1e-12 * np.square(values).max(initial=0) + 1e-18 * max(1.0, size) ** 2
        found = squares - mean**2
        return np.where(found > rounding, found, np.nan)

    return Moments(
        mean_a + centre_x,
        mean_b + centre_y,
        variance(aa, mean_a, a, abs(centre_x)),
        variance(bb, mean_b, b, abs(centre_y)),
        ab - mean_a * mean_b,
    )


def classification_metrics(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
    """Return accuracy, balanced_accuracy, auc, average_precision, and of two classes sensitivity and specificity.

    Of more than two classes, auc and average_precision are the mean over the classes, each against the rest.

    Parameters
    ----------
    truth
        Number of the class, shape (scans,). The last class is the positive one.
    probabilities
        Shape (scans, classes).
    weights
        How often each scan counts, shape (resamples, scans); without, once.

    Returns
    -------
    Of each metric a float or, with weights, shape (resamples,). One that is not defined is not a number.

    >>> found = classification_metrics(np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]))
    >>> {name: found[name] for name in ("accuracy", "auc", "average_precision", "sensitivity", "specificity")}
    {'accuracy': 0.75, 'auc': 1.0, 'average_precision': 1.0, 'sensitivity': 1.0, 'specificity': 0.5}
    """
    counted = once(truth) if weights is None else weights
    classes = probabilities.shape[1]
    cells = np.eye(classes**2)[truth * classes + probabilities.argmax(1)]
    matrix = (counted @ cells).reshape(-1, classes, classes)
    right = matrix.diagonal(axis1=1, axis2=2)
    positive = [1] if classes == 2 else range(classes)
    ranked = [areas(truth == one, probabilities[:, one], counted) for one in positive]
    with np.errstate(invalid="ignore", divide="ignore"):
        recalls = right / matrix.sum(2)
        metrics = {
            "accuracy": right.sum(1) / matrix.sum((1, 2)),
            "balanced_accuracy": recalls.mean(1),
            "auc": np.mean([auc for auc, _ in ranked], axis=0),
            "average_precision": np.mean([precision for _, precision in ranked], axis=0),
        }
    if classes == 2:
        metrics |= {"sensitivity": recalls[:, 1], "specificity": recalls[:, 0]}
    return alone(metrics) if weights is None else metrics


def areas(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the area under the ROC curve and the average precision (that of the precision-recall curve, by steps).

    Parameters
    ----------
    positive, scores
        Whether each scan is of the positive class, and how strongly that is believed; shape (scans,).
    weights
        How often each scan counts, shape (resamples, scans).

    Returns
    -------
    Shape (resamples,) each; not a number if a class has no scan.
    """
    ours, others = (
        side[np.argsort(-scores[side], kind="stable")] for side in (positive.nonzero()[0], (~positive).nonzero()[0])
    )
    found, theirs = weights[:, ours], weights[:, others]
    begin = np.zeros((len(weights), 1))
    true, false = (np.concatenate([begin, side.cumsum(1)], 1) for side in (found, theirs))  # of the first 0, 1, ... scans
    # How many of each class have the score of a positive scan, or a higher one; scores are in falling order.
    above = np.searchsorted(-scores[others], -scores[ours], "left")
    level = np.searchsorted(-scores[others], -scores[ours], "right")
    true_here, false_here = true[:, np.searchsorted(-scores[ours], -scores[ours], "right")], false[:, level]
    total, rest = true[:, -1], false[:, -1]
    # Of the pairs of both classes, those in the right order; a tie is half a win.
    higher = false_here if (above == level).all() else (false_here + false[:, above]) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = 1 - np.einsum("ds,ds->d", found, higher) / (total * rest)
        precision = np.einsum("ds,ds->d", found, true_here / np.maximum(true_here + false_here, 1))
        average = np.where(rest > 0, precision / total, np.nan)
    return auc, average


def auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve, by counting the pairs in the right order; not a number if a class has no scan.

    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.6, 0.7]))
    0.875
    """
    return float(areas(np.asarray(positive, bool), np.asarray(scores, float), once(scores))[0][0])


def once(scans: np.ndarray) -> np.ndarray:
    """Return the weights of the scans as they are: 1 each, shape (1, scans)."""
    return np.ones((1, len(scans)))


def alone(metrics: Metrics) -> Metrics:
    """Return the metrics of a single row of weights as floats."""
    return {name: float(values[0]) for name, values in metrics.items()}


def mean_of(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of columns, shape (scans, columns), as (resamples, columns)."""
    with np.errstate(invalid="ignore"):
        return (weights @ columns) / weights.sum(1, keepdims=True)


def of_a_guess(metrics: Callable[..., Metrics]) -> Callable[..., Metrics]:
    """Return metrics for a guess that looks at no scan: what ranks scans is that of equal scores, r is not defined.

    The guess of each fold is its training people's median or shares, which lie above all people's where its test people lie
    below. Of several folds together these guesses would rank the wrong way round, and anything would look better.
    """

    def judged(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
        found = metrics(truth, predicted, weights)
        if "auc" not in found:
            return found | {"r": found["r"] * np.nan}
        even = metrics(truth, np.full_like(predicted, 1 / predicted.shape[1]), weights)
        return found | {name: even[name] for name in ("auc", "average_precision")}

    return judged


@dataclass(frozen=True)
class Resampled:
    """The metrics of one method, and the same of every resample of the subjects (`draws`: shape (resamples,) each).

    Methods on the same scans have the same resamples, so that their draws can be subtracted.
    """

    metrics: Metrics
    draws: dict[str, np.ndarray]


def with_intervals(
    metrics: Callable[..., Metrics], truth: np.ndarray, predicted: np.ndarray, subjects: Sequence[str], seed: int = 0
) -> MetricsWithIntervals:
    """Return every metric as value, low and high: `intervals` of `resample`."""
    return intervals(resample(metrics, truth, predicted, subjects, seed))


def resample(
    metrics: Callable[..., Metrics],
    truth: np.ndarray,
    predicted: np.ndarray,
    subjects: Sequence[str],
    seed: int = 0,
    scans: np.ndarray | None = None,
) -> Resampled:
    """Return the metrics of one method with those of `RESAMPLES` resamples (bootstrap, Efron & Tibshirani 1993).

    Subjects, not scans, are drawn, for two scans of one person are no two observations. A metric that is not defined
    (a correlation with a constant, an AUC of one class) is not a number.

    Parameters
    ----------
    metrics
        A function of truth, predicted and weights, such as `regression_metrics`.
    subjects
        Of every scan.
    scans
        Which of the scans are meant, shape (scans,) of bool; without, all. The draws are of all subjects in any case, so
        that those of a group and of the others can be subtracted.
    """
    number_of = np.unique(np.asarray(subjects), return_inverse=True)[1]
    drawn = times_drawn(RESAMPLES, int(number_of.max()) + 1, seed)
    meant = np.arange(len(number_of)) if scans is None else np.flatnonzero(scans)
    truth, predicted, number_of = truth[meant], predicted[meant], number_of[meant]
    rows = max(1, BATCH // max(len(meant), 1))
    batches = (drawn[start : start + rows][:, number_of].astype(float) for start in range(0, len(drawn), rows))
    found = [metrics(truth, predicted, weights) for weights in batches]
    return Resampled(metrics(truth, predicted), {name: np.concatenate([one[name] for one in found]) for name in found[0]})


@functools.lru_cache(maxsize=2)
def times_drawn(resamples: int, people: int, seed: int) -> np.ndarray:
    """Return how often each person is drawn in each resample, shape (resamples, people); a byte suffices."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((resamples, people), np.uint8)
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, people, people), minlength=people)
    drawn.flags.writeable = False
    return drawn


def intervals(found: Resampled) -> MetricsWithIntervals:
    """Return every metric as value, low and high: the middle 95 % of the resamples. One that is not defined is None."""
    return {name: as_cell(value, found.draws[name]) for name, value in found.metrics.items()}


def as_cell(value: float, draws: np.ndarray) -> Cell:
    """Return a number with the interval of its resamples; draws in which it is not defined are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a number that is defined in no draw
        low, high = np.nanpercentile(draws, [2.5, 97.5])
    return {"value": number(value), "low": number(low), "high": number(high)}


def number(value: float) -> float | None:
    """Return a number for JSON, which has neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None
