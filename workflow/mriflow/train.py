"""Train a network on one fold of an experiment, with one seed.

After every epoch, and every few minutes within one, a checkpoint is saved to the work folder, together with history.csv and
TensorBoard logs. The same command goes on where a killed or interrupted one stopped, and ends with the same weights as if it
had not been (bit for bit on a CPU with the same number of threads). The model with the lowest validation loss is written at
the very end.

To look into a training, add one of these to the command that the job's log or `snakemake -np` shows; they write nothing:
  --profile       where the time of a step goes
  --fast-dev-run  one epoch of two batches: does everything work?
  --overfit 8     on 8 scans alone, without augmentation: can this network learn anything?
"""

import hashlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from mriflow.base import recipes
from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv
from mriflow.tables.labels import read_index, read_labels
from mriflow.tables.splits import read_splits
from mriflow.training.checkpoint import hash_of, save_bytes
from mriflow.training.distributed import Team, is_worker, join_team, launch
from mriflow.training.loader import ScanLoader, Shards, open_shards
from mriflow.training.loop import Part, Trainer
from mriflow.training.networks import build_network
from mriflow.training.objectives import make_objective
from mriflow.training.pretrained import load_pretrained
from mriflow.training.profiling import profile_training
from mriflow.training.stop import StopFlag, interruptible, moment

log = logging.getLogger(__name__)


# Keys of the training block that change how a training is run and not what is trained.
HOW = ("checkpoint_minutes", "copy_to_scratch")


def train(
    model: Path,
    history: Path,
    work: Path,
    *,
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    fold: int,
    seed: int,
    target: dict[str, Any],
    network: dict[str, Any],
    training: dict[str, Any],
    gpus: int = 0,
    allow_cpu: bool = False,
    deadline: float | None = None,
) -> pd.DataFrame:
    """Train one network and write `model` and `history`.

    Parameters
    ----------
    model
        What is written last: the weights of the best epoch and all that is needed to use them.
    history
        Table with one row per epoch: learning_rate, train_loss, val_loss and metrics of the validation part.
    work
        Folder of the checkpoint, the growing history and the TensorBoard logs.
    arrays, indices
        The dataset's shards, made by `preprocess`.
    labels, splits
        The dataset's labels.csv and the experiment's splits.csv.
    fold, seed
        Which fold of `splits`, and the seed of weights, order and augmentation.
    target, network, training
        Blocks of the config with these names, complete with defaults.
    gpus, allow_cpu
        How many GPUs the job was given, and whether it may use the CPU if it sees none of them.
    deadline
        When to have saved and stopped, in seconds since the epoch. It changes nothing of what is trained.

    Returns
    -------
    The table written to `history`.

    Raises
    ------
    UserError
        If there is no GPU though one was asked for, too few scans, a leak, a network that does not fit the grid, weights that
        do not fit the network, or a batch that does not fit into memory.
    KeyboardInterrupt
        After Ctrl-C, TERM, USR1 or USR2, or at the deadline, once the checkpoint is saved.
    """
    with join_team(gpus, allow_cpu) as team:
        if team.rank == 0:
            (work / "stopped.json").unlink(missing_ok=True)  # a note that is found after this run is of this run
        seed_everything(seed, team.device)
        data = read_data(arrays, indices, labels, splits, fold, target)
        trainer, training_part, validation_part = prepare(data, work, fold, seed, target, network, training, team)
        with StopFlag(deadline) as stop:
            trainer.train(training_part, validation_part, stop)
        if team.rank == 0:
            write_csv(trainer.table(), history)
            save_bytes(
                {
                    "weights": trainer.best_weights,
                    "network": network,
                    "objective": trainer.objective.state(),
                    "shape": list(data.shards.shape),
                    "epoch": trainer.best_epoch,
                    "fold": fold,
                    "seed": seed,
                    "scans": {part: len(scans) for part, scans in data.ids.items()},
                },
                model,
            )
        return trainer.table()


