"""A training before its first step: what it reads, and the trainer made of it."""

import hashlib
import logging
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from mriflow.base import recipes
from mriflow.base.errors import UserError
from mriflow.images.label_maps import measured, told_of_loss
from mriflow.tables.labels import read_indices, read_labels, require_column
from mriflow.tables.splits import read_splits
from mriflow.training.checkpoint import hash_of
from mriflow.training.covariates import Covariates, read_covariates
from mriflow.training.distributed import Team
from mriflow.training.forward import precision, work_of
from mriflow.training.freezing import freeze_features
from mriflow.training.loader import ScanLoader, Shards, open_shards
from mriflow.training.loop import Part, Trainer
from mriflow.training.networks import WithCovariates, build_network, check_end
from mriflow.training.objectives import Segmentation, make_objective
from mriflow.training.pretrained import Start, load_pretrained, read_start
from mriflow.training.seen import Seen, check_seen, people_of, seen_by
from mriflow.training.sides import check_mirror

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
        The target of every scan by its id, one column, and one more for each auxiliary target.
    covariates
        The covariates of every preprocessed scan, one column each.
    made
        What each preprocessed scan was made of and how, and its measures, by its id: the rows of the shards' indices.
    ids
        The scans of the train and the validation part of the fold.
    people
        Who is in the dataset, and in which part of the fold (`mriflow.training.seen.people_of`).
    """

    shards: Shards
    labels: pd.DataFrame
    covariates: pd.DataFrame
    made: pd.DataFrame
    ids: dict[str, list[str]]
    people: pd.DataFrame


class Prepared(NamedTuple):
    """A training before its first step.

    Attributes
    ----------
    trainer, training, validation
        It, and the two parts of the fold.
    covariates
        How covariates become numbers.
    seen
        What its model will have seen (`mriflow.training.seen`).
    warnings
        What is wrong with what it starts from, as a list of `kind` and `text`.
    """

    trainer: Trainer
    training: Part
    validation: Part
    covariates: Covariates
    seen: Seen
    warnings: list[dict[str, str]]


def read_data(
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    fold: int,
    target: dict[str, Any],
    inputs: dict[str, Any],
) -> Data:
    """Read what a training needs; see `train` for the arguments."""
    shards = open_shards(arrays, indices, inputs.get("label_map"))
    channels = inputs["channels"]
    if shards.channels != len(channels):
        raise UserError(f"{arrays[0]}: has {shards.channels} channel(s), expected {', '.join(channels)}. Delete it, run again.")
    index = read_indices(indices)
    covariates = read_covariates(inputs["covariates"], labels, index)
    people = people_of(labels, splits, fold)
    return Data(shards, read_targets(labels, target), covariates, index.set_index("id"), scans_of(splits, fold, shards), people)


def prepare(
    data: Data,
    work: Path,
    fold: int,
    seed: int,
    target: dict[str, Any],
    inputs: dict[str, Any],
    network: dict[str, Any],
    training: dict[str, Any],
    team: Team,
    dataset: str = "",
    init: Path | None = None,
    freeze: str = "none",
) -> Prepared:
    """Return a training before its first step; see `train` for the arguments."""
    raw = {part: data.labels.loc[ids].to_numpy() for part, ids in data.ids.items()}
    if not target["auxiliary"]:
        raw = {part: labels[:, 0] for part, labels in raw.items()}
    if training["select"] == "best" and not data.ids["validation"]:
        raise UserError(
            f"fold {fold} has no validation scans: `select: best` needs a validation part. Set it to last or average."
        )
    start, warnings = read_checked(init, freeze, data.people, dataset)
    objective = make_objective(target, training, raw["train"])
    if isinstance(objective, Segmentation) and training["augmentation"]["mirror"]:
        keys = "`augmentation: {mirror: 0}` and `tta: none`"
        warnings = [*warnings, *check_mirror(data.shards, data.ids["train"], objective.classes, keys)]
    if isinstance(objective, Segmentation):
        of_training = measured(data.made, objective.classes).loc[data.ids["train"]]
        lost = told_of_loss(of_training, objective.classes, inputs["voxel_mm"])
        warnings = [*warnings, *({"kind": "class lost on the grid", "text": f"{text}."} for text in lost)]
    covariates = Covariates.fit(data.covariates.loc[data.ids["train"]], inputs["impute"])
    tested = data.people.index[data.people["part"] == "test"].intersection(data.covariates.index)
    covariates.encode(data.covariates.loc[tested])  # what cannot be predicted is told before the training, not after it
    training_part, validation_part = (
        Part(
            ScanLoader(
                data.shards,
                ids,
                team.device,
                covariates.encode(data.covariates.loc[ids]),
                objective.encode(raw[part]),
            ),
            raw[part],
            ids,
        )
        for part, ids in data.ids.items()
    )
    shape = tuple(training.get("patch") or data.shards.shape)
    net = build_network(
        network["name"],
        network["arguments"],
        objective.outputs,
        shape,
        data.shards.channels,
        covariates.width,
        of_voxels=isinstance(objective, Segmentation),
    )
    check_end(net.net if isinstance(net, WithCovariates) else net, network["name"])
    if start:
        here = {"target": target, "channels": inputs["channels"], "covariates": covariates.columns}
        here["objective"] = objective.state()
        load_pretrained(net, start, here)
    if freeze == "features":
        freeze_features(net, objective.outputs)
    of_voxel = partial(work_of, net, shape, data.shards.channels, covariates.width)
    chosen = precision(team.device, training, of_voxel)
    if chosen != torch.float32:
        log.info("computing in %s (`mixed_precision`)", str(chosen).removeprefix("torch."))
    parameters = sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    of_them = f" ({trained} of them trained)" if trained < parameters else ""
    grid = "x".join(map(str, data.shards.shape))
    log.info("%s with %d parameters%s, grid %s", network["name"], parameters, of_them, grid)
    if team.size > 1 and team.device.type == "cuda":
        net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
    net = net.to(team.device, memory_format=torch.channels_last_3d)
    scans = [scan for ids in data.ids.values() for scan in ids]
    keys = data.made["key"]
    known = pd.concat([data.labels.loc[scans], data.covariates.loc[scans]], axis=1).astype(str)
    settings_hash = hash_of(
        recipe=recipes.TRAIN,
        data=[[scan, *known.loc[scan], keys[scan]] for scan in scans],
        settings=[
            fold,
            seed,
            target,
            inputs,
            network,
            {key: value for key, value in training.items() if key not in RUNTIME_KEYS},
        ],
        init=[content_of(init), freeze] if init else "",
    )
    image = inputs["channels"].index("image") if "image" in inputs["channels"] else None
    trainer = Trainer(
        net, objective, training, len(training_part.ids), work, settings_hash, seed, team, inputs["voxel_mm"], image, chosen
    )
    seen = seen_by(data.people, data.ids, dataset, start.facts.get("seen", {}) if start else {})
    return Prepared(trainer, training_part, validation_part, covariates, seen, warnings)


def read_checked(
    init: Path | None, freeze: str, people: pd.DataFrame, dataset: str
) -> tuple[Start | None, list[dict[str, str]]]:
    """Return what a training starts from, if not from random numbers, and what is wrong with it."""
    if init is None:
        if freeze != "none":
            raise UserError(f"`freeze: {freeze}` without weights to start from (`init`): it would train on random features.")
        return None, []
    start = read_start(init)
    if "seen" not in start.facts:
        text = f"{init} does not say whose scans it was trained on: see that nobody is tested here who was among them."
        log.warning("%s", text)
        return start, [{"kind": "start from unknown people", "text": text}]
    return start, check_seen(start.facts["seen"], people, dataset, init)


def read_targets(labels: Path, target: dict[str, Any]) -> pd.DataFrame:
    """Return the target of every scan of a dataset by its id, and its auxiliary targets, one column each."""
    targets = [target, *target["auxiliary"]]
    categories = [one["column"] for one in targets if one["type"] == "classification"]
    table = read_labels(labels, categories).set_index("id")
    for one in targets:
        require_column(table, one["column"])
    return table[[one["column"] for one in targets]]


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
        if len(preprocessed) < 2 and (part == "train" or ids):
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
