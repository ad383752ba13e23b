"""The gap of a number, predicted - true (of age, the "brain age gap"), as it is and corrected."""

from typing import Any

import numpy as np
import pandas as pd

from mriflow.evaluation.metrics import Metrics, alone, intervals, moments, once, resample

LIMITS = 1.96  # standard deviations


def gap_metrics(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
    """Return slope (on the truth), mean and sd of the gap, and the limits of agreement (Bland & Altman 1986): lower and upper.

    Arguments are those of `mriflow.evaluation.metrics.regression_metrics`. Nine in ten and a half of all gaps lie within the
    limits, mean ± 1.96 sd, if they are normally distributed.
    """
    counted = once(truth) if weights is None else weights
    found, n = moments(truth, predicted - truth, counted), counted.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(found.var_y * n / (n - 1))
    metrics = {
        "slope": found.covariance / found.var_x,
        "mean": found.mean_y,
        "sd": sd,
        "lower_limit": found.mean_y - LIMITS * sd,
        "upper_limit": found.mean_y + LIMITS * sd,
    }
    return alone(metrics) if weights is None else metrics


def gaps_of(predicted: pd.DataFrame) -> dict[str, Any]:
    """Return `gap_metrics` with intervals, raw and, if there is a column `corrected` (de Lange & Cole 2020), corrected."""
    found = {}
    for name, column in (("raw", "network"), ("corrected", "corrected")):
        if column in predicted:
            known = predicted[predicted[column].notna()]
            truth, values = known["truth"].to_numpy(float), known[column].to_numpy(float)
            cells = intervals(resample(gap_metrics, truth, values, known["subject"].to_numpy(str)))
            found[name] = {"n": len(known), **cells}
    return found
