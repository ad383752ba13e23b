"""The training loop, from one epoch to the next, and how its state is saved.

What is drawn at random follows from seed, epoch and step alone: a training that goes on in the middle of an epoch draws what
it would have drawn, and the batch of a step is the same however many processes or parts share it.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd
import torch
from torch import nn

from mriflow.base.cli import progress
from mriflow.base.errors import UserError
from mriflow.base.files import write_json
from mriflow.training.augment import Changes, augment, draw_changes, moved_maps
from mriflow.training.averaging import RunningMean, recalibrate
from mriflow.training.checkpoint import Checkpoints, on_cpu
from mriflow.training.distributed import Team, share
from mriflow.training.forward import autocast, compiled, cpu_has_bfloat16, out_of_memory, outputs_of, run_network
from mriflow.training.freezing import train_mode
from mriflow.training.loader import Batch, ScanLoader
from mriflow.training.memory import MemoryTrial, batch_sizes
from mriflow.training.objectives import Objective, Segmentation
from mriflow.training.optimizers import make_optimizer, make_schedule
from mriflow.training.patches import over_windows, random_patches
from mriflow.training.plan import generator, places_of_process, seed_of, shares_of_steps
from mriflow.training.stop import StopFlag
from mriflow.training.synthesis import generate

log = logging.getLogger(__name__)


Clock = Callable[[str], AbstractContextManager]

AVERAGED = 0.25  # share of the epochs, the last ones, over which `select: average` averages the weights
STATISTICS = 64  # training scans from which batch norm takes its statistics
SAMPLE = 20  # unchanged training scans that are looked at after every epoch, if there is no validation part


class Part(NamedTuple):
    """The training or validation part of a fold: its scans, their labels as they stand in labels.csv, their ids."""

    scans: ScanLoader
    labels: np.ndarray
    ids: list[str]


class Diverged(UserError):
    """A loss that is no number any more."""


class Trainer:
    """One training: what changes from step to step, and how it is saved.

    Parameters
    ----------
    net
        On the device.
    objective
        What it is to learn.
    settings
        The training block.
    scans
        Number of training scans.
    work
        Folder of checkpoint and logs.
    settings_hash
        Of data and settings: a checkpoint of others is not loaded.
    seed
        Of order, augmentation and dropout.
    team
        The processes that train together.
    voxel_mm
        Edge of a voxel, mm.
    image
        The channel whose intensities augmentation may change, if there is one.
    precision
        Of the network's arithmetic (`mriflow.training.forward.precision`). On a CPU a training goes on in the one in which it
        was begun.
    clock
        Given the name of a phase of the step, measures how long it takes; by default nothing is measured.

    Raises
    ------
    UserError
        If a batch cannot be shared evenly by the processes.
    """

    def __init__(
        self,
        net: nn.Module,
        objective: Objective,
        settings: dict[str, Any],
        scans: int,
        work: Path,
        settings_hash: str,
        seed: int,
        team: Team,
        voxel_mm: float,
        image: int | None = 0,
        precision: torch.dtype = torch.float32,
        clock: Clock = lambda phase: nullcontext(),
    ) -> None:
        self.net, self.objective, self.settings, self.seed, self.team = net, objective, settings, seed, team
        self.work, self.clock, self.device, self.voxel_mm, self.image = work, clock, team.device, voxel_mm, image
        self.checkpoints = Checkpoints(work, settings_hash)
        self.batch, self.micro_batch = batch_sizes(settings, scans, team.size)
        self.steps = scans // self.batch  # the incomplete batch at the end of an epoch's order is left out
        self.optimizer = make_optimizer(net, settings)
        self.schedule = make_schedule(self.optimizer, settings, self.steps)
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.shared = share(net, team) if team.size > 1 else None
        self.forward = compiled(self.shared or net) if settings["compile"] else self.shared or net
        self.epoch = self.step = self.best_epoch = 0
        self.loss_sum = torch.zeros((), device=self.device)
        self.best_loss = float("inf")
        self.best_weights: dict[str, torch.Tensor] = {}
        self.average = RunningMean()
        self.history: list[dict[str, float]] = []
        self.saved_at = time.monotonic()
        self.memory = MemoryTrial(net, self.device, precision)

    def train(self, training: Part, validation: Part, stop: StopFlag) -> None:
        """Train from the checkpoint, or the beginning, to the last epoch or early stopping."""
        self.resume()
        first = self.team.rank == 0
        writer = make_writer(self.work, self.epoch) if first else None
        bar = progress(total=self.settings["epochs"], initial=self.epoch, desc="train", unit="epoch", disable=not first)
        while self.epoch < self.settings["epochs"] and not self.stale():
            if reason := self.team.agree(stop.reason()):
                self.leave(reason)  # nothing was done since the checkpoint
            row = self.run_epoch(training, validation, stop)
            self.finish_epoch(row)
            if writer:
                for name, value in row.items():
                    writer.add_scalar(name, value, self.epoch)
            bar.update()
            bar.set_postfix({name: f"{value:.3g}" for name, value in row.items() if name not in ("epoch", "learning_rate")})
        bar.close()
        if writer:
            writer.close()
        self.checkpoints.wait()
        self.select(training)

    def run_epoch(self, training: Part, validation: Part, stop: StopFlag) -> dict[str, float]:
        """Train the rest of an epoch, and return its row of the history.

        Raises
        ------
        UserError
            If a batch does not fit into memory, or several processes cannot train this network.
        """
        try:
            self.train_epoch(training, stop)
            return self.row(training, validation)
        except (RuntimeError, MemoryError) as error:
            if "finished reduction in the prior iteration" in str(error):
                text = "this network has parameters that its output does not depend on"
                raise UserError(f"{text}: several GPUs cannot train it. Set `gpu: 1` in the training block.") from error
            if not out_of_memory(error):
                raise
            failed = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        # Out of the except block, which holds the memory of the step that failed.
        self.forward = self.net  # what was compiled or shared among processes is let go
        raise UserError(self.memory.advice(self.micro_batch, self.settings, training.scans, self.team.size, failed))

    def train_epoch(self, training: Part, stop: StopFlag) -> None:
        """Make the remaining steps of an epoch; save when it is time, leave when asked to."""
        train_mode(self.net)
        for _ in self.train_steps(training):
            due = time.monotonic() - self.saved_at > 60 * self.settings["checkpoint_minutes"]
            reason = self.team.agree(stop.reason() or ("save" if due else None))
            if reason:
                self.save()
            if reason and reason != "save":
                self.leave(reason)

    def train_steps(self, training: Part) -> Iterator[None]:
        """Make the remaining steps of an epoch, one at a time."""
        scans, team = training.scans, self.team
        pieces = self.batch // self.micro_batch // team.size  # of a batch, one after the other
        # Of the whole epoch, in all processes alike: shapes (steps * batch, ...).
        draws = generator(self.seed, self.epoch)
        order = torch.randperm(len(scans), generator=draws)[: self.steps * self.batch]
        changes = draw_changes(len(order), self.voxel_mm, self.settings["augmentation"], draws)
        weights = shares_of_steps(self.objective.weights(scans.labels[order]), self.steps)
        # What is left of it for this process, from the step on where the checkpoint stands.
        mine = places_of_process(self.steps, pieces, self.micro_batch, team)[self.step :].flatten()
        # Gradients are averaged over the processes, and summed over the pieces.
        changes, weights = changes.at(mine).to(self.device), weights[mine].to(self.device) * team.size

        batches = scans.batches(order[mine], self.micro_batch)
        start = 0
        while self.step < self.steps:
            torch.manual_seed(seed_of(self.seed, self.epoch, self.step + 1, team.rank))  # of dropout
            step_loss = torch.zeros((), device=self.device)
            for number in range(1, pieces + 1):
                piece = slice(start, start + self.micro_batch)
                with self.clock("input"):
                    batch = next(batches)
                with self.clock("augment"):
                    batch = self.changed(batch, changes.at(piece))
                with self.synchronised(number == pieces):
                    with self.clock("forward"):
                        loss, followed = self.losses(batch, weights[piece])
                    with self.clock("backward"):
                        self.scaler.scale(loss).backward()
                step_loss += followed / team.size
                start += self.micro_batch
            with self.clock("optimiser"):
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.optimizer.zero_grad(set_to_none=True)
                self.schedule.step()
                self.loss_sum += team.total(step_loss)
            self.step += 1
            yield

    def changed(self, batch: Batch, changes: Changes) -> Batch:
        """Return a batch with its changes, label maps with their images; of generated images and of patches if asked for."""
        images, labels = batch.images, batch.labels
        if isinstance(self.objective, Segmentation):
            if settings := self.settings.get("synthesis"):
                images, labels = generate(
                    images, labels, changes.seeds.tolist(), self.objective.classes, settings, self.voxel_mm
                )
            labels = moved_maps(labels, changes, self.settings["augmentation"])
        batch = batch._replace(images=augment(images, changes, self.settings["augmentation"], self.image), labels=labels)
        patch = self.settings.get("patch")
        return random_patches(batch, changes.seeds.tolist(), patch) if patch else batch

    def losses(self, batch: Batch, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a piece of a batch adds to the step's loss, and of that the target's own part, which is followed."""
        with autocast(self.device, self.precision):
            outputs = outputs_of(self.forward, batch)
        weighted = self.objective.losses(outputs, batch.labels) * weights
        return weighted.sum(), weighted[:, 0].detach().sum()

    def synchronised(self, last: bool) -> AbstractContextManager:
        """Let the processes exchange their gradients with the last piece of a batch only."""
        return self.shared.no_sync() if self.shared and not last else nullcontext()

    def row(self, training: Part, validation: Part) -> dict[str, float]:
        """Return the epoch's row of the history."""
        recalibrate(self.net, self.for_statistics(training), self.precision)
        self.team.copy_first(self.net.buffers())
        row = {
            "epoch": self.epoch + 1,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": self.loss_sum.item() / self.steps,
        }
        row |= self.scores("unchanged", training, sample(training, len(validation.ids)))
        if validation.ids:
            row |= self.scores("val", validation, torch.arange(len(validation.ids)))
        return row

    def for_statistics(self, training: Part) -> Iterator[Batch]:
        """Yield the batches from which batch norm takes its statistics: the same after every epoch, changed as in training."""
        scans, size = training.scans, self.micro_batch
        count = min(len(scans), max(STATISTICS, size))
        count = count // size * size or count  # batch norm takes no batch of one
        changes = draw_changes(count, self.voxel_mm, self.settings["augmentation"], generator(self.seed)).to(self.device)
        positions = torch.linspace(0, len(scans) - 1, count).round().long()
        for start, batch in zip(range(0, count, size), scans.batches(positions, size), strict=True):
            yield self.changed(batch, changes.at(slice(start, start + size)))

    def scores(self, name: str, part: Part, positions: torch.Tensor) -> dict[str, float]:
        """Return loss and metrics, each by its name after `name`, on some scans of a part as they are."""
        mine = positions[self.team.share(len(positions))]
        some = mine if len(mine) else positions[:1]  # a process that has none, too, for networks refuse an empty batch
        patch = self.settings.get("patch")
        self.net.eval()
        at_once = 1 if patch else self.micro_batch  # a patch is taken because whole scans do not fit
        outputs = run_network(
            over_windows(self.net, patch), part.scans, at_once, some, self.precision, keep=self.objective.kept
        )
        outputs = self.team.join(outputs[: len(mine)])
        outputs = outputs.cpu()  # where the same numbers give the same loss, and end of training, in all processes
        scores = {"loss": self.objective.loss(outputs, part.scans.labels[positions]).item()}
        self.refuse_divergence(scores["loss"])
        scores |= self.objective.metrics(self.objective.predict(outputs), part.labels[positions])
        return {f"{name}_{metric}": value for metric, value in scores.items()}

    def finish_epoch(self, row: dict[str, float]) -> None:
        """Take note of an epoch and save."""
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum.zero_()
        if self.settings["select"] == "best" and row["val_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = row["val_loss"], self.epoch
            self.best_weights = on_cpu(self.net.state_dict())
        if self.settings["select"] == "average" and self.epoch > (1 - AVERAGED) * self.settings["epochs"]:
            self.average.add(self.net.state_dict())
        self.save()

    def select(self, training: Part) -> None:
        """Give the network the weights that are the result of the training."""
        match self.settings["select"]:
            case "best":
                self.net.load_state_dict(self.best_weights)
                log.info("best epoch: %d of %d (validation loss %.4f)", self.best_epoch, self.epoch, self.best_loss)
            case "average":
                self.net.load_state_dict(self.average.mean)
                recalibrate(self.net, self.for_statistics(training), self.precision)
                self.best_epoch = self.epoch
                log.info("weights averaged over the last %d of %d epochs", self.average.count, self.epoch)
            case _:
                self.best_epoch = self.epoch
                log.info("weights after the last epoch, %d", self.epoch)

    def refuse_divergence(self, other_loss: float = 0.0) -> None:
        """Raise `Diverged`, before anything is saved, if a loss is no number any more; asking every step would cost time."""
        loss = self.loss_sum.item() + other_loss
        if not np.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} in epoch {self.epoch + 1}: training diverged. Lower "
                "`learning_rate` of the experiment's training block (try a tenth)."
            )

    def stale(self) -> bool:
        """Return whether the validation loss has not fallen for as many epochs as early stopping allows."""
        patience = self.settings["early_stopping"]
        return bool(patience) and self.epoch - self.best_epoch >= patience

    def table(self) -> pd.DataFrame:
        """Return the history so far."""
        return pd.DataFrame(self.history)

    def save(self) -> None:
        """Save the checkpoint; it is written while the training goes on."""
        self.refuse_divergence()
        self.saved_at = time.monotonic()
        if self.team.rank:
            return
        with self.clock("checkpoint"):
            self.checkpoints.save(
                {
                    "net": self.net.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "loss_sum": self.loss_sum,
                    "processes": self.team.size,
                    "device": self.device.type,
                    "precision": str(self.precision).removeprefix("torch."),
                    "average": self.average.state(),
                    **{name: getattr(self, name) for name in SAVED},
                }
            )

    def leave(self, reason: str) -> NoReturn:
        """End a run whose checkpoint is saved; note why, and where, so that two stops tell whether there was progress."""
        self.checkpoints.wait()
        if self.team.rank == 0:
            write_json({"reason": reason, "epoch": self.epoch, "step": self.step}, self.work / "stopped.json")
            log.warning("stopped by %s in epoch %d, step %d; saved", reason, self.epoch + 1, self.step)
        self.team.wait()  # the launcher ends all when one ends
        raise KeyboardInterrupt

    def resume(self) -> None:
        """Go back to the state of the checkpoint, if there is one of this very run."""
        saved = self.checkpoints.load() if self.team.rank == 0 else None
        self.team.wait()
        if self.team.rank:
            saved = self.checkpoints.load()
        if saved is None:
            return
        if saved["processes"] != self.team.size:
            raise UserError(
                f"{self.checkpoints.last}: this training was begun by {saved['processes']} process(es), and cannot go on with "
                f"{self.team.size}: dropout would draw other numbers. Set `gpu` of the training block back, or delete "
                f"{self.work} to start anew."
            )
        if saved["device"] != self.device.type:
            log.warning("begun on %s, going on on %s: the same but for rounding and noise", saved["device"], self.device.type)
        elif self.device.type == "cpu":
            self.go_on_in(getattr(torch, saved.get("precision", "float32")))
        self.net.load_state_dict(saved["net"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        if self.scaler.is_enabled() and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.loss_sum.copy_(saved["loss_sum"])
        self.average = RunningMean(**saved["average"])
        for name in SAVED:
            setattr(self, name, saved[name])
        log.info("going on after epoch %d, step %d", self.epoch, self.step)

    def go_on_in(self, precision: torch.dtype) -> None:
        """Take the precision in which a training was begun on another processor."""
        if precision == torch.bfloat16 and not cpu_has_bfloat16():
            log.warning(
                "begun in bfloat16, which this processor lacks: going on in it, slowly. To begin anew in float32, delete %s",
                self.work,
            )
        self.precision = self.memory.precision = precision


def sample(training: Part, validation: int) -> torch.Tensor:
    """Return which training scans, the same after every epoch, are looked at as they are: as many as validation has."""
    count = min(len(training.ids), validation or SAMPLE)
    return torch.linspace(0, len(training.ids) - 1, count).round().long()


# What a checkpoint holds of a Trainer beside the states of network, optimiser and schedule.
SAVED = ("epoch", "step", "best_loss", "best_epoch", "best_weights", "history")


def make_writer(work: Path, epoch: int) -> Any:
    """Return what writes TensorBoard's logs from after `epoch` on."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(work / "tensorboard"), purge_step=epoch + 1)
