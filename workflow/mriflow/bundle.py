"""Put a trained model into a folder with all that its use on other scans needs: a MONAI bundle, to be kept or handed on.

It holds the networks of every fold and seed, how their scans were prepared, what was seen in training, what was fitted for new
scans, a model card, and the checksums of all of it. `mriflow predict` uses it; MONAI can run it, too.
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import torch

import mriflow
from mriflow.base import recipes
from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.files import write_json, write_text
from mriflow.base.provenance import provenance
from mriflow.config.label_maps import seen_and_map
from mriflow.images.outliers import CONTRAST, contrast_of
from mriflow.images.scan import BRAIN_ML, MIXTURE, QC_CORRELATION, TEMPLATE_RATIO, PreprocessSettings
from mriflow.prediction.seen import seen_in_training
from mriflow.prediction.stored import CALIBRATION, CHECKSUMS, FORMAT, METADATA, metadata_schema, sha256
from mriflow.prediction.tested import add_trained
from mriflow.prediction.tissue_network import BESIDE
from mriflow.reporting.model_card import model_card
from mriflow.reporting.words import and_list
from mriflow.tables.labels import read_indices, read_labels
from mriflow.tables.splits import read_splits
from mriflow.training.covariates import Covariates
from mriflow.training.loader import Shards, open_shards
from mriflow.training.objectives import load_objective

log = logging.getLogger(__name__)

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
PACKAGES = ("nibabel", "antspyx", "deepbet", "nilearn", "scipy", "pandas")


def bundle(
    output: Path,
    *,
    models: Sequence[Path],
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    headers: Path,
    settings: Path,
    metrics: Path,
    calibration: Path | None = None,
    tissues: Path | None = None,
) -> dict[str, Any]:
    """Write the folder `output`: whole, or not at all.

    Parameters
    ----------
    models
        The model.pt of all folds and seeds, made by `train`.
    arrays, indices, labels, headers
        The dataset's shards, its labels.csv, and its headers.csv, made by `check`.
    splits, settings, metrics
        Of the experiment, made by `split`, the rule `settings` and `evaluate`.
    calibration
        What `evaluate` fitted for new scans. Without it, predictions have no interval.
    tissues
        The folder of the model that told the tissues of the scans apart, if one did; it is copied.

    Returns
    -------
    The metadata written (prediction/metadata.schema.json).
    """
    experiment = json.loads(settings.read_text(encoding="utf-8"))
    target, dataset = experiment["target"], experiment["dataset"]
    stored = experiment["preprocess"]["channels"]
    seen_channels, place = seen_and_map(stored)
    shards = open_shards(arrays, indices, place)
    contents = {path: torch.load(path, map_location="cpu", weights_only=True) for path in models}
    names = {path: f"models/fold-{one['fold']}_seed-{one['seed']}.pt" for path, one in contents.items()}
    first = contents[models[0]]
    parts = read_splits(splits)
    parts = parts[parts["part"].isin(["train", "validation"]) & parts["fold"].isin([one["fold"] for one in contents.values()])]
    trained = parts.loc[parts["id"].isin(shards), "id"].unique().tolist()
    category = [target["column"]] if target["type"] == "classification" else []
    table = read_labels(labels, category=category).set_index("id", drop=False).loc[trained]
    preprocess = {key: experiment["preprocess"][key] for key in field_names() if key in experiment["preprocess"]}
    preprocess |= {"stripped": dataset["stripped"], "channels": seen_channels}
    preprocess["tissues"] = BESIDE if tissues else MIXTURE
    labels_of = [] if target["type"] == "segmentation" else [target["column"]]  # a label map is a file
    columns = list(dict.fromkeys([*labels_of, *experiment["covariates"], "age", "sex"]))
    seen = seen_in_training(
        table,
        columns,
        category,
        pd.read_csv(headers).set_index("id").reindex(trained),
        measures_of(shards, read_indices(indices).set_index("id").loc[trained], stored),
    )
    classes = list(dataset["label_maps"]["classes"] if target["type"] == "segmentation" else target.get("classes", []))
    result = json.loads(metrics.read_text(encoding="utf-8"))
    seen["measures"] |= result.get("plausible", {})
    if experiment["training"].get("synthesis", {}).get("share") == 1:  # the networks saw no scan: not its voxels, nor contrast
        told = () if "simulate" in dataset else seen["measures"].keys() - CONTRAST  # of simulated brains nothing is usual
        seen |= {"voxel_mm": None, "measures": {name: known for name, known in seen["measures"].items() if name in told}}
    facts = {
        "format": FORMAT,
        "version": mriflow.__version__,
        "recipe": recipes.PREPROCESS,
        "experiment": experiment["experiment"],
        "simulated": "simulate" in dataset,
        "dataset": {key: dataset.get(key) or "not given" for key in ("title", "licence", "citation", "modality")},
        "target": {
            "column": target["column"],
            "type": target["type"],
            "unit": target.get("unit", ""),
            "classes": classes,
        },
        "preprocess": preprocess,
        "covariates": experiment["covariates"],
        "tta": experiment["training"]["tta"],
        "models": [{"file": names[path], "fold": one["fold"], "seed": one["seed"]} for path, one in contents.items()],
        "seen": seen,
        "limits": limits(preprocess["registration"]),
        # Without the dataset's block, which has paths of the machine.
        "provenance": provenance({key: block for key, block in experiment.items() if key not in ("dataset", "split")}),
    }
    metadata = metadata_of(facts, first)
    jsonschema.validate(metadata, metadata_schema())
    making = output.with_name(f".part.{output.name}")
    shutil.rmtree(making, ignore_errors=True)
    for path, name in names.items():
        (making / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, making / name)
    write_json(metadata, making / METADATA)
    write_json(inference_of(first), making / "configs/inference.json")
    fitted = calibration is not None and "new" in json.loads(calibration.read_text(encoding="utf-8"))
    if tissues:
        shutil.copytree(tissues, making / BESIDE, ignore=shutil.ignore_patterns(".*"))
    if calibration is not None:
        shutil.copyfile(calibration, making / CALIBRATION)
    write_text(model_card(facts, result, fitted), making / "docs/README.md")
    files = sorted(path.relative_to(making).as_posix() for path in making.rglob("*") if path.is_file())
    write_text("".join(f"{sha256(making / name)}  {name}\n" for name in files), making / CHECKSUMS)
    shutil.rmtree(output, ignore_errors=True)
    making.rename(output)
    log.info("%s: %d networks, trained on %d scans", output, len(models), seen["scans"])
    return metadata


def field_names() -> list[str]:
    """Return what is known of how a scan is prepared."""
    return [field.name for field in dataclasses.fields(PreprocessSettings)]


def limits(registration: str) -> dict[str, Any]:
    """Return outside of which measures a scan is refused or doubted."""
    return {
        "brain_ml": list(BRAIN_ML),
        "correlation": QC_CORRELATION[registration],
        "template_ratio": list(TEMPLATE_RATIO[registration]),
    }


def measures_of(shards: Shards, index: pd.DataFrame, channels: Sequence[str]) -> pd.DataFrame:
    """Return the quality measures of scans with the contrast of their images."""
    if "image" not in channels:
        return index
    place = list(channels).index("image")
    images = {scan: volume if volume.ndim == 3 else volume[place] for scan in index.index for volume in [shards[scan]]}
    return index.join(pd.DataFrame.from_dict({scan: contrast_of(image) for scan, image in images.items()}, orient="index"))


def metadata_of(facts: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as MONAI wants them, with `facts` beside."""
    target, channels = facts["target"], facts["preprocess"]["channels"]
    named = and_list(target["classes"]) if target["type"] == "segmentation" else target["column"]
    what = f"{named} from T1-weighted MRI of the head"
    made_of = " (simulated brains)" if facts["simulated"] else ""
    outputs = load_objective(model["objective"]).outputs
    format_of = {"spatial_shape": facts["preprocess"]["shape"], "dtype": "float32", "is_patch_data": False}
    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": "as the workflow made it"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"mriflow": mriflow.__version__, **{name: version(name) for name in PACKAGES}},
        "name": facts["experiment"],
        "task": f"{target['type']}: {what}",
        "description": f"An ensemble of {len(facts['models'])} networks that predicts {what}, trained on "
        f"{facts['seen']['scans']} scans of {facts['dataset']['title']}{made_of}.",
        "authors": "not given",
        "copyright": f"see the licence of the scans: {facts['dataset']['licence']}",
        "intended_use": "Research. Not for decisions about a patient.",
        "network_data_format": {
            "inputs": {
                "image": {
                    **format_of,
                    "type": "image",
                    "format": "brain on the MNI152 grid, 0 around it",
                    "num_channels": len(channels),
                    "value_range": [0, 1],
                    "channel_def": {str(number): name for number, name in enumerate(channels)},
                }
            },
            "outputs": {
                "pred": {
                    **format_of,
                    "spatial_shape": facts["preprocess"]["shape"] if target["type"] == "segmentation" else [],
                    "type": target["type"],
                    "format": f"as the objective {model['objective']['loss']} reads it",
                    "num_channels": outputs,
                    "value_range": [],
                    "channel_def": {},
                }
            },
        },
        "mriflow": facts,
    }


