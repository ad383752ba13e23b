"""Differences of methods, of experiments and of groups: how large, how sure, and in words.

The p of an AUC is that of DeLong et al. 1988, with several scans of a subject (Obuchowski 1997), if there are `LEAST` people of
each class; of other metrics it is that of the difference over its standard error, the standard deviation of the paired
resamples, by Student's t with one less than people degrees of freedom. Of many comparisons one would be told by
chance, so each p is corrected for all that are made together (Holm 1979).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import comb, ndtri
from scipy.stats import t

from mriflow.evaluation.metrics import LESS_IS_BETTER, Resampled, as_cell, number

LEVEL = 0.05  # of the corrected p, below which a difference is told
NAMES = {"dice": "Dice", "mae": "MAE", "auc": "AUC", "accuracy": "accuracy", "bias": "bias"}
UNDECIDED = "cannot be told"
LEAST = 10  # people of each class, for the p of an AUC: of fewer it is far too small

Scored = tuple[Resampled, np.ndarray]  # the metrics of a method, and its predictions: (scans,) or (scans, classes)


def compared_metrics(classes: Sequence[str] | None) -> list[str]:
    """Return the metrics by which methods are compared."""
    return ["mae"] if classes is None else ["auc", "accuracy"] if len(classes) == 2 else ["accuracy"]


def differences_of(
    methods: Mapping[str, Scored],
    pairs: Sequence[tuple[str, str]],
    truth: np.ndarray,
    subjects: Sequence[str],
    classes: Sequence[str] | None,
    unit: str = "",
) -> list[dict[str, Any]]:
    """Return by how much the first of each pair exceeds the second on the same scans, and what that means.

    Parameters
    ----------
    truth
        A number, or the number of the class, of every scan.

    Returns
    -------
    For each metric (mae; auc and accuracy, of more than two classes accuracy alone) and pair: method, other, metric, people,
    unit, value, low and high (paired bootstrap), of an AUC delong_low and delong_high, too, p and test (how it was found). Give
    all that are made together to `judge`.
    """
    found, people = [], len(set(subjects))
    for metric in compared_metrics(classes):
        for one, other in pairs:
            (ours, scores), (theirs, others) = methods[one], methods[other]
            row = {"method": one, "other": other, "metric": metric, "people": people}
            row |= {"unit": unit if metric in LESS_IS_BETTER else "", **difference(ours, theirs, metric, people)}
            if metric == "auc":
                row |= delong_difference(truth == 1, scores[:, 1], others[:, 1], subjects)
            found.append(row)
    return found


def difference(one: Resampled, other: Resampled, metric: str, people: int) -> dict[str, Any]:
    """Return by how much a metric of `one` exceeds that of `other` on the same resamples: value, low, high, p and test.

    `people` are those that the smaller of both is of.
    """
    draws = one.draws[metric] - other.draws[metric]
    value = one.metrics[metric] - other.metrics[metric]
    known = draws[np.isfinite(draws)]
    # The spread of resamples of n people is too small by the root of (n - 1) / n.
    error = float(known.std(ddof=1)) * float(np.sqrt(people / (people - 1))) if len(known) > 1 < people else 0.0
    return {**as_cell(value, draws), "p": p_of(value, error, people - 1), "test": "bootstrap"}


def against(ours: Resampled, theirs: Resampled, metric: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `difference` of two with what `judge` needs to know `about` it: method, other, people, unit."""
    return {**about, "metric": metric, **difference(ours, theirs, metric, about["people"])}


def p_of(value: float, error: float, freedom: float = np.inf) -> float | None:
    """Return the two-sided p of a difference with a standard error, None if one of them is not known or the error is 0."""
    return number(float(2 * t.sf(abs(value) / error, freedom))) if error > 0 and np.isfinite(value) else None


