"""What jobs are told of the label maps of a dataset."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mriflow.base.files import as_path
from mriflow.tables.labels import LABEL_MAP

EXPERIMENT_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]*")  # a path has a dot or a slash
MEASURES = 1  # raised where the index has to tell more of label maps: blocks with them, no others, are made again
MIXTURE = "mixture"  # the way to tell tissues apart that needs no network
NETWORK = "mriflow-tissues"  # the tissue network that comes with mriflow
SHIPPED = Path(__file__).resolve().parents[1] / "models" / "tissues"  # config/experiments/tissue-network.yaml makes it
TISSUE_CHANNELS = ("csf", "gm", "wm")


def maps_to_read(dataset: Mapping[str, Any]) -> str:
    """Return how `organize` reads a dataset's label maps, as JSON, '' if it has none."""
    keys = ("classes", "background", "pattern", "may_lack")
    maps = dataset.get("label_maps", {})
    return json.dumps({key: maps[key] for key in keys if key in maps}) if maps else ""


def classes_to_store(dataset: Mapping[str, Any], block: Mapping[str, Any]) -> str:
    """Return which numbers make which class in the shards of a preprocess block, as JSON, '' if it stores no label maps."""
    if LABEL_MAP not in block["channels"] or "label_maps" not in dataset:
        return ""
    maps = dataset["label_maps"]
    return json.dumps({key: maps[key] for key in ("classes", "background", "may_lack") if key in maps} | {"measures": MEASURES})


def seen_and_map(channels: Sequence[str]) -> tuple[list[str], int | None]:
    """Return the channels that networks see, and which of the stored ones is the label map; None if there is none.

    >>> seen_and_map(["image", "label_map"]), seen_and_map(["image"])
    ((['image'], 1), (['image'], None))
    """
    seen = [channel for channel in channels if channel != LABEL_MAP]
    return seen, list(channels).index(LABEL_MAP) if LABEL_MAP in channels else None


def tissue_network(config: Mapping[str, Any], block: str) -> tuple[str, str]:
    """Return what tells the tissues of a preprocess block apart if that is no mixture: an experiment or the folder of a model.

    Returns
    -------
    The experiment of this config, and the folder; both '' if the block has no tissues or a mixture tells them.

    >>> blocks = {"tissues": {"channels": ["gm"], "tissues": "demo-tissues"}}
    >>> tissue_network({"preprocess": blocks}, "tissues")
    ('demo-tissues', '<results>/demo-tissues/model')
    """
    used = config["preprocess"][block]
    name = used["tissues"]
    if name == MIXTURE or not set(used["channels"]) & set(TISSUE_CHANNELS):
        return "", ""
    if name == NETWORK:
        return "", model_folder(name)
    return (name, f"<results>/{name}/model") if EXPERIMENT_NAME.fullmatch(name) else ("", name)


def model_folder(name: str) -> str:
    """Return the folder of the model that is so called, or that is given by its path."""
    return os.path.relpath(SHIPPED) if name == NETWORK else as_path(name)


def segmentations(config: Mapping[str, Any]) -> list[str]:
    """Return the experiments of a resolved config that segment."""
    of_target = {name: config["targets"][names["target"]]["type"] for name, names in config["experiments"].items()}
    return [name for name, kind in of_target.items() if kind == "segmentation"]


def folders_of(dataset: Mapping[str, Any]) -> list[str]:
    """Return the archives and folders of a dataset: of its images, and of its label maps."""
    return [*dataset.get("images", []), *dataset.get("label_maps", {}).get("images", [])]
