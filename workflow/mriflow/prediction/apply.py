"""A model applied to scans: each prepared as the training scans were, then predicted by all networks."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from mriflow.base.errors import UserError
from mriflow.images.find import as_nifti, file_problem
from mriflow.images.fingerprint import fingerprint, voxels_of
from mriflow.images.headers import read_header
from mriflow.images.kinds import REWRITTEN, suffix_of
from mriflow.images.mask import surrounded_mask
from mriflow.images.nifti import BadScan, Scan, load_scan
from mriflow.images.outliers import MEASURES, contrast_of
from mriflow.images.scan import PreprocessSettings, Result, Tissues, align, run_scan
from mriflow.images.ukb_zip import split_path
from mriflow.prediction.calibrated import columns_of
from mriflow.prediction.ensemble import Trained, predict_one
from mriflow.prediction.own_space import MapFolder, measures_of_map, plausibility
from mriflow.prediction.seen import SPACING, unlike
from mriflow.prediction.segment import probabilities_of
from mriflow.prediction.sources import Named
from mriflow.prediction.stored import Stored
from mriflow.tables.labels import HEAD_SIZE
from mriflow.training.device import choose_device
from mriflow.training.loader import Shards

HEAD_OVER_BRAIN = 1.4  # volume of a whole head over its brain's is 2 to 4, that of a brain that was cut out about 1
UNLIKE_T1 = "not like the T1-weighted brain of an adult: another contrast, upside down, cut, or no brain"
AIR_OF_CT = -500  # Hounsfield units; air has -1000, and no MRI has such values around the head
IS_CT = "looks like a CT (air of -1000, in Hounsfield units); this model is made for T1-weighted MRI"
WAS_STRIPPED = "it shows the brain alone, cut out before, and was taken for a whole head; say --stripped yes (`stripped: true`)"
FOR_BRAINS = "it was taken for the brain alone; if it shows the whole head, say --stripped no (`stripped: false`)"


class Prepared(NamedTuple):
    """A scan as the networks want it, and what its file tells: doubts in words, edges of its voxels (mm), a hash of them.

    And, if asked for, the transform that brought it onto the template; and the NIfTI file.
    """

    result: Result
    doubts: list[str]
    edges: list[float]
    voxels: str
    transform: np.ndarray | None = None
    file: Path = Path()


def prepare(
    settings: PreprocessSettings, keep_transform: bool, unpacked: Path, scan: Named, tissues: Tissues | None = None
) -> Prepared:
    """Preprocess one scan as `preprocess` does; a bad one gives a problem, and no volume.

    One that is no NIfTI is rewritten into a folder of its own in `unpacked`.
    """
    file, problem = scan["file"], scan["problem"]
    if not problem and suffix_of(file) in REWRITTEN:
        file = as_nifti(file, Path(mkdtemp(dir=unpacked)))
        problem = file_problem(file, zipped=True).removeprefix("scan: ")
    prepared = prepare_nifti(settings, keep_transform, scan | {"file": file, "problem": problem}, tissues)
    return prepared._replace(file=file)


def prepare_nifti(settings: PreprocessSettings, keep_transform: bool, scan: Named, tissues: Tissues | None = None) -> Prepared:
    """Do as `prepare` of a NIfTI file."""
    if scan["problem"]:
        return Prepared(Result(None, {"problem": scan["problem"]}), [], [], "")
    listed = {"id": scan["path"], "path": scan["file"].absolute(), "fingerprint": ""}
    transform = None
    with TemporaryDirectory() as cache:
        kept = Path(cache) if keep_transform or tissues else None
        result = run_scan(listed, "", Path(), settings, kept, tissues=tissues)
        if keep_transform and result.volume is not None:
            alone = dataclasses.replace(settings, channels=("image",))  # without the tissues, which take time
            transform = align(load_scan(scan["file"], settings.stripped), alone, kept).transform
    if result.volume is None:
        problem = result.row["problem"].removeprefix("scan: ")
        if settings.stripped and ("implausible brain volume" in problem or "no background" in problem):
            problem += f": {FOR_BRAINS}"
        elif "registration failed" in problem or "implausible brain volume" in problem:
            problem += f": {UNLIKE_T1}"
        return Prepared(Result(None, {**result.row, "problem": problem}), [], [], "")
    loaded, header = load_scan(scan["file"], settings.stripped), read_header(scan["file"])
    if np.percentile(loaded.data, 5) < AIR_OF_CT:
        return Prepared(Result(None, {**result.row, "problem": IS_CT}), [], [], "")
    doubts = [header["fault"]] if header["fault"] else []
    if not settings.stripped and is_stripped(loaded, result.row["brain_ml"]):
        doubts.append(WAS_STRIPPED)
    edges = [header[edge] for edge in SPACING if edge in header]
    zipped = split_path(scan["file"])  # of UK Biobank: known by another fingerprint
    return Prepared(result, doubts, edges, "" if zipped else voxels_of(fingerprint(scan["file"])), transform)


def is_stripped(scan: Scan, brain_ml: float) -> bool:
    """Return whether a scan shows little but its brain, on an even background."""
    try:
        return float(surrounded_mask(scan).sum() * scan.voxel_ml) < HEAD_OVER_BRAIN * brain_ml
    except BadScan:  # no even background
        return False


class Ensemble:
    """All networks of a model, on a device.

    Parameters
    ----------
    stored
        The model.
    device
        ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
    maps
        Of a segmentation: where label maps go.
    """

    def __init__(self, stored: Stored, device: str = "auto", maps: MapFolder | None = None) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: PyTorch sees no GPU here. Leave it out, or see docs/gpu.md.")
        self.facts, self.calibration = stored.facts, stored.calibration
        self.device = torch.device("cpu") if device == "cpu" else choose_device()
        self.members = [Trained.of(model, self.device) for model in stored.models]
        self.trained_on = {
            scan
            for model in stored.models
            for parts in model["seen"].values()
            for part in parts.values()
            for scan in part["scans"]
        }
        self.threads = torch.get_num_threads()
        self.maps = maps

    def predict(self, scans: Sequence[Named], prepared: Sequence[Prepared]) -> pd.DataFrame:
        """Return a row for each scan: path, prediction and what belongs to it, quality measures, `warning` and `problem`."""
        measures = [*MEASURES, "voxel_mm", "warning", "problem"]
        rows: list[dict[str, Any]] = []
        for scan, (result, _, edges, *_) in zip(scans, prepared, strict=True):
            row = {name: result.row.get(name) for name in (*MEASURES, "problem")}
            row["voxel_mm"] = "x".join(f"{edge:.3g}" for edge in edges)
            rows.append({"path": scan["path"], **row})
        covariates = [
            self.covariates_of(scan, one.result) if one.result.volume is not None else {}
            for scan, one in zip(scans, prepared, strict=True)
        ]
        for row, known in zip(rows, covariates, strict=True):
            row["problem"] = known.pop("problem", "") or row["problem"] or ""
        good = [number for number, row in enumerate(rows) if not row["problem"]]
        made = pd.DataFrame(index=range(len(rows)))
        if good:
            volumes = np.stack([np.asarray(prepared[number].result.volume) for number in good])
            names = [str(number) for number in good]
            table = pd.DataFrame([covariates[number] for number in good], index=names, columns=self.facts["covariates"])
            shards = Shards([volumes], {name: (0, place) for place, name in enumerate(names)})
            torch.set_num_threads(self.threads)  # the brain's extractor takes one alone
            if self.facts["target"]["type"] == "segmentation":
                made = pd.DataFrame([self.segment(scans[number], prepared[number], rows[number]) for number in good])
            else:
                # One at a time: what a scan is given must not depend, in its last digit, on which others are predicted with it.
                tta = self.facts["tta"]
                each = [predict_one(member, shards, names, table, self.device, tta, 1) for member in self.members]
                made = columns_of(np.stack(each), self.facts["target"]["classes"], self.calibration)
            made = made.set_index(pd.Index(good)).reindex(range(len(rows)))
            for number in good:
                doubts = self.doubts(prepared[number], covariates[number], made.loc[number].to_dict())
                rows[number]["warning"] = "; ".join(doubts)
        return pd.DataFrame(rows, columns=["path", *measures]).join(made)[["path", *made.columns, *measures]]

    def segment(self, scan: Named, prepared: Prepared, said: dict[str, Any]) -> dict[str, Any]:
        """Return volumes and certainty of a scan's label map, and write the map; if it cannot be, that is `said`."""
        volume = np.asarray(prepared.result.volume)
        channels = volume if volume.ndim == 4 else volume[None]
        found = probabilities_of(self.members, channels, self.device, self.facts["tta"])
        classes, settings = self.facts["target"]["classes"], self.facts["preprocess"]
        inside = channels[settings["channels"].index("image") if "image" in settings["channels"] else 0] > 0
        row: dict[str, Any] = measures_of_map(found, inside, classes, settings["voxel_mm"], prepared.result.row["scale"])
        if self.maps is not None:
            try:
                row["label_map"] = self.maps.write(scan | {"file": prepared.file}, found, prepared.transform, settings)
            except ValueError as error:  # whatever nibabel makes of an odd header
                said["problem"] = f"its label map cannot be written ({error})"
                return {}
        return row

    def covariates_of(self, scan: Named, result: Result) -> dict[str, Any]:
        """Return the covariates of a scan as the networks read them; under `problem` what is wrong with one."""
        known: dict[str, Any] = {}
        for name in self.facts["covariates"]:
            column = self.members[0].covariates.columns[name]
            text = result.row["scale"] if name == HEAD_SIZE else scan["labels"].get(name)
            if text is None and column["missing"] is None:
                needed = ", ".join(["path", *(one for one in self.facts["covariates"] if one != HEAD_SIZE)])
                return {"problem": f"the model needs the covariate {name!r} of it: give a table with the columns {needed}"}
            if "values" in column and column["missing"] is None and text not in column["values"]:
                return {"problem": f"the covariate {name!r} is {text!r}, expected one of {', '.join(column['values'])}"}
            try:
                known[name] = text if text is None or "values" in column else float(text)
                strange = isinstance(known[name], float) and not np.isfinite(known[name])
            except ValueError:
                strange = True
            if strange:
                return {"problem": f"the covariate {name!r} is {text!r}, expected a number"}
        return known

    def doubts(self, prepared: Prepared, covariates: dict[str, Any], made: dict[str, Any]) -> list[str]:
        """Return, in words, why what was `made` of a scan, its columns of the table, is not to be trusted."""
        row, volume = prepared.result.row, np.asarray(prepared.result.volume)
        channels = self.facts["preprocess"]["channels"]
        if "image" in channels:
            row = row | contrast_of(volume if len(channels) == 1 else volume[channels.index("image")])
        labels = {name: value for name, value in covariates.items() if value is not None and name != HEAD_SIZE}
        if self.facts["target"]["type"] == "segmentation":
            row = row | plausibility(pd.DataFrame([made]), self.facts["target"]["classes"]).iloc[0].to_dict()
        texts = [*prepared.doubts, *unlike(self.facts, row, prepared.edges, labels, made.get("prediction"))]
        if prepared.voxels in self.trained_on:
            texts.append("the model was trained on this scan: how well it is predicted says nothing about others")
        return texts