def look_into(
    *,
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    fold: int,
    seed: int,
    target: dict[str, Any],
    network: dict[str, Any],
    training: dict[str, Any],
    gpus: int = 0,
    allow_cpu: bool = False,
    profile: bool = False,
    overfit: int = 0,
    fast_dev_run: bool = False,
) -> None:
    """Look into a training and write nothing: print where the time goes, or the history of a training on few scans.

    Parameters
    ----------
    profile
        Print where the time of a step goes.
    overfit
        Train and validate on so many training scans alone, without augmentation.
    fast_dev_run
        Train for one epoch of two batches.
    arrays, indices, labels, splits, fold, seed, target, network, training, gpus, allow_cpu
        As for `train`.
    """
    with join_team(gpus, allow_cpu) as team, tempfile.TemporaryDirectory() as work:
        seed_everything(seed, team.device)
        data = read_data(arrays, indices, labels, splits, fold, target)
        if profile:
            training = {**training, "schedule": "constant"}  # others end with the last epoch
        if overfit:
            few = data.ids["train"][:overfit]
            data = data._replace(ids={"train": few, "validation": few})
            training = {**training, "augmentation": dict.fromkeys(training["augmentation"], 0.0)}
        if fast_dev_run:
            data = data._replace(ids={part: scans[: 2 * training["batch_size"]] for part, scans in data.ids.items()})
            training = {**training, "epochs": 1}
        trainer, training_part, validation_part = prepare(data, Path(work), fold, seed, target, network, training, team)
        if profile:
            profile_training(trainer, training_part)
            return
        with StopFlag(None) as stop:
            trainer.train(training_part, validation_part, stop)
        if team.rank == 0:
            print(trainer.table().to_string(index=False))


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
        settings=[fold, seed, target, network, {key: value for key, value in training.items() if key not in HOW}],
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


def copy_to(folder: Path, arrays: Sequence[Path]) -> list[Path]:
    """Copy the shards to a folder on the node's own disk; if it has no room for them, they are used where they are."""
    size, free = sum(array.stat().st_size for array in arrays), shutil.disk_usage(folder).free
    if size > 0.9 * free:
        log.warning(
            "%s has %.1f GB free, the shards take %.1f GB: they are read where they are", folder, free / 1e9, size / 1e9
        )
        return list(arrays)
    log.info("copying %.1f GB to %s", size / 1e9, folder)
    return [Path(shutil.copyfile(array, folder / f"{number}.npy")) for number, array in enumerate(arrays)]


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


def main(argv: list[str] | None = None) -> None:
    """Read the command line and train."""
    parser = stage_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model to write, .pt")
    parser.add_argument("--history", type=Path, required=True, help="table of epochs to write, .csv")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoint and TensorBoard logs")
    parser.add_argument("--arrays", type=Path, nargs="+", required=True, help="shards of the dataset, .npy")
    parser.add_argument("--indices", type=Path, nargs="+", required=True, help="their indices, .csv, in the same order")
    parser.add_argument("--labels", type=Path, required=True, help="the dataset's labels.csv")
    parser.add_argument("--splits", type=Path, required=True, help="the experiment's splits.csv")
    parser.add_argument("--fold", type=int, required=True, help="fold of the splits, from 0")
    parser.add_argument("--seed", type=int, required=True, help="seed of weights, order and augmentation")
    parser.add_argument("--target", type=json.loads, required=True, help="block of `targets` of the config, as JSON")
    parser.add_argument("--network", type=json.loads, required=True, help="block of `networks`, as JSON")
    parser.add_argument("--training", type=json.loads, required=True, help="block of `training` with all defaults, as JSON")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs that the job was given (default: 0, use one if there is one)")
    parser.add_argument("--allow-cpu", action="store_true", help="use the CPU if the job was given a GPU and sees none")
    parser.add_argument(
        "--deadline",
        type=moment,
        default=os.environ.get("JOB_DEADLINE") or None,
        help="when to have saved and stopped, in seconds since the epoch (default: the environment variable JOB_DEADLINE)",
    )
    look = parser.add_argument_group("to look into a training; these write nothing")
    look.add_argument("--profile", action="store_true", help="print where the time of a training step goes")
    look.add_argument("--overfit", type=int, default=0, metavar="N", help="train and validate on N training scans alone")
    look.add_argument("--fast-dev-run", action="store_true", help="train for one epoch of two batches")
    given = parser.parse_args(argv)
    looking = given.profile or given.overfit or given.fast_dev_run
    with interruptible(), ExitStack() as stack:
        if is_worker() or not given.training["copy_to_scratch"]:
            copied = []
        else:
            given.arrays = copied = copy_to(Path(stack.enter_context(tempfile.TemporaryDirectory())), given.arrays)
        if given.gpus > 1 and not is_worker():
            arguments = sys.argv[1:] if argv is None else argv
            launch(given.gpus, [*arguments, "--arrays", *map(str, copied)] if copied else arguments)
        elif looking:
            unused = ("model", "history", "work", "deadline")
            look_into(**{name: value for name, value in vars(given).items() if name not in unused})
        else:
            train(**{name: value for name, value in vars(given).items() if name not in ("profile", "overfit", "fast_dev_run")})


if __name__ == "__main__":
    run_stage(main)
