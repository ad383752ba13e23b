"""What maps of attention say: whether they depend on what was learned, and whether they point at what is known to change.

A map is the mean over test scans, one of each person. Intervals are 95 %, by the bootstrap over these people.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from mriflow.evaluation.metrics import as_cell

SHARE = 0.1  # of the brain's voxels: the strongest of a map, and the most changed of the truth
SAMPLED = 3000  # voxels of the brain on which maps are compared: they are smooth
DRAWS = 1000
TURNS = 200  # random rotations of a map


def sampled(brain: np.ndarray) -> np.ndarray:
    """Return the places, shape (voxels,), of `SAMPLED` voxels of the brain, or all, in a flattened grid."""
    places = np.flatnonzero(brain)
    if len(places) <= SAMPLED:
        return places
    return np.sort(np.random.default_rng(0).choice(places, SAMPLED, replace=False))


def bootstrapped(statistic: Callable[[np.ndarray], float], count: int) -> dict[str, float | None]:
    """Return a statistic of scans with its interval; it is given their positions."""
    rng = np.random.default_rng(0)
    draws = [statistic(rng.choice(count, count)) for _ in range(DRAWS)]
    return as_cell(statistic(np.arange(count)), np.array(draws))


def likeness(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each scan's two maps, shape (scans,); not a number if one is the same everywhere."""
    pairs = zip(maps, others, strict=True)
    return np.array([spearmanr(*pair).statistic if min(map(np.ptp, pair)) > 0 else np.nan for pair in pairs])


def sanity(trained: np.ndarray, random: np.ndarray, other: np.ndarray | None) -> dict[str, Any]:
    """Return how alike the maps of a scan are by its trained networks and by random weights (Adebayo et al. 2018).

    Parameters
    ----------
    trained, random, other
        Maps of the same scans, shape (scans, voxels): by the networks that predict them, by the same with random weights, and
        by those of another fold, which learned the same, from other people in part; None if there is one fold alone. A seed is
        the same in all folds, so that these networks began from the same weights, and are a little more alike for that.

    Returns
    -------
    random_weights, other_fold
        Mean rank correlation with the maps of the trained networks, as value, low and high; of None None.
    verdict
        ``passed``: maps of random weights are less like them than those of another fold, beyond the interval of the paired
        difference. ``failed``: they are as like, or more. ``cannot be told``: less, but not beyond the interval; or there is
        one fold alone.
    """

    def summary(values: np.ndarray) -> dict[str, float | None]:
        return bootstrapped(lambda scans: float(np.mean(values[scans])), len(values))

    with_random = likeness(trained, random)
    if other is None:
        return {"random_weights": summary(with_random), "other_fold": None, "verdict": "cannot be told"}
    with_other = likeness(trained, other)
    gap = summary(with_other - with_random)
    if gap["value"] is None or gap["low"] is None or gap["low"] <= 0 < gap["value"]:
        verdict = "cannot be told"
    else:
        verdict = "passed" if gap["low"] > 0 else "failed"
    return {"random_weights": summary(with_random), "other_fold": summary(with_other), "verdict": verdict}


def overlap(maps: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Return which share of the strongest voxels of the mean map lies among the most changed ones, with its interval.

    Parameters
    ----------
    maps
        Shape (scans, voxels).
    truth
        Whether a voxel is among the most changed, bool, shape (voxels,).
    """
    strongest = round(SHARE * maps.shape[1])

    def share(scans: np.ndarray) -> float:
        return float(truth[np.argsort(-maps[scans].mean(0), kind="stable")[:strongest]].mean())

    return bootstrapped(share, len(maps))


def by_chance(mean: np.ndarray, places: np.ndarray, truth: np.ndarray, brain: np.ndarray) -> tuple[dict[str, Any], float]:
    """Return the overlap of the map turned at random about the brain's centre, and how often that is as good as unturned.

    A map is smooth, and voxels exchanged at random would be too easy to beat; a map that is turned is as smooth, and as deep.

    Parameters
    ----------
    mean
        The mean map at the voxels `places` of the flattened grid.
    truth, brain
        Where the most changed voxels are, and the brain; bool, shape of the grid.

    Returns
    -------
    Value (mean), low and high (the middle 95 %) over the turns, and the p value.
    """
    strongest = np.argsort(-mean, kind="stable")[: round(SHARE * len(mean))]
    points = np.stack(np.unravel_index(places[strongest], brain.shape), 1)
    centre = np.argwhere(brain).mean(0)
    real = truth.flat[places[strongest]].mean()
    found = []
    for turn in Rotation.random(TURNS, rng=np.random.default_rng(0)).as_matrix():
        turned = np.rint((points - centre) @ turn.T + centre).astype(int)
        turned = turned[((turned >= 0) & (turned < brain.shape)).all(1)]
        within = turned[brain[tuple(turned.T)]]
        found.append(float(truth[tuple(within.T)].mean()) if len(within) else 0.0)
    p = (1 + sum(one >= real for one in found)) / (1 + TURNS)
    return as_cell(float(np.mean(found)), np.array(found)), p


def against_truth(
    trained: np.ndarray,
    random: np.ndarray,
    places: np.ndarray,
    brain: np.ndarray,
    changed: np.ndarray,
) -> dict[str, Any]:
    """Return whether maps of simulated scans point at what the simulator changes.

    Parameters
    ----------
    changed
        By how much the simulator changes each voxel (`mriflow.simulation.changes.changes_of`), shape of the grid.

    Returns
    -------
    overlap (`overlap`) of the trained networks and of random_weights, chance and p (`by_chance`), and region_share, of the
    brain.
    """
    region = brain & (changed >= np.quantile(changed[brain], 1 - SHARE))
    chance, p = by_chance(trained.mean(0), places, region, brain)
    return {
        "overlap": overlap(trained, region.flat[places]),
        "random_weights": overlap(random, region.flat[places]),
        "chance": chance,
        "p": p,
        "region_share": float(region.sum() / brain.sum()),
    }
