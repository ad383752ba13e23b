"""Measure training on a GPU in at most eight minutes: `make bench-gpu`; what it measures and how to read it: README.md here.

    python tests/benchmarks/gpu.py [FOLDER]      tables into FOLDER (default: $OUT, or bench-gpu)

It needs torch, numpy, pandas, nibabel and monai alone, and no package mriflow installed. Every row is written when it is there:
what is cut off keeps what it has. What would not be done in time is left out, and named.
"""

import argparse
import gc
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import (
    AUGMENTATION,
    NO_AUGMENTATION,
    SFCN,
    SMALL_SFCN,
    Case,
    by_turns,
    limit,
    make_run,
    our_epoch,
    part_of,
    quiet,
    repeated,
    their_epoch,
    tutorial_loader,
    write_scans,
    write_shard,
)

from mriflow.training.device import choose_device
from mriflow.training.loader import Shards
from mriflow.training.loop import Part, Trainer
from mriflow.training.profiling import seconds_of
from mriflow.training.stop import StopFlag

OVER = 25  # seconds that a part may take longer than expected
EPOCH, TURNS = 1.0, 4  # seconds that are measured at once on a GPU, and how often
FILES = 8

LARGE, MIDDLE = (160, 192, 160), (96, 96, 96)
# Of each the seconds that it may take as it is, and compiled.
CASES = [
    (Case("SFCN", "SFCN", SFCN, LARGE, 8), 60, 75),
    (Case("SFCN", "SFCN", SFCN, MIDDLE, 16), 40, 60),
    (Case("DenseNet121", "DenseNet121", {}, MIDDLE, 16), 50, 120),
    (Case("DenseNet121", "DenseNet121", {}, LARGE, 8), 70, 120),
]
SMALL = [
    (Case("SFCN", "SFCN", {"channels": [8, 16, 8]}, (24, 28, 24), 4), 1, 1),
    (Case("DenseNet121, thin", "DenseNet121", {"init_features": 4, "growth_rate": 2}, (32, 32, 32), 2), 1, 1000),
]


class Tables:
    """The tables so far, as csv and Markdown in a folder, written anew with every row."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows, self.notes = folder, {}, []
        name = torch.cuda.get_device_name() if device.type == "cuda" else f"a CPU, {torch.get_num_threads()} threads"
        self.title = f"{name}; PyTorch {torch.__version__}, CUDA {torch.version.cuda}, {os.cpu_count()} CPUs"
        print(self.title, flush=True)

    def add(self, table: str, **row: object) -> None:
        """Add a row to a table."""
        self.rows.setdefault(table, []).append(row)
        print(f"{table}: {', '.join(map(str, row.values()))}", flush=True)
        self.write()

    def note(self, text: str) -> None:
        """Add a sentence."""
        self.notes.append(text)
        print(text, flush=True)
        self.write()

    def write(self) -> None:
        """Write all files."""
        text = [f"# {self.title}"]
        for name, rows in self.rows.items():
            table = pd.DataFrame(rows)
            table.to_csv(self.folder / f"{name}.csv", index=False)
            cells = [list(table), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
            text += [f"## {name}", "\n".join(f"| {' | '.join(row)} |" for row in cells)]
        text += [f"- {note}" for note in self.notes]
        (self.folder / "bench.md").write_text("\n\n".join(text) + "\n")


class Warnings(logging.Handler):
    """Keeps what is warned of: that a network cannot be compiled."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def measure_speed(case: Case, compiled: bool, paths: list[Path], tables: Tables, device: torch.device) -> None:
    """Measure our loop and MONAI's against the network alone; compiled, our loop alone.

    Parameters
    ----------
    case
        Network and grid.
    paths
        Scans as they were published.
    """
    warned = Warnings()
    logging.getLogger("mriflow").addHandler(warned)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(case, 100 * case.batch, device, folder, compile=compiled)
        run.steps = steps_of_an_epoch(run, case)
        scans = run.steps * case.batch
        shards = write_shard(paths, case.shape, folder)
        alone = "the network alone"
        ways = {alone: limit(run, case, run.steps), **our_ways(run, repeated(shards, scans))}
        by_turns(ways, 1, device)
        speeds = {title: scans / seconds for title, seconds in by_turns(ways, TURNS, device).items()}
        if not compiled:
            plain = make_run(case, 100 * case.batch, device, folder, mixed_precision="off")
            way = {f"{alone}, float32": limit(plain, case, run.steps)}
            by_turns(way, 1, device)
            speeds |= {title: scans / seconds for title, seconds in by_turns(way, 2, device).items()}
            for workers in sorted({2, os.cpu_count() or 2}):  # the tutorials', and all there are
                loader = tutorial_loader(paths * 4, case, workers)
                way = {f"MONAI tutorial, {workers} workers": partial(their_epoch, run, loader)}
                speeds |= {title: 4 * len(paths) / seconds for title, seconds in by_turns(way, 1, device).items()}
    logging.getLogger("mriflow").removeHandler(warned)
    failed = any("cannot be compiled" in text for text in warned.texts)
    for title, speed in speeds.items():
        tables.add(
            "speed",
            network=case.title,
            grid="x".join(map(str, case.shape)),
            batch=case.batch,
            way=title,
            precision="float32" if "float32" in title else str(run.precision).removeprefix("torch."),
            compiled=("failed" if failed else "yes") if compiled else "no",
            scans_a_second=f"{speed:.1f}",
            of_the_network_alone=f"{speed / speeds[alone]:.2f}",
            gpu_memory_gb=f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if device.type == "cuda" else "",
        )
    for text in warned.texts:
        tables.note(text)


