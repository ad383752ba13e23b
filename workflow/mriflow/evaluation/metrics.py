"""Metrics of how good predictions are, each with its 95 % confidence interval."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import bootstrap
from sklearn.metrics import confusion_matrix, r2_score, roc_auc_score

METHODS = ("network", "classical", "trivial")  # whose metrics stand side by side
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
    return {
        "mae": float(np.abs(residual).mean()),
        "rmse": float(np.sqrt(np.square(residual).mean())),
        "r2": float("nan") if np.ptp(truth) == 0 else float(r2_score(truth, predicted)),
        "r": float("nan") if constant or np.ptp(truth) == 0 else float(np.corrcoef(truth, predicted)[0, 1]),
        "slope": float("nan") if np.ptp(truth) == 0 else float(np.polyfit(truth, residual, 1)[0]),
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
    matrix = confusion_matrix(truth, probabilities.argmax(1), labels=range(classes))
    with np.errstate(invalid="ignore"):
        recalls = matrix.diagonal() / matrix.sum(1)
    auc = float("nan")
    if np.isin(range(classes), truth).all():
        auc = float(roc_auc_score(truth, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr"))
    metrics = {
        "accuracy": float(matrix.trace() / matrix.sum()),
        "balanced_accuracy": float(recalls.mean()),
        "auc": auc,
    }
    if classes == 2:
        metrics |= {"sensitivity": float(recalls[1]), "specificity": float(recalls[0])}
    return metrics


def with_intervals(
    metrics: Callable[[np.ndarray, np.ndarray], Metrics],
    truth: np.ndarray,
    predicted: np.ndarray,
    subjects: Sequence[str],
    seed: int = 0,
) -> MetricsWithIntervals:
    """Return every metric as value, low and high: the percentile bootstrap over subjects (Efron & Tibshirani 1993).

    Subjects, not scans, are drawn, for two scans of one person are no two observations. A metric that is not defined
    (a correlation with a constant, R² of a constant target, an AUC of one class) is None.
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
        # Draws in which a metric is not defined (an AUC of one class) are left out of its interval.
        warnings.simplefilter("ignore")
        draws = bootstrap(
            (np.arange(len(count)),),
            statistic,
            n_resamples=RESAMPLES,
            batch=BATCH,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
        low, high = np.nanpercentile(draws, [2.5, 97.5], axis=-1)
    return {
        name: {"value": number(value), "low": number(below), "high": number(above)}
        for (name, value), below, above in zip(values.items(), low, high, strict=True)
    }


def runs(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return ``[*range(first[0], first[0] + count[0]), *range(first[1], ...), ...]``, without a loop.

    >>> runs(np.array([0, 10]), np.array([2, 3])).tolist()
    [0, 1, 10, 11, 12]
    """
    return np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())


def number(value: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)
