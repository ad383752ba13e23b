"""A training before its first step: what it reads, and the trainer made of it."""

import hashlib
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from mriflow.base import recipes
from mriflow.base.errors import UserError
from mriflow.tables.labels import read_index, read_labels
from mriflow.tables.splits import read_splits
from mriflow.training.checkpoint import hash_of
from mriflow.training.distributed import Team
from mriflow.training.loader import ScanLoader, Shards, open_shards
from mriflow.training.loop import Part, Trainer
from mriflow.training.networks import build_network
from mriflow.training.objectives import make_objective
from mriflow.training.pretrained import load_pretrained

log = logging.getLogger(__name__)

# Keys of the training block that change how a training runs, not what is trained.
RUNTIME_KEYS = ("checkpoint_minutes", "copy_to_scratch")


class Data(NamedTuple):
    """What a training reads.

    Attributes
    ----------
    shards
        All preprocessed scans of the dataset.
    labels
        The target of every scan by its id.
    keys
        What each preprocessed scan was made of and how, by its id (the column `key` of the shards' indices).
    ids
        The scans of the train and the validation part of the fold.
    """

    shards: Shards
    labels: pd.Series
    keys: pd.Series
    ids: dict[str, list[str]]


def read_data(
    arrays: Sequence[Path], indices: Sequence[Path], labels: Path, splits: Path, fold: int, target: dict[str, Any]
) -> Data:
    """Read what a training needs; see `train` for the arguments."""
    shards = open_shards(arrays, indices)
    keys = pd.concat([read_index(index) for index in indices]).set_index("id")["key"]
    return Data(shards, read_target(labels, target), keys, scans_of(splits, fold, shards))


def prepare(
    data: Data,
    work: Path,
    fold: int,
    seed: int,
    target: dict[str, Any],
    network: dict[str, Any],
    training: dict[str, Any],
    team: Team,
) -> tuple[Trainer, Part, Part]:
    """Return a training before its first step, with its training and its validation part; see `train` for the arguments."""
    training_part, validation_part = (
        Part(ScanLoader(data.shards, ids, team.device), data.labels.loc[ids].to_numpy(), ids) for ids in data.ids.values()
    )
    objective = make_objective(target, training, training_part.labels)
    net = build_network(network["name"], network["arguments"], objective.outputs, data.shards.shape)
    if "init" in network:
        load_pretrained(net, Path(network["init"]["weights"]))
    parameters = sum(p.numel() for p in net.parameters())
    log.info("%s with %d parameters, grid %s", network["name"], parameters, "x".join(map(str, data.shards.shape)))
    if team.size > 1 and team.device.type == "cuda":
        net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
    net = net.to(team.device, memory_format=torch.channels_last_3d)
    settings_hash = hash_of(
        recipe=recipes.TRAIN,
        data=[[scan, str(data.labels[scan]), data.keys[scan]] for scans in data.ids.values() for scan in scans],
        settings=[fold, seed, target, network, {key: value for key, value in training.items() if key not in RUNTIME_KEYS}],
        init=content_of(network["init"]["weights"]) if "init" in network else "",
    )
    trainer = Trainer(net, objective, training, len(training_part.ids), work, settings_hash, seed, team)
    return trainer, training_part, validation_part


def read_target(labels: Path, target: dict[str, Any]) -> pd.Series:
    """Return the target of every scan of a dataset by its id."""
    category = target["column"] if target["type"] == "classification" else None
    return read_labels(labels, category).set_index("id")[target["column"]]


def scans_of(splits: Path, fold: int, shards: Shards) -> dict[str, list[str]]:
    """Return the training and the validation scans of a fold; those without a preprocessed volume are left out, and counted."""
    rows = read_splits(splits)
    rows = rows[rows["fold"] == fold]
    scans = {}
    for part in ("train", "validation"):
        ids = rows.loc[rows["part"] == part, "id"].tolist()
        preprocessed = [scan for scan in ids if scan in shards]
        failed = f", {len(ids) - len(preprocessed)} failed preprocessing" if len(preprocessed) < len(ids) else ""
        log.info("%s: %d scans%s", part, len(preprocessed), failed)
        if len(preprocessed) < 2:
            raise UserError(
                f"{splits}: fold {fold} has {len(preprocessed)} {part} scans that were preprocessed; at least 2 are needed."
            )
        scans[part] = preprocessed
    return scans


def content_of(path: str | Path) -> str:
    """Return a hash of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seed_everything(seed: int, device: torch.device) -> None:
    """Make weights follow from `seed`, and the CPU's sums from nothing else."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - MONAI's networks may draw from it
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # a guard against bugs, at a twentieth of the speed