def steps_of_an_epoch(run: Trainer, case: Case) -> int:
    """Return how many steps take about as long as is measured at once."""
    step = limit(run, case, 1)
    seconds_of(step, run.device)  # which looks for the fastest algorithms, or compiles
    seconds = min(seconds_of(step, run.device) for _ in range(3))
    return max(2, min(100, int(EPOCH / seconds))) if run.device.type == "cuda" else 2


def our_ways(run: Trainer, shards: Shards) -> dict[str, Callable[[], None]]:
    """Return what trains for an epoch with our loop, in several ways."""
    resident, streamed = part_of(shards, run.device), part_of(shards, run.device)
    streamed.scans.resident = None

    def ours(part: Part, augmentation: dict[str, float]) -> Callable[[], None]:
        def epoch() -> None:
            run.settings = run.settings | {"augmentation": augmentation}
            our_epoch(run, part)

        return epoch

    ways = {"ours, streamed": ours(streamed, AUGMENTATION)}
    if run.device.type == "cuda":
        ways |= {"ours, resident": ours(resident, AUGMENTATION)}
    return ways | {"ours, no augmentation": ours(resident, NO_AUGMENTATION)}


def compare_training(tables: Tables, device: torch.device) -> None:
    """Train on made-up heads, whose age widens a hole in them, on the CPU in float32 and on the device; compare the losses."""
    epochs, training, validation = 10, 64, 16
    case = Case("", "SFCN", SMALL_SFCN | {"dropout": 0.0}, (40, 48, 40), 8)  # dropout draws other numbers on a GPU
    ages, volumes = made_up_heads(training + validation, case.shape)
    histories = {}
    for title, where, mixed_precision in (
        ("CPU, float32", torch.device("cpu"), "off"),
        (f"{device.type}, float32", device, "off"),
        (f"{device.type}, auto", device, "auto"),
    ):
        parts = [
            part_of(Shards([some], {f"scan-{row}": (0, row) for row in range(len(some))}), where, of_some)
            for some, of_some in zip(np.split(volumes, [training]), np.split(ages, [training]), strict=True)
        ]
        with tempfile.TemporaryDirectory() as name:
            block = {"epochs": epochs, "learning_rate": 0.004, "mixed_precision": mixed_precision}
            run = make_run(case, training, where, Path(name), **block)
            while run.epoch < epochs:
                run.finish_epoch(run.run_epoch(*parts, StopFlag(None)))
            run.checkpoints.wait()
        histories[title] = run.table()
        torch.use_deterministic_algorithms(False)  # which is for a CPU
    for epoch in range(epochs):
        losses = {f"train_loss ({title})": f"{table['train_loss'][epoch]:.4f}" for title, table in histories.items()}
        errors = {f"val_mae ({title})": f"{table['val_mae'][epoch]:.2f}" for title, table in histories.items()}
        tables.add("training", epoch=epoch + 1, **losses, **errors)
    first, *others = (table["train_loss"].to_numpy() for table in histories.values())
    for title, losses in zip(list(histories)[1:], others, strict=True):
        apart = np.abs(losses - first).max() / first[0]
        tables.note(f"{title}: the training loss is nowhere further than {apart:.1%} of its beginning from that on the CPU.")
    guess = np.abs(ages[training:] - np.median(ages[:training])).mean()
    tables.note(f"A constant guess has a val_mae of {guess:.2f}.")


