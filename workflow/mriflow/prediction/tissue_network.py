"""Tissue maps of any scan by a network that segments: what `tissues` of a preprocess block may name instead of a mixture."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mriflow.base.errors import UserError
from mriflow.images.nifti import BadScan, Scan
from mriflow.images.registration import from_grid, own_voxels, to_grid
from mriflow.images.scan import align, to_bytes
from mriflow.images.tissues import TISSUES
from mriflow.prediction.ensemble import Trained
from mriflow.prediction.segment import VENTRICLES, probabilities_of
from mriflow.prediction.stored import CHECKSUMS, METADATA, Stored, read_json, read_stored

CPU = torch.device("cpu")
BESIDE = "tissues"  # folder of the tissue network in that of a model whose scans were prepared by it


class TissueNetwork(NamedTuple):
    """The networks of a segmentation, by the folder of the model; each process reads them when it first needs them.

    Called with a scan, whether its brain was cut out before, and the folder of what is kept of scans, they return how probable
    each of `TISSUES` is in each voxel of the scan, as ANTs images; `mriflow.images.scan.Tissues`.
    """

    folder: Path

    @classmethod
    def of(cls, stored: Stored) -> "TissueNetwork | None":
        """Return the network that lies in the folder of a model, if its scans were prepared by one."""
        return cls(stored.folder / BESIDE) if stored.settings.tissues == BESIDE else None

    @property
    def version(self) -> str:
        """What changes with all that their maps depend on, and not with where they lie or what is said of them."""
        facts = read_json(self.folder / METADATA)["mriflow"]
        sums = [line for line in (self.folder / CHECKSUMS).read_text(encoding="utf-8").splitlines() if "  models/" in line]
        text = json.dumps([sums, facts["preprocess"], facts["tta"], facts["target"]["classes"]])
        return hashlib.sha256(text.encode()).hexdigest()

    def check(self, channels: Sequence[str]) -> None:
        """Raise a UserError if the model cannot be used, or does not tell the tissues among the `channels`."""
        facts = read_stored(self.folder).facts
        classes, wanted = facts["target"]["classes"], [name for name in channels if name in TISSUES]
        lacking = [name for name in wanted if name not in classes]
        if facts["target"]["type"] != "segmentation" or lacking:
            found = ", ".join(classes) or facts["target"]["column"]
            raise UserError(f"{self.folder}: tells {found}, expected a segmentation with the classes {', '.join(wanted)}.")
        if facts["preprocess"]["channels"] != ["image"]:
            found = ", ".join(facts["preprocess"]["channels"])
            raise UserError(f"{self.folder}: segments by {found}, expected a model that needs the image alone.")

    def __call__(self, scan: Scan, stripped: bool, kept: Path | None) -> dict[str, Any]:
        """Return the maps of a scan; raise BadScan if its brain has one intensity only or is not on the networks' grid."""
        stored, networks = loaded(self.folder)
        settings = dataclasses.replace(stored.settings, stripped=stripped)
        data, brain, _, _, transform = align(scan, settings, kept)
        moved = to_grid(scan, data, brain, settings.registration, transform, settings.voxel_mm, settings.shape)
        if not moved.inside.any():
            raise BadScan("the brain lies outside the grid of the tissue network")
        torch.set_num_threads(1)  # scans are worked on beside each other, and the same sums come out every time
        image = to_bytes(moved.image, moved.inside, settings.percentiles)
        found = probabilities_of(networks, image[None], CPU, stored.facts["tta"])
        names = ["csf" if name == VENTRICLES else name for name in stored.facts["target"]["classes"]]
        on_grid = {tissue: found[1:][[name == tissue for name in names]].sum(0) for tissue in TISSUES}
        own = own_voxels(scan, settings.voxel_mm)  # no finer than the networks' grid: the next resampling would blur it again
        return dict(zip(on_grid, from_grid(on_grid.values(), own, transform, settings.voxel_mm), strict=True))


@cache
def loaded(folder: Path) -> tuple[Stored, list[Trained]]:
    """Return a model and its networks."""
    stored = read_stored(folder)
    return stored, [Trained.of(model, CPU) for model in stored.models]
