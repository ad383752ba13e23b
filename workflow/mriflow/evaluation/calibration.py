"""What is fitted to predictions of scans that were not learned from, and applied to others: ``calibration.json``.

Of a number: the line of the gap (predicted - true) on the truth, and the conformal half-width. Of a class: the temperature
(Guo et al. 2017), thresholds, and the conformal quantile. A fold's scans are the validation part's; if there is none, the test
parts' of the other folds (cross-conformal, Vovk 2015; CV+, Barber et al. 2021). A fold's own test part is never fitted to.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from mriflow.evaluation.conformal import LEVEL, half_width, prediction_sets, set_quantile
from mriflow.evaluation.decisions import SENSITIVITY, threshold_of_sensitivity, youden_threshold
from mriflow.evaluation.metrics import Metrics, alone, mean_of, moments, once

LEAST = 10  # people, and FEWEST of each class: fewer are not fitted to
FEWEST = 2
LEAST_VALIDATED = 20  # people of a validation part. Of fewer, nine in ten of the errors are all of them, or nearly
PRIOR = np.log(2)  # standard deviation of the logarithm of a temperature before anything is known
BINS = 10  # of ECE and reliability
SMALLEST = 1e-7  # probability that the network is taken to mean by 0

ON_VALIDATION = "The validation part of each fold."
ON_OTHERS = (
    "Of each fold the test parts of the other folds, without people of its own test part (cross-conformal, CV+, Barber et al. "
    f"2021), for the split has no validation part, or one with fewer than {LEAST_VALIDATED} people or {FEWEST} of a class."
)
ON_NOTHING = "No fold: there is no validation part, or a small one, and no other fold with enough scans."
FOR_NEW = "For scans outside the cohort (new): the test parts of all folds."


def fit_all(predicted: pd.DataFrame, validated: pd.DataFrame, classes: list[str] | None) -> dict[str, Any]:
    """Return what is fitted to every fold and for scans outside the cohort.

    Parameters
    ----------
    predicted, validated
        Predictions of the test and of the validation parts (`evaluate`): columns fold, subject, truth, network, and of classes
        network_<class>. The second may be empty.

    Returns
    -------
    ``type``, ``fitted_on`` (words), ``classes`` of a classification, ``folds`` (by the number of the fold, as text, what `fit`
    returns; those with too few scans are absent) and ``new`` (absent if all are too few).
    """
    folds = [int(fold) for fold in predicted["fold"].unique()]
    of_validation = {fold: validated[validated["fold"] == fold] for fold in folds}
    source, chosen = ON_VALIDATION, of_validation
    if not all(enough(scans, classes, LEAST_VALIDATED) for scans in of_validation.values()):
        source, chosen = ON_OTHERS, {fold: others(predicted, fold) for fold in folds}
    fits = {str(fold): fit(scans, classes) for fold, scans in chosen.items() if enough(scans, classes)}
    result: dict[str, Any] = {"type": "regression" if classes is None else "classification"}
    result["fitted_on"] = f"{source if fits else ON_NOTHING} {FOR_NEW}"
    if classes is not None:
        result["classes"] = classes
    result["folds"] = fits
    return result | ({"new": fit(predicted, classes)} if enough(predicted, classes) else {})


def enough(scans: pd.DataFrame, classes: list[str] | None, least: int = LEAST) -> bool:
    """Return whether there are enough people to fit to: `least`, and `FEWEST` of each class, or with different truths."""
    if scans["subject"].nunique() < least:
        return False
    if classes is None:
        return bool(scans["truth"].nunique() > 1)
    return all(scans.loc[scans["truth"].astype(str) == name, "subject"].nunique() >= FEWEST for name in classes)


def others(predicted: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Return the test scans of the other folds, without those of people who are tested in this one."""
    tested = predicted["fold"] == fold
    return predicted[~tested & ~predicted["subject"].isin(predicted.loc[tested, "subject"])]


def fit(scans: pd.DataFrame, classes: list[str] | None) -> dict[str, Any]:
    """Return what is fitted to the network's predictions of some scans.

    Returns
    -------
    Of a number: n, slope and intercept (of the gap predicted - true on the truth), half_width by level. Of classes: n,
    temperature, conformal by level (the quantile of 1 - the probability of the true class) and, of two classes, threshold
    (Youden 1950) and threshold_at_sensitivity by sensitivity, of the second class's probability. Thresholds and quantiles
    are of the network's probabilities as they are, before the temperature.
    """
    subjects = scans["subject"].to_numpy(str)
    if classes is None:
        truth, predicted = scans["truth"].to_numpy(float), scans["network"].to_numpy(float)
        found = moments(truth, predicted - truth, once(truth))
        slope = float(np.nan_to_num(found.covariance / found.var_x)[0])
        intercept = float(found.mean_y[0] - slope * found.mean_x[0])
        half_widths = {str(LEVEL): half_width(truth, predicted, subjects)}
        return {"n": len(scans), "slope": slope, "intercept": intercept, "half_width": half_widths}
    numbers, probabilities = truth_of(scans, classes), probabilities_of(scans, "network", classes)
    result: dict[str, Any] = {"n": len(scans), "temperature": fit_temperature(numbers, probabilities)}
    if len(classes) == 2:
        positive, score = numbers == 1, probabilities[:, 1]
        result["threshold"] = youden_threshold(positive, score)
        result["threshold_at_sensitivity"] = {str(SENSITIVITY): threshold_of_sensitivity(positive, score, SENSITIVITY)}
    return result | {"conformal": {str(LEVEL): set_quantile(numbers, probabilities, subjects)}}