def made_up_heads(count: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return ages, and heads as preprocessing leaves them: noisy ellipsoids with a hole in the middle that grows with age."""
    rng = np.random.default_rng(0)
    ages = rng.uniform(20, 80, count)
    axes = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in shape), indexing="ij")
    distance = np.sqrt(sum(axis**2 for axis in axes))
    heads = 150 + rng.normal(0, 20, (count, *shape))
    heads[distance[None] < (0.1 + 0.006 * ages)[:, None, None, None]] -= 90
    return ages, (heads.clip(1, 255) * (distance < 1)).astype(np.uint8)


def end(tables: Tables, seconds: float) -> None:
    """End this process at once: compiling takes no notice of signals."""
    tables.note(f"Stopped after {seconds:.0f} seconds; what is in the tables is whole.")
    os._exit(0)


def main() -> None:
    """Measure what there is time for."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("OUT", "bench-gpu"), help="for the tables")
    parser.add_argument("--small", action="store_true", help="tiny networks and grids, on a CPU too: does it run?")
    parser.add_argument("--seconds", type=float, default=450, help="no part is begun that would end later; default: 450")
    given = parser.parse_args()
    quiet()
    logging.disable(logging.INFO)  # that a network cannot be compiled is a warning
    logging.getLogger("mriflow").propagate = False
    device = choose_device()
    if device.type == "cpu" and not given.small:
        parser.error("this PyTorch sees no GPU. --small tries everything on the CPU, with tiny networks and grids.")
    tables = Tables(Path(given.folder), device)
    watch = threading.Timer(given.seconds + OVER, end, [tables, given.seconds + OVER])
    watch.daemon = True
    watch.start()
    with tempfile.TemporaryDirectory() as name:
        paths = write_scans(Path(name), 2, (64, 64, 40)) if given.small else write_scans(Path(name), FILES)
        speed = partial(measure_speed, paths=paths, tables=tables, device=device)
        cases = SMALL if given.small else CASES
        parts = [(f"{case.title}, {case.shape}", seconds, partial(speed, case, False)) for case, seconds, _ in cases]
        parts.insert(2, ("training, CPU against GPU", 20, partial(compare_training, tables, device)))
        parts += [(f"{case.title}, {case.shape}, compiled", seconds, partial(speed, case, True)) for case, _, seconds in cases]
        for title, seconds, part in parts:
            if time.monotonic() - began + seconds > given.seconds:
                tables.note(f"Left out for lack of time: {title}.")
                continue
            try:
                part()
            except Exception as error:  # one part that fails must not cost the others
                tables.note(f"{title}: failed: {str(error).strip().splitlines()[0] if str(error) else type(error).__name__}")
            gc.collect()
            torch.compiler.reset()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    tables.note(f"All of it took {time.monotonic() - began:.0f} seconds.")


if __name__ == "__main__":
    main()
