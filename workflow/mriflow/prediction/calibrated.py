"""The columns of predictions of new scans: what the networks say, how far they differ, and what calibration makes of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mriflow.evaluation.calibration import columns_of_classes

LEVEL = "0.9"  # of intervals and sets, as calibration.json names it


def columns_of(each: np.ndarray, classes: Sequence[str], calibration: Mapping[str, Any] | None) -> pd.DataFrame:
    """Return one row per scan.

    Parameters
    ----------
    each
        The prediction of each network, shape (networks, scans) in the target's unit, or (networks, scans, classes).
    classes
        Their names; none of a number.
    calibration
        What was fitted to predictions of scans that were not trained on; None if nothing was.

    Returns
    -------
    ``prediction``, the mean over the networks or the likeliest class; ``spread``, the standard deviation over the networks (of
    the likeliest class's probability; empty for one network alone). Of a number ``interval_low`` and ``interval_high``; of
    classes ``probability_<class>``, ``calibrated_<class>``, ``set``, the classes that cannot be ruled out, joined by |, and of
    two classes ``at_threshold`` and ``at_sensitivity``, the decisions at the thresholds of `mriflow.evaluation.decisions`. The
    interval and the set hold the truth of nine in ten scans that are like those of training. Without calibration all but the
    prediction, its spread and probabilities are absent.
    """
    mean = np.mean(list(each), axis=0)
    spread = each.std(axis=0, ddof=1) if len(each) > 1 else np.full(mean.shape, np.nan)
    if not classes:
        table = pd.DataFrame({"prediction": mean, "spread": spread})
        reach = (calibration or {}).get("half_width", {}).get(LEVEL)
        return table.assign(interval_low=mean - reach, interval_high=mean + reach) if reach is not None else table
    likeliest = mean.argmax(1)
    table = pd.DataFrame({"prediction": np.array(classes)[likeliest], "spread": spread[np.arange(len(mean)), likeliest]})
    table = table.assign(**{f"probability_{name}": mean[:, number] for number, name in enumerate(classes)})
    if not calibration:
        return table
    return table.assign(**columns_of_classes(mean, calibration, classes))
