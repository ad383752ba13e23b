"""Where it fails: the worst test scans, whether errors go with quality, and what more people would tell."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from mriflow.evaluation.metrics import Metrics, alone, as_cell, moments, once, resample

QUALITY = ("correlation", "brain_ml", "scale")  # columns of a shard's index
WORST = 10
SEEN = 2.8  # standard errors: a true difference as large is told in four of five studies (Cohen 1988; 5 %, two-sided)
WIDTH = 2 * 1.96  # of an interval, in standard errors


def errors_of(truth: np.ndarray, values: np.ndarray, classes: list[str] | None) -> np.ndarray:
    """Return how wrong each prediction is: predicted - true, or 1 - the probability of the true class; shape (scans,)."""
    return values - truth if classes is None else 1 - values[np.arange(len(truth)), truth]


def worst(predicted: pd.DataFrame, errors: np.ndarray) -> pd.DataFrame:
    """Return the `WORST` test scans, the worst first: id, subject, site, fold, truth, network, error, quality and image."""
    order = np.argsort(-np.abs(errors), kind="stable")[:WORST]
    names = ["id", "subject", "session", "site", "fold", "truth", "network", "error", *QUALITY, "image"]
    table = predicted.assign(error=errors).iloc[order]
    return table[[name for name in names if name in table]]


def errors_and_quality(predicted: pd.DataFrame, errors: np.ndarray) -> list[dict[str, Any]]:
    """Return Spearman's correlation of the absolute error with each measure of quality.

    Returns
    -------
    measure, n and value, low and high: ranks are of all scans, the interval is the bootstrap over subjects. A measure that is
    the same for all scans has no correlation.
    """
    found = []
    for name in (name for name in QUALITY if name in predicted):
        known = predicted[name].notna().to_numpy()
        cell: Mapping[str, float | None] = {"value": None, "low": None, "high": None}
        if known.sum() > 2:
            ranks = rankdata(np.abs(errors[known])), rankdata(predicted.loc[known, name])
            drawn = resample(correlation, *ranks, predicted.loc[known, "subject"].to_numpy(str))
            cell = as_cell(drawn.metrics["r"], drawn.draws["r"])
        found.append({"measure": name, "n": int(known.sum()), **cell})
    return found


def correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
    """Return r, Pearson's correlation; arguments as of `mriflow.evaluation.metrics.moments`."""
    found = moments(x, y, once(x) if weights is None else weights)
    metrics = {"r": found.covariance / np.sqrt(found.var_x * found.var_y)}
    return alone(metrics) if weights is None else metrics


def power_of(
    metric: str, cell: Mapping[str, float | None], people: int, differences: Sequence[Mapping[str, Any]], rival: str, unit: str
) -> dict[str, Any]:
    """Return how wide the interval of a metric is, how wide with twice the people, and how a null result is to be put.

    Returns
    -------
    metric, people, width, width_at_twice, smallest_difference (that from the `rival` method which these people would show in
    four of five studies) and sentences; numbers are None where the interval is not known.
    """
    low, high = cell["low"], cell["high"]
    width = None if low is None or high is None else high - low
    pair = [one for one in differences if (one["method"], one["other"], one["metric"]) == ("network", rival, metric)]
    known = [one for one in pair if one["low"] is not None and one["high"] is not None]
    smallest = (known[0]["high"] - known[0]["low"]) / WIDTH * SEEN if known else None
    result = {"metric": metric, "people": people, "width": width, "smallest_difference": smallest}
    result["width_at_twice"] = None if width is None else width / math.sqrt(2)
    texts, unit = [], f" {unit}" if unit and metric == "mae" else ""
    if width:
        texts.append(
            f"The 95 % interval of the {metric.upper()} is {width:.3g}{unit} wide. With twice the people ({2 * people}) it "
            f"would be about {width / math.sqrt(2):.3g}{unit} wide, for widths shrink with the square root of their number."
        )
    if smallest:
        texts.append(
            f"A true difference of {smallest:.3g}{unit} from the {rival} method would be told in four of five such studies. "
            f"If none is told, put it so: with {people} people a difference was not found, and one below {smallest:.3g}{unit} "
            "could easily have been missed. Give the interval, and do not call the methods equal. A smaller one that is told "
            "is likely smaller still in truth."
        )
    return {**result, "sentences": texts}
