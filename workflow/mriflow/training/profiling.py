"""Where the time of a training goes."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import islice

import torch

from mriflow.training.loop import Part, Run

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


def steps_of(run: Run, part: Part, count: int) -> None:
    """Train for some steps, over as many epochs as that takes."""
    run.net.train()
    while count:
        made = sum(1 for _ in islice(run.train_steps(part), count))
        count -= made
        run.step = run.step % run.steps


def profile_training(run: Run, part: Part) -> None:
    """Print where the time of a step goes: as it is trained, and part by part; nothing is written but to `run.work`.

    Of several processes all train, and the first prints its own figures.
    """
    device = run.device
    steps_of(run, part, WARM_UP)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    whole = seconds_of(lambda: steps_of(run, part, STEPS), device) / STEPS
    run.clock = timer = PhaseTimer(device)
    steps_of(run, part, STEPS)
    run.clock = lambda name: nullcontext()

    chosen = torch.arange(len(part.scans))[: run.batch]
    read = seconds_of(lambda: part.scans.read(chosen), device)
    volumes = part.scans.read(chosen)
    copy = seconds_of(lambda: volumes.to(device), device)
    saving = seconds_of(run.save, device)
    writing = seconds_of(run.checkpoints.wait, device)

    if run.team.rank:
        return
    print(f"{'ms a step':>12}{'share':>8}")
    for name, seconds in timer.seconds.items():
        print(f"{1000 * seconds / STEPS:12.1f}{seconds / sum(timer.seconds.values()):8.1%}  {name}")
    print(f"{1000 * sum(timer.seconds.values()) / STEPS:12.1f}          these one after the other")
    print(f"{1000 * whole:12.1f}          as it is trained: {run.batch / whole:.1f} scans a second, in batches of {run.batch}")
    if part.scans.resident is None:
        print(f"{1000 * read:12.1f}          reading a batch from the shards, beside the step")
        print(f"{1000 * copy:12.1f}          copying it to the {device.type}, beside the step")
    epoch = run.steps * whole
    waits = saving / (epoch + saving)
    print(f"{1000 * saving:12.1f}          checkpoint: training waits so long, {waits:.2%} of an epoch of {run.steps} steps")
    print(f"{1000 * writing:12.1f}          writing it, beside the steps")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        peak = torch.cuda.max_memory_allocated(device)
        print(f"GPU memory: {peak / 1e9:.1f} GB at most for tensors, {(total - free) / 1e9:.1f} of {total / 1e9:.1f} GB in use")
        with suppress(Exception):  # it takes NVIDIA's own library, pynvml, and a card that tells
            print(f"GPU use: {torch.cuda.utilization(device)} % a moment ago")
