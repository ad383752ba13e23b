"""Classes of label maps that lie on one side of the brain: a mirrored scan shows them on the other."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mriflow.base.errors import UserError
from mriflow.training.loader import Shards

log = logging.getLogger(__name__)

MAPS = 20  # of the training part that are looked at
SHARE = 0.9  # of a class's voxels, and of the maps: above it the class is of one side
FEWEST_VOXELS = 50  # in all maps together
FEWEST_MAPS = 8  # in fewer, lesions may all lie on one side by chance


class Sided(NamedTuple):
    """A class that lies on one side: its name, ``left`` or ``right``, the share of its voxels there, and in how many maps."""

    name: str
    side: str
    share: float
    maps: int


def sided_classes(shards: Shards, scans: Sequence[str], classes: Sequence[str]) -> list[Sided]:
    """Return the classes that lie on one side of the grid's middle, about which scans are mirrored, in some of the scans' maps.

    Parameters
    ----------
    shards
        With label maps, axes RAS: the first leads from left to right.
    """
    some = [scans[place] for place in np.unique(np.linspace(0, len(scans) - 1, min(MAPS, len(scans))).round().astype(int))]
    voxels = np.zeros((len(some), 2, len(classes) + 1), int)
    half = shards.shape[0] // 2
    for place, scan in enumerate(some):
        labels = shards[scan][shards.label_map]
        for side, part in enumerate((labels[:half], labels[-half:])):
            voxels[place, side] = np.bincount(part.ravel(), minlength=len(classes) + 1)[: len(classes) + 1]
    found = []
    for number, name in enumerate(classes, 1):
        here = voxels[:, :, number]
        there = here.sum(1) > 0
        if here.sum() < FEWEST_VOXELS:
            continue
        side = int(here[:, 1].sum() > here[:, 0].sum())
        share = here[:, side].sum() / here.sum()
        # A lesion of one person may outweigh those of all others, on whichever side.
        agreeing = (here[there, side] > here[there, 1 - side]).mean()
        if min(share, agreeing) > SHARE:
            found.append(Sided(name, ("left", "right")[side], float(share), int(there.sum())))
    return found


def check_mirror(shards: Shards, scans: Sequence[str], classes: Sequence[str], keys: str) -> list[dict[str, str]]:
    """Raise a UserError if scans are mirrored and a class is of one side; where few maps have it, return a warning instead.

    Parameters
    ----------
    keys
        What to set so that nothing is mirrored.
    """
    warnings = []
    for one in sided_classes(shards, scans, classes):
        text = (
            f"the class {one.name!r} lies on the {one.side} of the grid's middle with {one.share:.0%} of its voxels, in the "
            f"label maps of {one.maps} training scans, and scans are mirrored: so it is taught or predicted on the other side, "
            "too. "
            f"Set {keys} in the training block."
        )
        if one.maps >= FEWEST_MAPS:
            raise UserError(text)
        log.warning("%s", text)
        warnings.append({"kind": "class of one side", "text": text})
    return warnings