def inference_of(model: dict[str, Any]) -> dict[str, Any]:
    """Return what MONAI runs: the same as `mriflow predict`. That itself never reads it, for MONAI executes what is in it."""
    return {
        "imports": ["$from mriflow.predict import predict", "$from pathlib import Path"],
        "bundle_root": ".",
        "scans": [],
        "output": "predictions.csv",
        "network_def": {
            "_target_": "mriflow.training.networks.build_network",
            "name": model["network"]["name"],
            "arguments": model["network"]["arguments"],
            "outputs": load_objective(model["objective"]).outputs,
            "shape": model["shape"],
            "channels": len(model["channels"]),
            "covariates": Covariates(model["covariates"]).width,
        },
        "run": ["$predict(Path(@bundle_root), @scans, Path(@output))"],
    }


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the folder."""
    parser = stage_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    add_trained(parser)
    parser.add_argument("--headers", type=Path, required=True, help="the dataset's headers.csv, made by check")
    parser.add_argument("--metrics", type=Path, required=True, help="the experiment's metrics.json")
    parser.add_argument("--calibration", type=Path, help="what was fitted for new scans, .json (default: none, no intervals)")
    parser.add_argument("--tissues", type=Path, help="the model that told the tissues of the scans apart (default: a mixture)")
    bundle(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
