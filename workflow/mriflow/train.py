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
from typing import Any

import numpy as np
import pandas as pd
import torch

from mriflow.base import recipes
from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv
from mriflow.tables.labels import read_index, read_labels
from mriflow.tables.splits import read_splits
from mriflow.training.checkpoint import fingerprint, save_bytes
from mriflow.training.distributed import is_worker, launch, team
from mriflow.training.loader import Shards, Volumes, open_shards
from mriflow.training.loop import Part, Run
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
    profile: bool = False,
    overfit: int = 0,
    fast_dev_run: bool = False,
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
    profile, overfit, fast_dev_run
        Ways to look into a training, which write nothing: print where the time goes; train on so many scans alone; train for
        one epoch of two batches.

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
    with ExitStack() as stack:
        us = stack.enter_context(team(gpus, allow_cpu))
        if profile or overfit or fast_dev_run:
            work, training = Path(stack.enter_context(tempfile.TemporaryDirectory())), dict(training)
            training["schedule"] = "constant" if profile else training["schedule"]  # others end with the last epoch
        elif us.rank == 0:
            (work / "stopped.json").unlink(missing_ok=True)  # a note that is found after this run is of this run
        seed_everything(seed, us.device)
        shards = open_shards(arrays, indices)
        label_of = read_target(labels, target)
        ids = scans_of(splits, fold, shards)
        if overfit:
            ids = dict.fromkeys(ids, ids["train"][:overfit])
            training["augmentation"] = dict.fromkeys(training["augmentation"], 0.0)
        if fast_dev_run:
            ids = {part: scans[: 2 * training["batch_size"]] for part, scans in ids.items()}
            training["epochs"] = 1
        training_part, validation_part = (
            Part(Volumes(shards, s, us.device), label_of.loc[s].to_numpy(), s) for s in ids.values()
        )

        objective = make_objective(target, training, training_part.labels)
        net = build_network(network["name"], network["arguments"], objective.outputs, shards.shape)
        if "init" in network:
            load_pretrained(net, Path(network["init"]["weights"]))
        parameters = sum(p.numel() for p in net.parameters())
        log.info("%s with %d parameters, grid %s", network["name"], parameters, "x".join(map(str, shards.shape)))
        if us.size > 1 and us.device.type == "cuda":
            net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
        net = net.to(us.device, memory_format=torch.channels_last_3d)

        keys = pd.concat([read_index(index) for index in indices]).set_index("id")["key"]
        state = fingerprint(
            recipe=recipes.TRAIN,
            data=[[scan, str(label_of[scan]), keys[scan]] for scans in ids.values() for scan in scans],
            settings=[fold, seed, target, network, {key: value for key, value in training.items() if key not in HOW}],
            init=content_of(network["init"]["weights"]) if "init" in network else "",
        )
        run = Run(net, objective, training, len(training_part.ids), work, state, seed, us)
        if profile:
            profile_training(run, training_part)
            return run.table()
        with StopFlag(deadline) as stop:
            run.fit(training_part, validation_part, stop)
        if overfit or fast_dev_run:
            if us.rank == 0:
                print(run.table().to_string(index=False))
            return run.table()
        if us.rank == 0:
            write_csv(run.table(), history)
            save_bytes(
                {
                    "weights": run.best_weights,
                    "network": network,
                    "objective": objective.state(),
                    "shape": list(shards.shape),
                    "epoch": run.best_epoch,
                    "fold": fold,
                    "seed": seed,
                    "scans": {part: len(scans) for part, scans in ids.items()},
                },
                model,
            )
        return run.table()


def read_target(labels: Path, target: dict[str, Any]) -> pd.Series:
    """Return the target of every scan of a dataset by its id."""
    category = target["column"] if target["type"] == "classification" else None
    return read_labels(labels, category).set_index("id")[target["column"]]


def scans_of(splits: Path, fold: int, shards: Shards) -> dict[str, list[str]]:
    """Return the training and the validation scans of a fold; those without a preprocessed volume are left out, and counted."""
    parts = read_splits(splits)
    parts = parts[parts["fold"] == fold]
    found = {}
    for name in ("train", "validation"):
        ids = parts.loc[parts["part"] == name, "id"].tolist()
        there = [scan for scan in ids if scan in shards]
        failed = f", {len(ids) - len(there)} failed preprocessing" if len(there) < len(ids) else ""
        log.info("%s: %d scans%s", name, len(there), failed)
        if len(there) < 2:
            raise UserError(
                f"{splits}: fold {fold} has {len(there)} {name} scans that were preprocessed; at least 2 are needed."
            )
        found[name] = there
    return found


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
    with interruptible(), ExitStack() as stack:
        if is_worker() or not given.training["copy_to_scratch"]:
            copied = []
        else:
            given.arrays = copied = copy_to(Path(stack.enter_context(tempfile.TemporaryDirectory())), given.arrays)
        if given.gpus > 1 and not is_worker():
            arguments = sys.argv[1:] if argv is None else argv
            launch(given.gpus, [*arguments, "--arrays", *map(str, copied)] if copied else arguments)
        else:
            train(**vars(given))


if __name__ == "__main__":
    run_stage(main)
