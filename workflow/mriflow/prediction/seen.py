"""What a model has seen in training, and how a new scan differs from that."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mriflow.images.outliers import CONTRAST, MEASURES, far_from_template, far_from_usual, usual

EDGE = 0.05  # of the range of a label: a prediction so near to its ends is pulled from beyond them, or wrong
COARSER = 1.5  # times the largest voxel seen, or the smallest: from there on, other voxels
SPACING = ["spacing_1", "spacing_2", "spacing_3"]  # columns of headers.csv, mm
NAMES = {**MEASURES, **CONTRAST}


def seen_in_training(
    scans: pd.DataFrame, labels: Sequence[str], categories: Sequence[str], headers: pd.DataFrame, measures: pd.DataFrame
) -> dict[str, Any]:
    """Return what a model has seen, as its metadata say it.

    Parameters
    ----------
    scans
        The rows of labels.csv of the scans that it was trained or validated on.
    labels, categories
        Columns of them that count, and which of these are names of classes even if they look like numbers.
    headers
        Their rows of headers.csv (`mriflow.check`).
    measures
        Their quality measures and contrast, one column each of `NAMES`.
    """
    known = {name: scans[name].dropna() for name in labels if name in scans}
    edges = headers[SPACING].astype(float)
    return {
        "scans": len(scans),
        "subjects": int(scans["subject"].nunique()),
        "sites": counts(scans["site"].replace("", "not known")),
        "labels": {
            name: range_of(values) if pd.api.types.is_numeric_dtype(values) and name not in categories else counts(values)
            for name, values in known.items()
            if len(values)
        },
        "voxel_mm": range_of(pd.Series(edges.to_numpy().ravel())) if edges.notna().any(axis=None) else None,
        "measures": {name: usual(measures[name]) for name in NAMES if name in measures},
    }


def counts(values: pd.Series) -> dict[str, int]:
    """Return how many scans have each value, by its name."""
    return {str(name): int(number) for name, number in values.astype(str).value_counts().sort_index().items()}


def range_of(values: pd.Series) -> dict[str, float]:
    """Return the lowest and the highest value."""
    return {"low": round(float(values.min()), 4), "high": round(float(values.max()), 4)}


def unlike(
    facts: Mapping[str, Any], measures: Mapping[str, Any], edges: Sequence[float], labels: Mapping[str, Any], prediction: Any
) -> list[str]:
    """Return, in words, in what a scan is not like those that a model has seen; such a prediction is not to be trusted.

    Parameters
    ----------
    facts
        Of the model (`mriflow.prediction.stored.Stored`).
    measures
        Of the scan: quality measures and contrast.
    edges
        Of its voxels as scanned, mm; none if not known.
    labels
        Its covariates.
    prediction
        A number, the name of a class, or None if it is a label map.
    """
    seen, registration = facts["seen"], facts["preprocess"]["registration"]
    names = {**NAMES, **{name: f"{name} of the label map" for name in seen["measures"] if name not in NAMES}}
    words = [far_from_usual({name: measures.get(name) for name in names}, seen["measures"], names)]
    row = pd.DataFrame([{name: measures[name] for name in MEASURES}])
    words.append(far_from_template(row, registration).iloc[0])
    if seen["voxel_mm"] and len(edges):
        low, high = seen["voxel_mm"]["low"], seen["voxel_mm"]["high"]
        if max(edges) > COARSER * high or min(edges) < low / COARSER:
            words.append(f"voxels of {' x '.join(f'{edge:.3g}' for edge in edges)} mm ({low:g} to {high:g} in training)")
    of_training = "unlike the scans of training: "
    texts = [of_training + "; ".join(filter(None, words))] if any(words) else []
    for name, value in labels.items():
        known = seen["labels"].get(name, {})
        if is_range(known) and not known["low"] <= float(value) <= known["high"]:
            texts.append(f"{name} {float(value):g} is outside of what was trained on ({known['low']:g} to {known['high']:g})")
        elif known and not is_range(known) and str(value) not in known:
            texts.append(f"{name} {value!r} was not in training (there: {', '.join(known)})")
    target = seen["labels"].get(facts["target"]["column"], {})
    if facts["target"]["type"] == "regression" and is_range(target):
        low, high = target["low"], target["high"]
        if not low + EDGE * (high - low) <= prediction <= high - EDGE * (high - low):
            texts.append(
                f"the prediction lies at the edge of what was trained on ({low:g} to {high:g}): the truth may lie beyond"
            )
    return texts


def is_range(known: Mapping[str, Any]) -> bool:
    """Return whether what was seen of a label is its lowest and highest value, and not counts of its values."""
    return set(known) == {"low", "high"} and any(isinstance(value, float) for value in known.values())
