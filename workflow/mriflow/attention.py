"""Find which places of the brain the predictions of test scans depend on, averaged in template space.

Two ways, both by MONAI: occlusion (a cube of the scan is made to look like the average of the training scans, and the
prediction changes) and gradients (SmoothGrad: how steeply it changes with each voxel). Both are checked: networks with random
weights must give another map, or the map shows the scans and not what was learned (Adebayo et al. 2018). Of simulated scans it
is known where age and sex change them, and the maps are compared with that.

A map says what this network uses, not where a disease or age is: a network may need one of many places that tell the same.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.files import whole_file, write_csv, write_json
from mriflow.images.registration import grid_affine
from mriflow.prediction.ensemble import Trained, load_networks
from mriflow.prediction.explain import PATCH_MM, Explained, gradients, occlusion
from mriflow.prediction.maps import against_truth, bootstrapped, sampled, sanity
from mriflow.prediction.tested import Tested, add_tested, read_tested
from mriflow.simulation.changes import changes_of

WAYS = {"occlusion": ["occlusion"], "gradients": ["gradients"], "both": ["occlusion", "gradients"]}
AVERAGED = 200  # training scans of a fold, at most, of which the average is taken
UNLIKE = 10**6  # seed of the random weights: that of no training, whose first weights would be these
BRAIN = 0.05  # of the average's intensity, from 0 to 1: what is above is brain


def attention(
    result: Path,
    table: Path,
    maps: Path,
    *,
    models: Sequence[Path],
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    settings: Path,
    ways: str = "occlusion",
    scans: int = 6,
) -> dict[str, Any]:
    """Write `result` (see the return value), the same as a table, and into the folder `maps` a NIfTI image of each map.

    Parameters
    ----------
    models
        The models of all folds and seeds, made by `train`.
    arrays, indices
        The dataset's shards.
    labels, splits, settings
        The dataset's labels.csv, the experiment's splits.csv and settings.json.
    ways
        ``occlusion``, ``gradients`` or ``both``.
    scans
        How many test scans are looked at, the same number of each fold (at least one), from low to high labels.

    Returns
    -------
    What the experiment is; n (scans, each of another person); value (what a map of occlusion measures); patch_mm, the
    edge of the cubes; and in ``ways`` of each its mean in the brain with its interval, `sanity` and, of simulated scans,
    `truth` (`mriflow.prediction.maps`).

    Raises
    ------
    UserError
        If a model is missing for a fold, or the splits leak.
    """
    tested = read_tested(arrays, indices, labels, splits, settings)
    folds = tested.tested_folds()
    averages = {fold: average_of(tested, fold) for fold in folds}
    overall = np.mean([one.numpy() for one in averages.values()], axis=0)
    brain = overall.max(0) > BRAIN
    found: dict[str, dict[str, list[np.ndarray]]] = {way: {} for way in WAYS[ways]}
    for fold, other in progress(list(zip(folds, [*folds[1:], *folds[:1]], strict=True)), desc="attention", unit="fold"):
        networks = {
            "trained": list(load_networks(models, fold, tested.device)),
            "random": list(load_networks(models, fold, tested.device, random_seed=UNLIKE)),
        }
        if other != fold:
            networks["other"] = list(load_networks(models, other, tested.device))
        chosen = scans_to_show(tested, fold, max(1, scans // len(folds)))
        for whose, way, of_scan in maps_of(tested, networks, averages[fold], chosen, brain, WAYS[ways]):
            found[way].setdefault(whose, []).append(of_scan)
    voxel_mm, shape = tested.settings["preprocess"]["voxel_mm"], tested.shards.shape
    images: dict[str, np.ndarray] = {"brain": overall[tested.image or 0]}
    about = tested.about()
    changed = changes_of(tested.settings["target"]["column"], voxel_mm, shape) if about["simulated"] else None
    if changed is not None:
        images["truth"] = changed * brain
    summary: dict[str, Any] = {
        **about,
        "n": len(found[WAYS[ways][0]]["trained"]),
        "value": "log-odds of the predicted class" if tested.classes else about["unit"] or about["target"],
        "patch_mm": PATCH_MM,
        "ways": {},
    }
    places = sampled(brain)
    for way, made in found.items():
        images[way] = np.mean(made["trained"], axis=0)
        at_places = {whose: np.stack([one.flat[places] for one in ones]) for whose, ones in made.items()}
        summary["ways"][way] = describe(at_places, places, brain, changed)
    maps.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        with whole_file(maps / f"{name}.nii.gz") as temporary:
            nib.save(nib.Nifti1Image(image.astype(np.float32), grid_affine(voxel_mm, shape)), temporary)
    write_csv(as_table(summary), table)
    write_json(summary, result)
    return summary


def scans_to_show(tested: Tested, fold: int, count: int) -> list[str]:
    """Return some test scans of a fold, one of each person, evenly from the lowest to the highest label."""
    ids = tested.ids(fold, "test")
    rows = tested.labels.loc[ids].drop_duplicates("subject")
    ordered = rows.sort_values([tested.settings["target"]["column"], "subject"], kind="stable").index
    places = (np.arange(min(count, len(ordered))) + 0.5) / min(count, len(ordered)) * len(ordered)
    return [str(ordered[int(place)]) for place in places]


def average_of(tested: Tested, fold: int) -> torch.Tensor:
    """Return the average of the training scans of a fold, float32 between 0 and 1, shape (channels, x, y, z)."""
    ids = tested.ids(fold, "train")
    ids = [ids[int(place)] for place in np.linspace(0, len(ids) - 1, min(AVERAGED, len(ids)))]
    total = np.zeros((tested.shards.channels, *tested.shards.shape))
    for scan in ids:
        total += tested.shards[scan].reshape(total.shape)
    return torch.tensor(total / (255 * len(ids)), dtype=torch.float32)


def maps_of(
    tested: Tested,
    networks: dict[str, list[Trained]],
    average: torch.Tensor,
    ids: Sequence[str],
    brain: np.ndarray,
    ways: list[str],
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield for each scan, each of the `networks` and each way their names with the map, shape (x, y, z)."""
    average = average.to(tested.device)
    voxel_mm = tested.settings["preprocess"]["voxel_mm"]
    for number, name in enumerate(ids):
        volume = torch.tensor(np.array(tested.shards[name])).view(1, *average.shape).to(tested.device).float() / 255
        mirrored = tested.settings["training"]["tta"] == "mirror" and number % 2 == 1
        scan = (volume.flip(2) if mirrored else volume) - average
        within = brain[::-1].copy() if mirrored else brain
        predicted_class = None
        for whose, of_fold in networks.items():
            numbers = [one.covariates.encode(tested.covariates.loc[[name]]).to(tested.device) for one in of_fold]
            explained = Explained(of_fold, numbers, average)
            if tested.classes and predicted_class is None:  # by the trained networks, which come first
                predicted_class = int(explained.values(scan)[0].argmax())
            explained.predicted_class = predicted_class
            for way in ways:
                found = (
                    occlusion(explained, scan, within, voxel_mm, number)
                    if way == "occlusion"
                    else gradients(explained, scan, within, number)
                )
                yield whose, way, found[::-1] if mirrored else found


