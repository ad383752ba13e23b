"""Train a network on one fold of an experiment, with one seed.

After every epoch, and every few minutes within one, a checkpoint is saved to the work folder, together with history.csv and
TensorBoard logs. The same command goes on where a killed or interrupted one stopped, and ends with the same weights as if it
had not been (bit for bit on a CPU with the same number of threads). The model is written at the very end: the weights after the
last epoch, of the best one, or averaged (`select` of the training block).

To look into a training, add one of these to the command that the job's log or `snakemake -np` shows; they write nothing:
  --profile       where the time of a step goes
  --fast-dev-run  one epoch of two batches: does everything work?
  --overfit 8     on 8 scans alone, without augmentation: can this network learn anything?
"""

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.files import write_csv, write_json
from mriflow.config.search import with_keys
from mriflow.training.checkpoint import on_cpu, save_bytes
from mriflow.training.distributed import is_worker, join_team, launch
from mriflow.training.lock import sole_writer
from mriflow.training.loop import Diverged
from mriflow.training.profiling import profile_training
from mriflow.training.setup import prepare, read_data, seed_everything
from mriflow.training.stop import StopFlag, interruptible, moment
from mriflow.training.watchman import watch

log = logging.getLogger(__name__)


def train(
    model: Path,
    history: Path,
    warnings: Path,
    work: Path,
    *,
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    fold: int,
    seed: int,
    target: dict[str, Any],
    inputs: dict[str, Any],
    network: dict[str, Any],
    training: dict[str, Any],
    dataset: str = "",
    init: Path | None = None,
    freeze: str = "none",
    gpus: int = 0,
    allow_cpu: bool = False,
    deadline: float | None = None,
    trial: bool = False,
) -> pd.DataFrame:
    """Train one network and write `model` and `history`.

    Parameters
    ----------
    model
        What is written last: the weights and all that is needed to use them.
    history
        Table with one row per epoch: learning_rate; train_loss, the mean over the steps, in mid-training and with
        augmentation; loss and metrics after the epoch of some training scans as they are (unchanged_), and of the validation
        part (val_), if there is one.
    warnings
        List of what is wrong with the training (`mriflow.training.watchman`), each with fold, seed, `kind` and `text`.
    work
        Folder of the checkpoint, the growing history and the TensorBoard logs.
    arrays, indices
        The dataset's shards, made by `preprocess`.
    labels, splits
        The dataset's labels.csv and the experiment's splits.csv.
    fold, seed
        Which fold of `splits`, and the seed of weights, order and augmentation.
    target
        What is learned: column, type, classes; in `auxiliary` the same of each target that is learned with it.
    inputs
        What the network sees: `channels` of the shards by name, `voxel_mm`, `covariates` by name, and whether to `impute`
        missing ones.
    network, training
        Blocks of the config with these names, complete with defaults (of the network, its name and arguments).
    dataset
        Its name, within which subjects are known again in a later training that starts from this one.
    init
        Weights to start from (`mriflow.training.pretrained`); none: random numbers.
    freeze
        What is not trained: ``none``, or ``features``, all but the output layer.
    gpus, allow_cpu
        How many GPUs the job was given, and whether it may use the CPU if it sees none of them.
    deadline
        When to have saved and stopped, in seconds since the epoch. It changes nothing of what is trained.
    trial
        Whether it is a trial of a search, which ends well if it diverges: then the last row of its history has no val_loss.

    Returns
    -------
    The table written to `history`.

    Raises
    ------
    UserError
        If there is no GPU though one was asked for, too few scans, a leak, a network that does not fit the grid, a class of one
        side that would be mirrored, weights to start from that do not fit the network or have seen a test subject, or a batch
        that does not fit into memory.
    KeyboardInterrupt
        After Ctrl-C, TERM, USR1 or USR2, or at the deadline, once the checkpoint is saved.
    """
    with join_team(gpus, allow_cpu) as team, sole_writer(work, training["checkpoint_minutes"], team.rank):
        if team.rank == 0:
            (work / "stopped.json").unlink(missing_ok=True)  # a note that is found after this run is of this run
        seed_everything(seed, team.device)
        data = read_data(arrays, indices, labels, splits, fold, target, inputs)
        prepared = prepare(data, work, fold, seed, target, inputs, network, training, team, dataset, init, freeze)
        trainer, training_part, validation_part = prepared[:3]
        with StopFlag(deadline) as stop:
            diverged = False
            try:
                trainer.train(training_part, validation_part, stop)
            except Diverged as error:
                if not trial:
                    raise
                diverged = True
                trainer.history.append({"epoch": trainer.epoch + 1, "val_loss": float("nan")})
                log.warning("%s", error)
        if team.rank == 0:
            write_csv(trainer.table(), history)
            found = [*prepared.warnings, *([] if diverged else watch(trainer, training_part, validation_part))]
            write_json([{"fold": fold, "seed": seed, **one} for one in found], warnings)
            save_bytes(
                {
                    "weights": on_cpu(trainer.net.state_dict()),
                    "network": network,
                    "target": target,
                    "objective": trainer.objective.state(),
                    "covariates": prepared.covariates.columns,
                    "shape": list(training.get("patch") or data.shards.shape),
                    "channels": inputs["channels"],
                    "epoch": trainer.best_epoch,
                    "fold": fold,
                    "seed": seed,
                    "scans": {part: len(scans) for part, scans in data.ids.items()},
                    "seen": prepared.seen,
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
    inputs: dict[str, Any],
    network: dict[str, Any],
    training: dict[str, Any],
    dataset: str = "",
    init: Path | None = None,
    freeze: str = "none",
    gpus: int = 0,
    allow_cpu: bool = False,
    deadline: float | None = None,
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
    arrays, indices, labels, splits, fold, seed, target, inputs, network, training, dataset, init, freeze, gpus, allow_cpu,
    deadline
        As for `train`.
    """
    with join_team(gpus, allow_cpu) as team, tempfile.TemporaryDirectory() as work:
        seed_everything(seed, team.device)
        data = read_data(arrays, indices, labels, splits, fold, target, inputs)
        if profile:
            training = {**training, "schedule": "constant"}  # the others refuse more steps than their epochs have
        if overfit:
            few = data.ids["train"][:overfit]
            data = data._replace(ids={"train": few, "validation": few})
            training = {**training, "augmentation": dict.fromkeys(training["augmentation"], 0.0)}
        if fast_dev_run:
            data = data._replace(ids={part: scans[: 2 * training["batch_size"]] for part, scans in data.ids.items()})
            training = {**training, "epochs": 1}
        trainer, training_part, validation_part, *_ = prepare(
            data, Path(work), fold, seed, target, inputs, network, training, team, dataset, init, freeze
        )
        if profile:
            profile_training(trainer, training_part)
            return
        with StopFlag(deadline) as stop:
            trainer.train(training_part, validation_part, stop)
        if team.rank == 0:
            print(trainer.table().to_string(index=False))


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


def main(argv: list[str] | None = None) -> None:
    """Read the command line and train."""
    parser = stage_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model to write, .pt")
    parser.add_argument("--history", type=Path, required=True, help="table of epochs to write, .csv")
    parser.add_argument("--warnings", type=Path, required=True, help="list of what is wrong with the training to write, .json")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoint and TensorBoard logs")
    parser.add_argument("--arrays", type=Path, nargs="+", required=True, help="shards of the dataset, .npy")
    parser.add_argument("--indices", type=Path, nargs="+", required=True, help="their indices, .csv, in the same order")
    parser.add_argument("--labels", type=Path, required=True, help="the dataset's labels.csv")
    parser.add_argument("--splits", type=Path, required=True, help="the experiment's splits.csv")
    parser.add_argument("--fold", type=int, required=True, help="fold of the splits, from 0")
    parser.add_argument("--seed", type=int, required=True, help="seed of weights, order and augmentation")
    parser.add_argument(
        "--target", type=json.loads, required=True, help="column, type, classes, and a list of `auxiliary` targets, as JSON"
    )
    parser.add_argument(
        "--inputs", type=json.loads, required=True, help="channels, voxel_mm, covariates, and whether to impute, as JSON"
    )
    parser.add_argument("--network", type=json.loads, required=True, help="name and arguments of the network, as JSON")
    parser.add_argument("--training", type=json.loads, required=True, help="block of `training` with all defaults, as JSON")
    parser.add_argument("--dataset", default="", help="name of the dataset, within which subjects are known again")
    parser.add_argument("--init", type=Path, help="weights to start from, a file or a model.pt (default: random numbers)")
    parser.add_argument(
        "--freeze",
        choices=["none", "features"],
        default="none",
        help="what is not trained: features is all but the output layer",
    )
    parser.add_argument(
        "--chosen", type=Path, help="what `choose` found best: replaces keys of --training by those of the fold"
    )
    parser.add_argument("--trial", action="store_true", help="a trial of a search: if it diverges, its history says so")
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
    if chosen := vars(given).pop("chosen"):
        of_fold = next(one for one in json.loads(chosen.read_text())["chosen"] if one["fold"] == given.fold)
        log.info("trial %s of the search: %s", of_fold["trial"], of_fold["keys"])
        given.training = with_keys(given.training, of_fold["keys"])
    looking = given.profile or given.overfit or given.fast_dev_run
    with interruptible(), ExitStack() as stack:
        if is_worker() or not given.training["copy_to_scratch"]:
            copied = []
        else:
            given.arrays = copied = copy_to(Path(stack.enter_context(tempfile.TemporaryDirectory())), given.arrays)
        if given.gpus > 1 and not is_worker():
            arguments = sys.argv[1:] if argv is None else argv
            # Of two --arrays the last counts.
            launch(given.gpus, [*arguments, "--arrays", *map(str, copied)] if copied else arguments)
        elif looking:
            unused = ("model", "history", "warnings", "work", "trial")
            look_into(**{name: value for name, value in vars(given).items() if name not in unused})
        else:
            train(**{name: value for name, value in vars(given).items() if name not in ("profile", "overfit", "fast_dev_run")})


if __name__ == "__main__":
    run_stage(main)
