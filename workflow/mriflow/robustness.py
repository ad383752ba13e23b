"""Say how good the predictions of test scans stay if these are worse: noisy, uneven, blurred, moved, of other contrast.

The trained networks predict the test scans as they are, and changed after preprocessing in six ways of up to five strengths.
Nothing is trained, and nothing is chosen by the result. What preprocessing would make up for (a shift before registration, a
bias field before N4) is more than this shows; what it leaves over is like this.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.files import write_csv, write_json
from mriflow.evaluation.comparison import against, judge
from mriflow.evaluation.label_maps import dice
from mriflow.evaluation.metrics import intervals
from mriflow.prediction.ensemble import load_networks, predict
from mriflow.prediction.perturbations import KINDS, OF_INTENSITIES, OF_SEGMENTATION, perturb, strengths
from mriflow.prediction.segment import probabilities_of
from mriflow.prediction.tested import Tested, add_tested, read_tested

MOST = 1000  # test scans: of more, so many are drawn


def robustness(
    result: Path,
    table: Path,
    *,
    models: Sequence[Path],
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    settings: Path,
) -> dict[str, Any]:
    """Write `result` (see the return value) and the same as a table: a row per change, strength and metric.

    Parameters
    ----------
    models
        The models of all folds and seeds, made by `train`; those of a fold predict together.
    arrays, indices
        The dataset's shards.
    labels, splits, settings
        The dataset's labels.csv, the experiment's splits.csv and settings.json.

    Returns
    -------
    What the experiment is (`mriflow.prediction.tested.Tested.about`); n (test scans); unchanged, every metric as value, low and
    high; and in ``changes`` of each kind and strength the kind, strength, unit, what the strength is, metrics, and difference,
    that of `metric` from the unchanged scans, with interval, verdict and sentence (`mriflow.evaluation.comparison`).

    Raises
    ------
    UserError
        If a model is missing for a fold, or the splits leak.
    """
    tested = read_tested(arrays, indices, labels, splits, settings)
    scans = test_scans(tested)
    of_voxels = tested.settings["target"]["type"] == "segmentation"
    known = OF_SEGMENTATION if of_voxels else KINDS
    kinds = {name: kind for name, kind in known.items() if tested.image is not None or name not in OF_INTENSITIES}
    voxel_mm = tested.settings["preprocess"]["voxel_mm"]
    wanted = [("", 0.0), *((name, strength) for name, kind in kinds.items() for strength in strengths(name, kind, voxel_mm))]
    bar = progress(wanted, desc="robustness", unit="change")
    everyone = [scan for ids in scans.values() for scan in ids]
    made = segmented if of_voxels else predicted
    found = {change: tested.measure(everyone, made(tested, models, scans, *change)) for change in bar}
    unchanged = found.pop(("", 0.0))
    metric, pair = tested.about()["metric"], tested.pair("changed scans", "unchanged scans", everyone)
    summary = {
        **tested.about(),
        "n": sum(map(len, scans.values())),
        "unchanged": intervals(unchanged),
        "changes": [
            {
                "kind": name,
                "strength": strength,
                "unit": kinds[name].unit,
                "meaning": kinds[name].strength,
                "metrics": intervals(one),
                "difference": against(one, unchanged, metric, pair),
            }
            for (name, strength), one in found.items()
        ],
    }
    judge([one["difference"] for one in summary["changes"]])
    write_csv(as_table(summary), table)
    write_json(summary, result)
    return summary


def test_scans(tested: Tested) -> dict[int, list[str]]:
    """Return the test scans of each fold, or `MOST` of all drawn at random."""
    scans = {fold: tested.ids(fold, "test") for fold in tested.tested_folds()}
    count = sum(map(len, scans.values()))
    if count <= MOST:
        return scans
    kept = np.sort(np.random.default_rng(0).choice(count, MOST, replace=False))
    pairs = [(fold, scan) for fold, ids in scans.items() for scan in ids]
    return {fold: [pairs[k][1] for k in kept if pairs[k][0] == fold] for fold in scans}


def predicted(tested: Tested, models: Sequence[Path], scans: dict[int, list[str]], kind: str, strength: float) -> np.ndarray:
    """Return the predictions of the test scans of all folds, changed by a kind ('': as they are) and strength."""
    voxel_mm, tta = tested.settings["preprocess"]["voxel_mm"], tested.settings["training"]["tta"]
    rows = []
    for fold, ids in ((fold, ids) for fold, ids in scans.items() if ids):

        def change(images: torch.Tensor, places: slice, ids: list[str] = ids) -> torch.Tensor:
            if not kind:
                return images
            of_batch = zip(images.cpu(), ids[places], strict=True)
            return torch.stack([perturb(one, kind, strength, voxel_mm, tested.image, scan) for one, scan in of_batch]).to(
                images
            )

        rows.append(predict(models, fold, tested.shards, ids, tested.covariates, tested.device, tta, change))
    return np.concatenate(rows)


def segmented(tested: Tested, models: Sequence[Path], scans: dict[int, list[str]], kind: str, strength: float) -> np.ndarray:
    """Return the Dice of each class, shape (scans, classes), of the test scans of all folds, changed as in `predicted`."""
    voxel_mm, tta = tested.settings["preprocess"]["voxel_mm"], tested.settings["training"]["tta"]
    numbers, rows = range(1, 1 + len(tested.classes or [])), []
    for fold, ids in ((fold, ids) for fold, ids in scans.items() if ids):
        networks = list(load_networks(models, fold, tested.device))
        for scan in ids:
            volume, truth = tested.shards.maps_of(scan)
            if kind:
                given = torch.tensor(volume).float() / 255
                volume = perturb(given, kind, strength, voxel_mm, tested.image, scan).mul(255).round().byte().numpy()
            found = probabilities_of(networks, volume, tested.device, tta).argmax(0)
            rows.append([dice(found == number, truth == number) for number in numbers])
    return np.array(rows)


def as_table(summary: dict[str, Any]) -> pd.DataFrame:
    """Return robustness.json as rows: kind, strength, unit, metric (`<metric>_difference`), value, low, high, n."""
    rows = []
    for one in [{"kind": "unchanged", "strength": 0, "unit": "", "metrics": summary["unchanged"]}, *summary["changes"]]:
        about = {key: one[key] for key in ("kind", "strength", "unit")}
        cells = dict(one["metrics"])
        if "difference" in one:
            cells[f"{summary['metric']}_difference"] = one["difference"]
        rows += [
            {**about, "metric": name, **{key: cell[key] for key in ("value", "low", "high")}, "n": summary["n"]}
            for name, cell in cells.items()
        ]
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> None:
    """Read the command line and say how robust the predictions are."""
    parser = stage_parser(__doc__)
    add_tested(parser)
    robustness(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
