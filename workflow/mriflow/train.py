"""Train a network on one fold of an experiment, with one seed.

After every epoch a checkpoint is saved to the work folder, together with history.csv and TensorBoard logs. The same command
goes on where a killed or interrupted one stopped, and ends with the same weights as if it had not been (bit for bit on a
CPU with the same number of threads). The model with the lowest validation loss is written at the very end.
"""

import argparse
import json
import logging
import math
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd
import torch
from torch import nn

from mriflow import recipes
from mriflow.augment import augment
from mriflow.checkpoint import fingerprint, load_checkpoint, save_bytes, save_checkpoint
from mriflow.cli import progress, run_stage, stage_parser
from mriflow.device import choose_device
from mriflow.errors import UserError
from mriflow.files import write_csv, write_json
from mriflow.labels import read_index, read_labels
from mriflow.networks import build_network, main_output
from mriflow.objectives import Objective, make_objective
from mriflow.split import read_splits
from mriflow.volumes import Volumes, open_shards

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """The training or validation part of a fold."""

    scans: Volumes
    labels: np.ndarray
    ids: list[str]


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
        If there is no GPU though one was asked for, too few scans, a leak, or a network that does not fit the grid.
    KeyboardInterrupt
        After Ctrl-C, TERM, USR1 or USR2, or at the deadline, once the checkpoint is saved.
    """
    (work / "stopped.json").unlink(missing_ok=True)  # a note that is found after this run is of this run
    device = choose_device(gpus, allow_cpu)
    seed_everything(seed, device)
    volumes = open_shards(arrays, indices)
    training_part, validation_part = read_parts(volumes, labels, splits, fold, target, device)
    shape = next(iter(volumes.values())).shape

    objective = make_objective(target, training, training_part.labels)
    net = build_network(network["name"], network["arguments"], objective.outputs, shape).to(device)
    parameters = sum(p.numel() for p in net.parameters())
    log.info("%s with %d parameters, grid %s", network["name"], parameters, "x".join(map(str, shape)))

    keys = pd.concat([read_index(index) for index in indices]).set_index("id")["key"]
    parts = (training_part, validation_part)
    state = fingerprint(
        recipe=recipes.TRAIN,
        data=[[scan, str(label), keys[scan]] for part in parts for scan, label in zip(part.ids, part.labels, strict=True)],
        settings=[fold, seed, target, network, training],
    )
    run = Run(net, objective, training, len(training_part.ids), work, state, seed, device)
    with StopFlag(deadline) as stop:
        run.fit(training_part, validation_part, stop)

    write_csv(run.table(), history)
    save_bytes(
        {
            "weights": run.best_weights,
            "network": network,
            "objective": objective.state(),
            "shape": list(shape),
            "epoch": run.best_epoch,
            "fold": fold,
            "seed": seed,
            "scans": {"train": len(training_part.ids), "validation": len(validation_part.ids)},
        },
        model,
    )
    return run.table()


class Run:
    """One training: what changes from step to step, and how it is saved.

    Parameters
    ----------
    scans
        Number of training scans.
    work
        Folder of checkpoint and logs.
    state
        Fingerprint of data and settings.
    """

    def __init__(
        self,
        net: nn.Module,
        objective: Objective,
        settings: dict[str, Any],
        scans: int,
        work: Path,
        state: str,
        seed: int,
        device: torch.device,
    ) -> None:
        self.net, self.objective, self.settings, self.seed, self.device = net, objective, settings, seed, device
        self.work, self.fingerprint = work, state
        self.batch = min(settings["batch_size"], scans)
        self.steps = scans // self.batch  # the incomplete batch at the end of an epoch's order is left out
        self.optimizer = make_optimizer(net, settings)
        self.schedule = make_schedule(self.optimizer, settings, self.steps)
        self.autocast = device.type == "cuda" and settings["mixed_precision"] == "auto" and torch.cuda.is_bf16_supported()
        self.epoch = self.step = self.best_epoch = 0
        self.loss_sum = 0.0
        self.best_loss = float("inf")
        self.best_weights: dict[str, torch.Tensor] = {}
        self.history: list[dict[str, float]] = []

    def fit(self, training: Part, validation: Part, stop: "StopFlag") -> None:
        """Train from the checkpoint, or the beginning, to the last epoch or early stopping."""
        from torch.utils.tensorboard import SummaryWriter

        self.resume()
        writer = SummaryWriter(str(self.work / "tensorboard"), purge_step=self.epoch + 1)
        bar = progress(total=self.settings["epochs"], initial=self.epoch, desc="train", unit="epoch")
        targets = self.objective.encode(training.labels).to(self.device)
        while self.epoch < self.settings["epochs"] and not self.stale():
            if reason := stop.reason():
                self.leave(reason)  # nothing was done since the checkpoint
            self.run_epoch(training.scans, targets, stop)
            row = self.validate(validation)
            self.finish_epoch(row)
            for name, value in row.items():
                writer.add_scalar(name, value, self.epoch)
            bar.update()
            bar.set_postfix({name: f"{value:.3g}" for name, value in row.items() if name not in ("epoch", "learning_rate")})
        bar.close()
        writer.close()
        log.info("best epoch: %d of %d (validation loss %.4f)", self.best_epoch, self.epoch, self.best_loss)

    def run_epoch(self, scans: Volumes, targets: torch.Tensor, stop: "StopFlag") -> None:
        """Train the rest of an epoch; order and augmentation follow from seed, epoch and step alone."""
        self.net.train()
        order = torch.randperm(len(scans), generator=generator(self.seed, self.epoch)).tolist()
        while self.step < self.steps:
            chosen = order[self.step * self.batch : (self.step + 1) * self.batch]
            # From 1, for (seed, epoch, 0) would give the very numbers of (seed, epoch), those of the order.
            batch = augment(scans.batch(chosen), self.settings["augmentation"], generator(self.seed, self.epoch, self.step + 1))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                outputs = main_output(self.net(batch))
            loss = self.objective.loss(outputs.float(), targets[chosen])
            if not torch.isfinite(loss):
                raise UserError(
                    f"the training loss became {loss.item()} in epoch {self.epoch + 1}: training diverged. Lower "
                    "`learning_rate` of the experiment's training block (try a tenth)."
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.loss_sum += loss.item()
            self.step += 1
            if reason := stop.reason():
                self.save()
                self.leave(reason)

    def validate(self, validation: Part) -> dict[str, float]:
        """Return the epoch's row of the history."""
        outputs = run_network(self.net, validation.scans, self.batch)
        loss = self.objective.loss(outputs, self.objective.encode(validation.labels).to(self.device)).item()
        return {
            "epoch": self.epoch + 1,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": self.loss_sum / self.steps,
            "val_loss": loss,
            **self.objective.metrics(self.objective.predict(outputs), validation.labels),
        }

    def finish_epoch(self, row: dict[str, float]) -> None:
        """Take note of an epoch and save."""
        self.history.append(row)
        self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0
        if row["val_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = row["val_loss"], self.epoch
            self.best_weights = {name: value.detach().cpu().clone() for name, value in self.net.state_dict().items()}
        self.save()
        write_csv(self.table(), self.work / "history.csv")

    def stale(self) -> bool:
        """Tell whether the validation loss has not fallen for as many epochs as early stopping allows."""
        patience = self.settings["early_stopping"]
        return bool(patience) and self.epoch - self.best_epoch >= patience

    def table(self) -> pd.DataFrame:
        """Return the history so far."""
        return pd.DataFrame(self.history)

    def save(self) -> None:
        """Save the checkpoint."""
        save_checkpoint(
            self.work / "last.ckpt",
            {
                "fingerprint": self.fingerprint,
                "net": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "loss_sum": self.loss_sum,
                "best_loss": self.best_loss,
                "best_epoch": self.best_epoch,
                "best_weights": self.best_weights,
                "history": self.history,
            },
        )

    def leave(self, reason: str) -> NoReturn:
        """End a run whose checkpoint is saved; note why, and where, so that two stops tell whether there was progress."""
        write_json({"reason": reason, "epoch": self.epoch, "step": self.step}, self.work / "stopped.json")
        log.warning("stopped by %s in epoch %d, step %d; saved", reason, self.epoch + 1, self.step)
        raise KeyboardInterrupt

    def resume(self) -> None:
        """Go back to the state of the checkpoint, if there is one of this very run."""
        saved = load_checkpoint(self.work / "last.ckpt", self.fingerprint)
        if saved is None:
            return
        self.net.load_state_dict(saved["net"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        for name in ("epoch", "step", "loss_sum", "best_loss", "best_epoch", "best_weights", "history"):
            setattr(self, name, saved[name])
        log.info("going on after epoch %d, step %d", self.epoch, self.step)


def read_parts(
    volumes: dict[str, np.ndarray], labels: Path, splits: Path, fold: int, target: dict[str, Any], device: torch.device
) -> tuple[Part, Part]:
    """Return the training and the validation part of a fold; scans without a preprocessed volume are left out, and counted."""
    parts = read_splits(splits)
    category = target["column"] if target["type"] == "classification" else None
    label_of = read_labels(labels, category).set_index("id")[target["column"]]
    parts = parts[parts["fold"] == fold]
    found = []
    for name in ("train", "validation"):
        ids = parts.loc[parts["part"] == name, "id"].tolist()
        there = [scan for scan in ids if scan in volumes]
        log.info(
            "%s: %d scans%s",
            name,
            len(there),
            f", {len(ids) - len(there)} failed preprocessing" if len(there) < len(ids) else "",
        )
        if len(there) < 2:
            raise UserError(
                f"{splits}: fold {fold} has {len(there)} {name} scans that were preprocessed; at least 2 are needed."
            )
        found.append(Part(Volumes([volumes[scan] for scan in there], device), label_of.loc[there].to_numpy(), there))
    return found[0], found[1]


@torch.inference_mode()
def run_network(net: nn.Module, scans: Volumes, batch: int) -> torch.Tensor:
    """Return the outputs of a network in evaluation mode for all scans, float32, shape (scans, outputs)."""
    net.eval()
    positions = range(len(scans))
    return torch.cat([main_output(net(scans.batch(positions[i : i + batch]))).float() for i in range(0, len(scans), batch)])


def make_optimizer(net: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with momentum 0.9."""
    if settings["optimizer"] == "sgd":
        return torch.optim.SGD(net.parameters(), settings["learning_rate"], momentum=0.9, weight_decay=settings["weight_decay"])
    return torch.optim.AdamW(net.parameters(), settings["learning_rate"], weight_decay=settings["weight_decay"])


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rate's schedule over `settings["epochs"]` epochs of `steps` steps, one step at a time."""
    total = settings["epochs"] * steps
    schedules = torch.optim.lr_scheduler
    match settings["schedule"]:
        case "one-cycle":
            # One step more than there will be: the schedule refuses to be asked once too often.
            return schedules.OneCycleLR(optimizer, settings["learning_rate"], total_steps=total + 1)
        case "cosine":
            return schedules.CosineAnnealingLR(optimizer, total)
        case "step":
            return schedules.StepLR(optimizer, max(1, total // 5), gamma=0.3)
        case _:
            return schedules.ConstantLR(optimizer, factor=1.0)


def generator(*numbers: int) -> torch.Generator:
    """Return a random generator on the CPU that depends on all `numbers`."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed))


def seed_everything(seed: int, device: torch.device) -> None:
    """Make weights and dropout follow from `seed`, and the CPU's sums from nothing else."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - MONAI's networks may draw from it
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)


class StopFlag:
    """Tells the training loop between two steps whether to end: a signal asked for it, or the deadline is there.

    Saving inside a signal handler would save a half-made step.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self, deadline: float | None) -> None:
        self.deadline = math.inf if deadline is None else deadline
        self.signal: str | None = None

    def __enter__(self) -> "StopFlag":
        self.before = {number: signal.signal(number, self.catch) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def catch(self, number: int, _frame: object) -> None:
        """Remember the signal."""
        self.signal = signal.Signals(number).name

    def reason(self) -> str | None:
        """Return the signal's name, "walltime" from the deadline on, or None to go on."""
        return self.signal or ("walltime" if time.time() >= self.deadline else None)


def moment(text: str) -> float:
    """Read a deadline from the command line or the environment."""
    with suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r}, of the flag or of JOB_DEADLINE, is no number of seconds since the epoch")


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
    train(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