def judge(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return differences, a family of comparisons, each with p_holm, verdict (better, worse, cannot be told) and sentence."""
    corrected = holm([row["p"] for row in found])
    for row, p in zip(found, corrected, strict=True):
        row["p_holm"], row["verdict"] = p, UNDECIDED
        if p is not None and p < LEVEL:
            row["verdict"] = "better" if (row["value"] < 0) == (row["metric"] in LESS_IS_BETTER) else "worse"
        row["sentence"] = sentence(row, len(found))
    return found


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Return each p corrected for all of them (Holm 1979); what is None stays so, and counts as no comparison.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = min(1.0, max(largest, p * (len(known) - rank)))
        corrected[place] = largest
    return corrected


def sentence(row: Mapping[str, Any], comparisons: int) -> str:
    """Return a difference in a sentence for people who do not know the file."""
    metric, pair = NAMES[row["metric"]], f"{row['method']} and {row['other']}"
    if row["value"] is None or row["low"] is None:
        return f"The {metric} of {pair} cannot be compared: it is not defined for one of them."
    unit = f" {row['unit']}" if row["unit"] else ""
    if row["value"] == row["low"] == row["high"] == 0:
        return f"The {metric} of {pair} is the same, in every draw of people."
    if row["verdict"] == UNDECIDED:
        reach = f"{row['low']:.3g} to {row['high']:.3g}{unit}".replace("-", "−")
        if row["low"] * row["high"] > 0 and row["p_holm"] is not None:
            return (
                f"Which of {pair} has the better {metric} cannot be told when {comparisons} comparisons are corrected for "
                f"(p = {row['p_holm']:.2g}), though the interval of this one alone, {reach}, holds no 0."
            )
        why = f" ({row['test']})" if str(row.get("test", "")).startswith("none") else ""
        return (
            f"Which of {pair} has the better {metric} cannot be told from {row['people']} people{why}: the difference may be "
            f"anything from {reach}. That is not to say that they are equal."
        )
    chance = f"p = {row['p_holm']:.2g}" if row["p_holm"] >= 0.001 else "p < 0.001"
    how = "lower" if row["value"] < 0 else "higher"
    size = f"{abs(row['value']):.3g}{unit}"
    low, high = sorted((abs(row["low"]), abs(row["high"]))) if row["low"] * row["high"] > 0 else (0.0, abs(row["high"]))
    return (
        f"The {metric} of {row['method']} is {size} [{low:.3g}, {high:.3g}] {how} than that of {row['other']}: "
        f"{row['verdict']} ({chance}, corrected for {comparisons} comparisons)."
    )


def delong_difference(
    positive: np.ndarray, ours: np.ndarray, theirs: np.ndarray, subjects: Sequence[str]
) -> dict[str, float | str | None]:
    """Return delong_low and delong_high of the difference of two AUCs on the same scans (`delong`), p and test.

    If both are without error (one of them perfect, the other of a constant), p is that of so perfect an order by chance.
    """
    names = np.asarray(subjects)
    people = [len(set(names[side])) for side in (positive, ~positive)]
    if min(people) < LEAST:
        return {"delong_low": None, "delong_high": None, "p": None, "test": f"none: fewer than {LEAST} people of a class"}
    aucs, covariance = delong(positive, np.stack([ours, theirs]), subjects)
    value = float(aucs[0] - aucs[1])
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0)))
    reach = float(ndtri(0.975)) * error
    p = p_of(value, error)
    if not error and value:
        p = min(1.0, 2 / float(comb(sum(people), people[0])))
    return {"delong_low": value - reach, "delong_high": value + reach, "p": p, "test": "DeLong"}


def delong(positive: np.ndarray, scores: np.ndarray, subjects: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUC of each method, and their covariance (DeLong et al. 1988; of clustered data, Obuchowski 1997).

    Parameters
    ----------
    positive
        Which scans are of the positive class, shape (scans,) of bool; both classes have some.
    scores
        Shape (methods, scans).
    subjects
        Of every scan. If each has one, this is DeLong's own covariance.

    Returns
    -------
    Shapes (methods,) and (methods, methods).
    """
    person = np.unique(np.asarray(subjects), return_inverse=True)[1]
    sides = [np.flatnonzero(positive), np.flatnonzero(~positive)]
    sums: list[list[np.ndarray]] = [[], []]  # of each side and method, by person: what its scans add beyond the AUC
    aucs = []
    for one in scores:
        # Of each scan the share of the other class that it is in the right order with.
        right = share_below(one[sides[0]], one[sides[1]])
        left = 1 - share_below(one[sides[1]], one[sides[0]])
        aucs.append(right.mean())
        for side, components in enumerate((right, left)):
            sums[side].append(np.bincount(person[sides[side]], components - aucs[-1], minlength=person.max() + 1))
    with_some = [len(np.unique(person[side])) for side in sides]
    factors = [n / max(n - 1, 1) for n in with_some]
    found, other = (np.stack(side) / len(scans) for side, scans in zip(sums, sides, strict=True))
    people = person.max() + 1
    cross = found @ other.T * people / max(people - 1, 1)
    return np.array(aucs), factors[0] * found @ found.T + factors[1] * other @ other.T + cross + cross.T


def share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each score the share of the others that lie below it; an equal one counts half.

    >>> share_below(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0, 4.0])).tolist()
    [0.375, 0.75]
    """
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / (2 * len(others))
