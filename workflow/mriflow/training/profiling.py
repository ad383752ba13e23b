"""Where the time of a training goes."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice

import torch

from mriflow.training.freezing import train_mode
from mriflow.training.loop import Part, Trainer

WARM_UP, STEPS = 3, 10


class PhaseTimer:
    """Adds up how long each part of a step takes; a GPU is waited for at both ends, so parts do not overlap."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        wait_for(self.device)
        start = time.perf_counter()
        yield
        wait_for(self.device)
        self.seconds[part] += time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return how long `work` takes."""
    wait_for(device)
    start = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - start


def steps_of(trainer: Trainer, part: Part, count: int) -> None:
    """Train for some steps, over as many epochs as that takes."""
    train_mode(trainer.net)
    while count:
        made = sum(1 for _ in islice(trainer.train_steps(part), count))
        count -= made
        trainer.step = trainer.step % trainer.steps


def profile_training(trainer: Trainer, part: Part) -> None:
    """Print where the time of a step goes: as it is trained, and part by part; nothing is written but to `trainer.work`.

    Of several processes all train, and the first prints its own times.
    """
    device = trainer.device
    steps_of(trainer, part, WARM_UP)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    whole = seconds_of(lambda: steps_of(trainer, part, STEPS), device) / STEPS
    trainer.clock = timer = PhaseTimer(device)
    steps_of(trainer, part, STEPS)
    trainer.clock = lambda name: nullcontext()

    chosen = torch.arange(len(part.scans))[: trainer.batch]
    read = seconds_of(lambda: part.scans.read(chosen), device)
    volumes = part.scans.read(chosen)
    copy = seconds_of(lambda: volumes.to(device), device)
    saving = seconds_of(trainer.save, device)
    writing = seconds_of(trainer.checkpoints.wait, device)

    if trainer.team.rank:
        return
    phases = sum(timer.seconds.values())
    epoch = trainer.steps * whole
    print(f"{'ms a step':>12}{'share':>8}")
    for name, seconds in timer.seconds.items():
        print_line(seconds / STEPS, name, f"{seconds / phases:.1%}")
    print_line(phases / STEPS, "these one after the other")
    print_line(whole, f"as it is trained: {trainer.batch / whole:.1f} scans a second, in batches of {trainer.batch}")
    if part.scans.resident is None:
        print_line(read, "reading a batch from the shards, beside the step")
        print_line(copy, f"copying it to the {device.type}, beside the step")
    waits = f"checkpoint: training waits so long, {saving / (epoch + saving):.2%} of an epoch of {trainer.steps} steps"
    print_line(saving, waits)
    print_line(writing, "writing it, beside the steps")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        peak = torch.cuda.max_memory_allocated(device)
        print(f"GPU memory: {peak / 1e9:.1f} GB at most for tensors, {(total - free) / 1e9:.1f} of {total / 1e9:.1f} GB in use")
        with suppress(Exception):  # it takes NVIDIA's own library, pynvml, and a card that tells
            print(f"GPU use: {torch.cuda.utilization(device)} % a moment ago")


def print_line(seconds: float, text: str, share: str = "") -> None:
    """Print a line of the table: milliseconds, share of the step, what they were spent on."""
    print(f"{1000 * seconds:12.1f}{share:>8}  {text}")
