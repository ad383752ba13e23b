"""Metrics of how good predictions are, each with its 95 % confidence interval, and the differences of methods."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

METHODS = ("network", "stacked", "classical", "pca", "confounders", "trivial")  # side by side, those of them that were made
ALWAYS = ("network", "classical", "trivial")
LESS_IS_BETTER = {"mae", "rmse"}
RESAMPLES = 1000
BATCH = 100  # of them are drawn at once: all of 40,000 subjects would take 320 MB. The numbers are the same

Metrics = dict[str, float]
MetricsWithIntervals = dict[str, dict[str, float | None]]


def regression_metrics(truth: np.ndarray, predicted: np.ndarray) -> Metrics:
    """Return mae, rmse, r2, r (Pearson) and slope of the residual (predicted - true) against the truth.

    Parameters
    ----------
    truth, predicted
        Shape (scans,), in the target's unit. A slope of -1 is that of a constant guess, 0 that of no bias.

    >>> metrics = regression_metrics(np.array([20.0, 40.0, 60.0]), np.array([25.0, 40.0, 55.0]))
    >>> {name: round(value, 2) for name, value in metrics.items()}
    {'mae': 3.33, 'rmse': 4.08, 'r2': 0.94, 'r': 1.0, 'slope': -0.25}
    """
    residual = predicted - truth
    constant = np.ptp(predicted) < 1e-9 * max(1.0, np.abs(predicted).max())
    same = np.ptp(truth) == 0  # nothing that could be explained
    return {
        "mae": float(np.abs(residual).mean()),
        "rmse": float(np.sqrt(np.square(residual).mean())),
        "r2": float("nan") if same else float(1 - np.square(residual).sum() / np.square(truth - truth.mean()).sum()),
        "r": float("nan") if constant or same else float(np.corrcoef(truth, predicted)[0, 1]),
        "slope": float("nan") if same else float(np.polyfit(truth, residual, 1)[0]),
    }


def classification_metrics(truth: np.ndarray, probabilities: np.ndarray) -> Metrics:
    """Return accuracy, balanced_accuracy, auc (one against the rest), and of two classes sensitivity and specificity.

    Parameters
    ----------
    truth
        Number of the class, shape (scans,). The last class is the positive one.
    probabilities
        Shape (scans, classes).

    >>> classification_metrics(np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]))
    {'accuracy': 0.75, 'balanced_accuracy': 0.75, 'auc': 1.0, 'sensitivity': 1.0, 'specificity': 0.5}
    """
    classes = probabilities.shape[1]
    # By hand, for a thousand resamples: confusion_matrix and roc_auc_score of scikit-learn take fifty times as long.
    matrix = np.bincount(truth * classes + probabilities.argmax(1), minlength=classes**2).reshape(classes, classes)
    with np.errstate(invalid="ignore"):
        recalls = matrix.diagonal() / matrix.sum(1)
    positive = [1] if classes == 2 else range(classes)
    metrics = {
        "accuracy": float(matrix.trace() / matrix.sum()),
        "balanced_accuracy": float(recalls.mean()),
        "auc": float(np.mean([auc(truth == one, probabilities[:, one]) for one in positive])),
    }
    if classes == 2:
        metrics |= {"sensitivity": float(recalls[1]), "specificity": float(recalls[0])}
    return metrics


def auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve, by counting the pairs in the right order; not a number if a class has no scan.

    Parameters
    ----------
    positive, scores
        Whether each scan is of the positive class (bool or 0 and 1), and how strongly that is believed; shape (scans,).

    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.6, 0.7]))
    0.875
    """
    distinct, place = np.unique(scores, return_inverse=True)
    negative, found = (np.bincount(place[positive == one], minlength=len(distinct)) for one in (0, 1))
    below = np.cumsum(negative) - negative / 2  # a tie is half a win
    pairs = negative.sum() * found.sum()
    return float((found * below).sum() / pairs) if pairs else float("nan")


@dataclass(frozen=True)
class Resampled:
    """The metrics of one method, and the same of every resample of the subjects (`draws`: shape (resamples,) each).

    Methods on the same scans have the same resamples, so that their draws can be subtracted.
    """

    metrics: Metrics
    draws: dict[str, np.ndarray]


def with_intervals(
    metrics: Callable[[np.ndarray, np.ndarray], Metrics],
    truth: np.ndarray,
    predicted: np.ndarray,
    subjects: Sequence[str],
    seed: int = 0,
) -> MetricsWithIntervals:
    """Return every metric as value, low and high: `intervals` of `resample`."""
    return intervals(resample(metrics, truth, predicted, subjects, seed))


def resample(
    metrics: Callable[[np.ndarray, np.ndarray], Metrics],
    truth: np.ndarray,
    predicted: np.ndarray,
    subjects: Sequence[str],
    seed: int = 0,
) -> Resampled:
    """Return the metrics of one method with those of `RESAMPLES` resamples (bootstrap, Efron & Tibshirani 1993).

    Subjects, not scans, are drawn, for two scans of one person are no two observations. A metric that is not defined
    (a correlation with a constant, an AUC of one class) is not a number.
    """
    values = metrics(truth, predicted)
    _, number_of = np.unique(subjects, return_inverse=True)
    order = np.argsort(number_of, kind="stable")
    count = np.bincount(number_of)  # of each subject's scans, which stand together in `order`, from `first` on
    first = np.cumsum(count) - count

    def statistic(drawn: np.ndarray) -> np.ndarray:
        scans = order[runs(first[drawn], count[drawn])]
        return np.array(list(metrics(truth[scans], predicted[scans]).values()))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metrics that are not defined in a draw
        draws = bootstrap(
            (np.arange(len(count)),),
            statistic,
            n_resamples=RESAMPLES,
            batch=BATCH,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    return Resampled(values, dict(zip(values, draws, strict=True)))


def intervals(found: Resampled) -> MetricsWithIntervals:
    """Return every metric as value, low and high: the middle 95 % of the resamples. One that is not defined is None."""
    return {name: as_cell(value, found.draws[name]) for name, value in found.metrics.items()}


def difference(one: Resampled, other: Resampled, metric: str) -> dict[str, float | str | None]:
    """Return by how much a metric of `one` exceeds that of `other`, on the same scans and resamples, and what that means.

    Returns
    -------
    value, low and high, and ``verdict``: whether `one` is ``better`` or ``worse``, or that it ``cannot be told``, which is
    so if 0 lies within the interval.
    """
    cell = as_cell(one.metrics[metric] - other.metrics[metric], one.draws[metric] - other.draws[metric])
    low, high = cell["low"], cell["high"]
    if low is None or high is None or low <= 0 <= high:
        return {**cell, "verdict": "cannot be told"}
    return {**cell, "verdict": "better" if (high < 0) == (metric in LESS_IS_BETTER) else "worse"}


def as_cell(value: float, draws: np.ndarray) -> dict[str, float | None]:
    """Return a number with the interval of its resamples; draws in which it is not defined are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a number that is defined in no draw
        low, high = np.nanpercentile(draws, [2.5, 97.5])
    return {"value": number(value), "low": number(low), "high": number(high)}


def runs(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return ``[*range(first[0], first[0] + count[0]), *range(first[1], ...), ...]``, without a loop.

    >>> runs(np.array([0, 10]), np.array([2, 3])).tolist()
    [0, 1, 10, 11, 12]
    """
    return np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())


def number(value: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)