def describe(maps: dict[str, np.ndarray], places: np.ndarray, brain: np.ndarray, changed: np.ndarray | None) -> dict[str, Any]:
    """Return what is said of one way; see `attention`.

    Parameters
    ----------
    maps
        By the trained networks, by random weights and by the networks of another fold, shape (scans, voxels) each.
    places, brain, changed
        See `mriflow.prediction.maps`.
    """
    each = maps["trained"].mean(1)
    mean = bootstrapped(lambda scans: float(each[scans].mean()), len(each))
    result: dict[str, Any] = {"mean": mean, "sanity": sanity(maps["trained"], maps["random"], maps.get("other"))}
    if changed is not None:
        result["truth"] = against_truth(maps["trained"], maps["random"], places, brain, changed)
    return result


def as_table(summary: dict[str, Any]) -> pd.DataFrame:
    """Return the numbers of attention.json as rows: way, measure, value, low, high, n."""
    rows = []
    for way, found in summary["ways"].items():
        cells = {"mean": found["mean"]}
        for part in ("sanity", "truth"):
            cells |= {f"{part}.{name}": one for name, one in found.get(part, {}).items() if not isinstance(one, str)}
        for name, cell in cells.items():
            numbers = cell if isinstance(cell, dict) else {"value": cell, "low": None, "high": None}
            rows.append({"way": way, "measure": name, **numbers, "n": summary["n"]})
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> None:
    """Read the command line and find what the predictions depend on."""
    parser = stage_parser(__doc__)
    add_tested(parser)
    parser.add_argument("--maps", type=Path, required=True, help="folder of the maps to write, .nii.gz")
    parser.add_argument("--ways", choices=list(WAYS), default="occlusion", help="how it is found (default: occlusion)")
    parser.add_argument("--scans", type=int, default=6, help="test scans that are looked at (default: 6)")
    attention(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