def truth_of(scans: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Return the number of every scan's class, shape (scans,)."""
    return scans["truth"].astype(str).map(list(classes).index).to_numpy(int)


def probabilities_of(scans: pd.DataFrame, method: str, classes: Sequence[str]) -> np.ndarray:
    """Return what a method takes the probability of each class to be, shape (scans, classes)."""
    return scans[[f"{method}_{name}" for name in classes]].to_numpy(float)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature with the smallest log loss, drawn to 1 where scans are few.

    Before anything is known, a factor of 2 either way is one standard deviation: without it, twenty scans that are all right
    would ask for a temperature of 0.
    """

    def loss(logarithm: float) -> float:
        chances = with_temperature(probabilities, float(np.exp(logarithm)))[np.arange(len(truth)), truth]
        return float(-np.log(chances.clip(SMALLEST)).sum() + 0.5 * (logarithm / PRIOR) ** 2)

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities, shape (scans, classes), as if the network's outputs had been divided by the temperature.

    >>> with_temperature(np.array([[0.8, 0.2]]), 2).round(3).tolist()
    [[0.667, 0.333]]
    """
    scaled = np.log(probabilities.clip(SMALLEST)) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    return scaled / scaled.sum(1, keepdims=True)


def apply_all(predicted: pd.DataFrame, calibration: dict[str, Any]) -> pd.DataFrame:
    """Return predictions with further columns, each fold's by what was fitted for it; empty where nothing was.

    Of a number: corrected (the gap's line taken away; it asks for the truth), interval_low and interval_high. Of classes:
    calibrated_<class>, set (the classes in it, joined by |) and, of two classes, at_threshold and at_sensitivity.
    """
    parts = []
    for fold, scans in predicted.groupby("fold", sort=False):
        fitted = calibration["folds"].get(str(fold))
        parts.append(scans.assign(**applied(scans, fitted, calibration.get("classes"))) if fitted else scans)
    return pd.concat(parts).loc[predicted.index]


def applied(scans: pd.DataFrame, fitted: dict[str, Any], classes: list[str] | None) -> dict[str, Any]:
    """Return the columns that `apply_all` adds, of the scans of one fold."""
    if classes is None:
        value, width = scans["network"].to_numpy(float), fitted["half_width"][str(LEVEL)]
        reach = np.nan if width is None else width
        gap = fitted["intercept"] + fitted["slope"] * scans["truth"].to_numpy(float)
        return {"corrected": value - gap, "interval_low": value - reach, "interval_high": value + reach}
    return columns_of_classes(probabilities_of(scans, "network", classes), fitted, classes)


def columns_of_classes(probabilities: np.ndarray, fitted: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return what calibration makes of the probabilities of classes, (scans, classes): the columns of `apply_all`."""
    calibrated = with_temperature(probabilities, fitted["temperature"])
    columns: dict[str, Any] = {f"calibrated_{name}": calibrated[:, number] for number, name in enumerate(classes)}
    sets = prediction_sets(probabilities, fitted["conformal"].get(str(LEVEL)))
    columns["set"] = ["|".join(name for name, held in zip(classes, row, strict=True) if held) for row in sets]
    if len(classes) == 2:
        limits = {"at_threshold": fitted["threshold"]}
        limits["at_sensitivity"] = fitted["threshold_at_sensitivity"][str(SENSITIVITY)]
        for name, limit in limits.items():
            columns[name] = np.array(classes)[(probabilities[:, 1] >= limit).astype(int)]
    return columns


def calibration_metrics(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
    """Return how far probabilities are to be believed: brier and ece (Naeini et al. 2015; ten bins of equal width).

    Parameters
    ----------
    truth, probabilities, weights
        As of `mriflow.evaluation.metrics.classification_metrics`. Of two classes, both are of the second class's probability;
        of more, ece is of the likeliest class's, and brier the sum over the classes.
    """
    counted = once(truth) if weights is None else weights
    believed, right = belief(truth, probabilities)
    if probabilities.shape[1] == 2:
        squares = np.square(believed - right)
    else:
        squares = np.square(probabilities - np.eye(probabilities.shape[1])[truth]).sum(1)
    gaps = np.eye(BINS)[bins_of(believed)] * (believed - right)[:, None]
    means = mean_of(np.column_stack([squares, gaps]), counted)
    metrics = {"brier": means[:, 0], "ece": np.abs(means[:, 1:]).sum(1)}
    return alone(metrics) if weights is None else metrics


def belief(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability that calibration is judged by, and whether it came true; shape (scans,) each."""
    likeliest = probabilities.argmax(1) if probabilities.shape[1] > 2 else np.ones(len(truth), int)
    return probabilities[np.arange(len(truth)), likeliest], (truth == likeliest).astype(float)


def bins_of(believed: np.ndarray) -> np.ndarray:
    """Return the bin of every probability, from 0."""
    return np.minimum((believed * BINS).astype(int), BINS - 1)
