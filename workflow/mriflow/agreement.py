"""Segment the test part of every fold by the network trained on the rest, and say how far the maps agree with the truth.

The same scans are segmented by what needs no network: the mean label map of the training scans on the template (atlas), the
template's own tissues (template), and three Gaussians fitted to the brightness of each scan (mixture). The last two
know grey matter, white matter and CSF, if classes are called gm, wm and csf.

Overlap and distances are those of maps on the network's grid. A volume is the sum of the network's probabilities, as `predict`
tells it of a new scan, and the true one that of the label map in its own voxels.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.files import whole_file, write_csv, write_json
from mriflow.base.provenance import provenance
from mriflow.config.label_maps import seen_and_map
from mriflow.evaluation.label_maps import METHODS, compare_maps, long_rows, summarise_maps
from mriflow.images.label_maps import OWN_ML, measured, told_of_loss
from mriflow.images.outliers import usual
from mriflow.images.tissues import TISSUES
from mriflow.prediction.ensemble import load_networks
from mriflow.prediction.own_space import CERTAINTY, measures_of_map, plausibility
from mriflow.prediction.segment import VENTRICLES, atlas_of, by_mixture, by_template, probabilities_of
from mriflow.prediction.tested import about_experiment, add_trained
from mriflow.tables.labels import read_indices, read_labels
from mriflow.tables.splits import PARTS, read_splits
from mriflow.training.device import choose_device
from mriflow.training.loader import open_shards
from mriflow.training.sides import check_mirror

NOTES = {
    "atlas": "The mean label map of the scans outside the test part, on the template.",
    "template": "Grey matter, white matter and the rest of the ICBM152 brain, through the registration alone.",
    "mixture": "Three Gaussians fitted to the brightness of each brain, as it is stored (5 steps of EM); ventricles are its "
    "CSF where the atlas has them rather than other CSF.",
}


def agreement(
    predictions: Path,
    metrics: Path,
    *,
    models: Sequence[Path],
    warnings: Sequence[Path],
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    settings: Path,
) -> dict[str, Any]:
    """Write `predictions` (a row per test scan), `metrics` (see the return value) and, beside it, metrics.csv and overlays.npz.

    The latter holds image, truth and found label map (shape (3, x, y, z) each), id and mean Dice of the best, the median and
    the worst test scan.

    Parameters
    ----------
    models, warnings, arrays, indices, labels, splits, settings
        As for `mriflow.evaluate.evaluate`.

    Returns
    -------
    experiment, dataset, simulated, target, type, unit, classes, n (test scans), n_excluded (of the split, but failed
    preprocessing), people, folds, seeds; what `mriflow.evaluation.label_maps.summarise_maps` returns; plausible (what is usual
    of certainty and shares of volume, `mriflow.prediction.own_space.plausibility`); lost (`told_of_loss`); warnings,
    notes and provenance.

    Raises
    ------
    UserError
        If a model is missing for a fold, the splits leak, or predictions are mirrored and a class is of one side.
    """
    experiment = json.loads(settings.read_text())
    classes = list(experiment["dataset"]["label_maps"]["classes"])
    block = experiment["preprocess"]
    seen, place = seen_and_map(block["channels"])
    shards = open_shards(arrays, indices, place)
    index = measured(read_indices(indices), classes).set_index("id")
    parts, table = read_splits(splits), read_labels(labels).set_index("id")
    tested = parts["part"] == "test"
    excluded = parts.loc[tested & ~parts["id"].isin(shards), "id"].nunique()
    parts = parts[parts["id"].isin(shards)]
    device, voxel_mm = choose_device(), block["voxel_mm"]
    about = [name for name in ("subject", "session", "site", "age", "sex") if name in table]
    known = "image" in seen and set(classes) & set(TISSUES)
    methods = [method for method in METHODS if method in ("network", "atlas") or known]

    rows: list[dict[str, Any]] = []
    told_of_maps: list[dict[str, float]] = []
    maps: dict[str, np.ndarray] = {}
    for fold, of_fold in parts.groupby("fold"):
        _, _, test = (of_fold.loc[of_fold["part"] == part, "id"].tolist() for part in PARTS)
        if not test:
            continue
        if experiment["training"]["tta"] == "mirror":
            check_mirror(shards, of_fold.loc[of_fold["part"] == "train", "id"].tolist(), classes, "`tta: none`")
        networks = list(load_networks(models, int(fold), device))
        atlas = atlas_of(shards, of_fold.loc[of_fold["part"] != "test", "id"].tolist(), len(classes))
        for scan in progress(test, desc=f"segment fold {fold}", unit="scan"):
            volume, truth = shards.maps_of(scan)
            scale = float(index.loc[scan, "scale"])
            inside = np.asarray(volume[seen.index("image") if "image" in seen else 0]) > 0
            probable = probabilities_of(networks, volume, device, experiment["training"]["tta"])
            sure, expected = (measures_of_map(one, inside, classes, voxel_mm, scale) for one in (probable, atlas))
            found = {"network": probable.argmax(0)}
            found["atlas"] = atlas.argmax(0)
            if known:
                image = np.asarray(volume[seen.index("image")])
                found["template"] = by_template(image, classes, voxel_mm)
                found["mixture"] = by_mixture(image, classes, atlas)
            row: dict[str, Any] = {"id": scan, **table.loc[scan, about], "fold": int(fold), CERTAINTY: sure[CERTAINTY]}
            row |= {f"true_{name}": index.loc[scan, f"{OWN_ML}{name}"] for name in classes}
            for method, labelled in found.items():
                compared = compare_maps(labelled, truth, classes, voxel_mm, scale)
                compared |= {"network": sure, "atlas": expected}.get(method, {})  # volumes of shares, not of whole voxels
                told = classes if method in ("network", "atlas") else told_apart(classes, method)
                row |= {f"{method}_{name}": value for name, value in compared.items() if name.partition("_")[2] in told}
            rows.append(row)
            told_of_maps.append(sure)
            maps[scan] = found["network"].astype(np.uint8)
    predicted = pd.DataFrame(rows).sort_values(["fold", "id"], ignore_index=True)
    result: dict[str, Any] = {
        **about_experiment(experiment),
        "classes": classes,
        "n": len(predicted),
        "n_excluded": int(excluded),
        "people": int(predicted["subject"].nunique()),
        "folds": int(parts["fold"].nunique()),
        "seeds": experiment["training"]["seeds"],
        **summarise_maps(predicted, methods, classes),
        "plausible": {name: usual(values) for name, values in plausibility(pd.DataFrame(told_of_maps), classes).items()},
        "warnings": [one for path in warnings for one in json.loads(path.read_text())],
        "lost": told_of_loss(index.loc[predicted["id"].unique()], classes, voxel_mm),
        "notes": {method: NOTES[method] for method in methods if method in NOTES},
        "provenance": provenance(experiment),
    }
    mean = predicted[[f"network_dice_{name}" for name in classes]].mean(axis=1)
    ranked = (mean.dropna() if mean.notna().any() else mean).sort_values(ascending=False, kind="stable").index
    shown = predicted.loc[[ranked[0], ranked[len(ranked) // 2], ranked[-1]], "id"].tolist()
    first = seen.index("image") if "image" in seen else 0
    with whole_file(metrics.with_name("overlays.npz")) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream,
            image=np.stack([shards.maps_of(scan)[0][first] for scan in shown]),
            truth=np.stack([shards.maps_of(scan)[1] for scan in shown]),
            found=np.stack([maps[scan] for scan in shown]),
            id=np.array(shown),
            dice=mean[[predicted.index[predicted["id"] == scan][0] for scan in shown]].to_numpy(),
        )
    write_csv(long_rows(result), metrics.with_name("metrics.csv"))
    write_csv(predicted, predictions)
    write_json(result, metrics)
    return result


def told_apart(classes: Sequence[str], method: str) -> set[str]:
    """Return the classes that a method tells apart that knows tissues alone."""
    extra = {VENTRICLES} if method == "mixture" and "csf" in classes else set()
    return {name for name in classes if name in {*TISSUES, *extra}}


def main(argv: list[str] | None = None) -> None:
    """Read the command line and compare."""
    parser = stage_parser(__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="table to write, one row per test scan, .csv")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics to write, .json; more is written beside them")
    add_trained(parser)
    parser.add_argument("--warnings", type=Path, nargs="+", required=True, help="what is wrong with their trainings, .json")
    agreement(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
