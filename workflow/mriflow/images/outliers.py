"""Measures of a scan that lie far from what is usual among others, or from what the template lets expect."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mriflow.images.registration import TEMPLATE_ML
from mriflow.images.scan import TEMPLATE_RATIO

MEASURES = {"correlation": "correlation with the template", "brain_ml": "volume of the brain (ml)", "scale": "scale"}
CONTRAST = {
    "intensity": "median intensity of the brain (of 255)",
    "intensity_iqr": "interquartile range of the brain's intensities (of 255)",
}
FAR = 4.0  # robust standard deviations from the median; of 147 real scans one lies further
LEAST_SCANS = 20  # among fewer, no one can say which is far from the others


def usual(values: pd.Series) -> dict[str, float] | None:
    """Return the `median` of a measure and its robust standard deviation (`spread`); None if the scans do not tell."""
    middle = float(values.median())
    spread = float(1.4826 * (values - middle).abs().median())  # the standard deviation, if the values were normal
    return {"median": middle, "spread": spread} if values.count() >= LEAST_SCANS and spread > 0 else None


def far_from_usual(
    measures: Mapping[str, Any], of_others: Mapping[str, Mapping[str, float] | None], names: Mapping[str, str] = MEASURES
) -> str:
    """Return in which measures a scan lies far from what is `usual` of others, as text.

    A high correlation or certainty is not far.
    """
    far = []
    for name, words in names.items():
        value, known = measures[name], of_others.get(name)
        if known is None or pd.isna(value):
            continue
        away = (value - known["median"]) / known["spread"]
        if away < -FAR or (away > FAR and name not in ("correlation", "certainty")):
            far.append(f"{words} ({value:.4g}, median {known['median']:.4g})")
    return "; ".join(far)


def far_from_template(measures: pd.DataFrame, registration: str) -> pd.Series:
    """Return of which scans the mask is likely wrong, as text: their volume does not fit the template's times their scale."""
    expected = TEMPLATE_ML * measures["scale"]
    low, high = TEMPLATE_RATIO[registration]
    far = pd.Series("", index=measures.index)
    for row in far.index[(measures["brain_ml"] < low * expected) | (measures["brain_ml"] > high * expected)]:
        limits = f"{low * expected[row]:.0f} to {high * expected[row]:.0f}"
        far[row] = f"volume of the brain ({measures['brain_ml'][row]:.0f} ml, by the template {limits})"
    return far


def contrast_of(volume: np.ndarray) -> dict[str, float]:
    """Return the `CONTRAST` of a preprocessed scan, uint8, 0 around the brain: T2, or another sequence, spreads otherwise."""
    low, middle, high = np.percentile(volume[volume > 0], (25, 50, 75)).tolist()
    return {"intensity": middle, "intensity_iqr": high - low}
