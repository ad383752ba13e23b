"""What maps of attention say: whether they depend on what was learned, and whether they point at what is known to change.

A map is the mean over test scans, one of each person. Intervals are 95 %, by the bootstrap over people within each fold.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from mriflow.evaluation.metrics import as_cell

SHARE = 0.1  # of the brain's voxels: the strongest of a map, and the most changed of the truth
SAMPLED = 3000  # voxels of the brain on which maps are compared: they are smooth
DRAWS = 200
TURNS = 200  # random rotations of the truth


def sampled(brain: np.ndarray) -> np.ndarray:
    """Return the places, shape (voxels,), of `SAMPLED` voxels of the brain, or all, in a flattened grid."""
    places = np.flatnonzero(brain)
    if len(places) <= SAMPLED:
        return places
    return np.sort(np.random.default_rng(0).choice(places, SAMPLED, replace=False))


def bootstrapped(statistic: Callable[[list[np.ndarray]], float], folds: np.ndarray) -> dict[str, float | None]:
    """Return a statistic with its interval; it is given the scans of each fold as positions, shape (scans of the fold,)."""
    of_folds = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    rng = np.random.default_rng(0)
    draws = [statistic([rng.choice(scans, len(scans)) for scans in of_folds]) for _ in range(DRAWS)]
    return as_cell(statistic(of_folds), np.array(draws))


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the rank correlation of two maps; not a number if one is the same everywhere."""
    return float("nan") if np.ptp(one) == 0 or np.ptp(other) == 0 else float(spearmanr(one, other).statistic)


def sanity(trained: np.ndarray, random: np.ndarray, folds: np.ndarray) -> dict[str, Any]:
    """Return how alike maps of trained networks are to those of random weights (Adebayo et al. 2018), and to one another.

    Parameters
    ----------
    trained, random
        The maps of the same scans, shape (scans, voxels).
    folds
        The fold of each scan; the folds have networks of their own.

    Returns
    -------
    random_weights, other_folds
        Rank correlations with value, low and high; of a single fold the latter is None.
    verdict
        ``passed``: the maps of random weights are less like the trained ones than these are like one another, beyond the
        interval. ``failed``: they are not; ``cannot be told`` if there is one fold alone.
    """

    def with_random(scans: list[np.ndarray]) -> float:
        return float(np.mean([likeness(trained[own].mean(0), random[own].mean(0)) for own in scans]))

    def with_one_another(scans: list[np.ndarray]) -> float:
        means = [trained[own].mean(0) for own in scans]
        return float(np.mean([likeness(one, other) for one, other in combinations(means, 2)]))

    result: dict[str, Any] = {"random_weights": bootstrapped(with_random, folds), "other_folds": None}
    if len(np.unique(folds)) < 2:
        return {**result, "verdict": "cannot be told"}
    gap = bootstrapped(lambda scans: with_one_another(scans) - with_random(scans), folds)
    passed = gap["low"] is not None and gap["low"] > 0
    return {**result, "other_folds": bootstrapped(with_one_another, folds), "verdict": "passed" if passed else "failed"}


def overlap(maps: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> dict[str, float | None]:
    """Return which share of the strongest voxels of the mean map lies among the most changed ones, with its interval.

    Parameters
    ----------
    maps
        Shape (scans, voxels).
    truth
        Whether a voxel is among the most changed, bool, shape (voxels,).
    """
    strongest = round(SHARE * maps.shape[1])

    def share(scans: list[np.ndarray]) -> float:
        mean = maps[np.concatenate(scans)].mean(0)
        return float(truth[np.argsort(-mean, kind="stable")[:strongest]].mean())

    return bootstrapped(share, folds)


def by_chance(mean: np.ndarray, places: np.ndarray, truth: np.ndarray, brain: np.ndarray) -> tuple[dict[str, Any], float]:
    """Return the overlap with the truth turned at random about the brain's centre, and how often that is as good as unturned.

    A map and the truth are smooth, so voxels exchanged at random would be too easy to beat; a turned truth is as smooth.

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
    folds: np.ndarray,
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
        "overlap": overlap(trained, region.flat[places], folds),
        "random_weights": overlap(random, region.flat[places], folds),
        "chance": chance,
        "p": p,
        "region_share": float(region.sum() / brain.sum()),
    }
