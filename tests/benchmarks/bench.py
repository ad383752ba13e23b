"""Measure speed as ratios within one run, for machines are noisy: `make bench`; results and how to read them: README.md here.

    python tests/benchmarks/bench.py [PART ...]     all parts, or some of: input epochs scaling checkpoint plan preprocess

On a machine with a GPU everything is measured there, and SFCN at 1 mm beside it.
"""

import argparse
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import psutil
import torch
import yaml
from torch.utils.data import DataLoader

ROOT = Path(__file__).parents[2]
os.environ["NUMEXPR_MAX_THREADS"] = str(os.cpu_count())

from mriflow.config.resolve import filled  # noqa: E402
from mriflow.images import mask, registration, scan, tissues  # noqa: E402
from mriflow.images.nifti import load_scan  # noqa: E402
from mriflow.training.device import choose_device  # noqa: E402
from mriflow.training.distributed import Team  # noqa: E402
from mriflow.training.loader import ScanLoader, Shards  # noqa: E402
from mriflow.training.loop import Part, Trainer  # noqa: E402
from mriflow.training.networks import build_network  # noqa: E402
from mriflow.training.objectives import Regression  # noqa: E402
from mriflow.training.profiling import seconds_of  # noqa: E402
from mriflow.training.setup import seed_everything  # noqa: E402
from mriflow.training.stop import StopFlag  # noqa: E402

SCANS = 8
WORKERS = {"num_workers": 2, "multiprocessing_context": "fork"}  # as in the tutorials; a process begun by spawn would spawn


class Case(NamedTuple):
    """What is trained: a network on a grid, in batches."""

    title: str
    network: str
    arguments: dict
    shape: tuple[int, int, int]
    batch: int
    compile: bool = False


SFCN = {"channels": [32, 64, 128, 256, 256, 64]}
REGRESSOR = {"channels": [16, 32, 64, 128, 256], "strides": [2] * 4}
# Networks, size and batch of the MONAI tutorials on IXI; then ours.
CASES = [
    Case("tutorial, classification: DenseNet121, 96x96x96", "DenseNet121", {}, (96, 96, 96), 2),
    Case("tutorial, regression: Regressor, 96x96x96", "Regressor", REGRESSOR, (96, 96, 96), 2),
    Case("SFCN, 4 mm: 40x48x40", "SFCN", SFCN, (40, 48, 40), 4),
    Case("SFCN, 2 mm: 80x96x80", "SFCN", SFCN, (80, 96, 80), 4),
]  # fmt: skip
GPU_CASES = [
    Case("SFCN, 1 mm: 160x192x160", "SFCN", SFCN, (160, 192, 160), 8),
    Case("SFCN, 1 mm, compiled", "SFCN", SFCN, (160, 192, 160), 8, compile=True),
]


def settings(**changes: object) -> dict:
    """Return a training block with all defaults and `changes`."""
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    block = schema["properties"]["training"]["additionalProperties"]
    return filled({"epochs": 1000, "batch_size": 2, "learning_rate": 1e-5} | changes, block)


def write_scans(folder: Path, count: int = SCANS) -> list[Path]:
    """Write heads with the size, voxels and noise of IXI's: 256x256x150, int16, gzipped."""
    rng = np.random.default_rng(0)
    head = np.asarray(registration.template().dataobj, np.float32)
    grid = np.ix_(*(np.linspace(0, n - 1, m).astype(int) for n, m in zip(head.shape, (256, 256, 150), strict=True)))
    paths = []
    for number in range(count):
        voxels = head[grid] * 800 + np.abs(rng.normal(0, 12, (256, 256, 150)))
        paths.append(folder / f"IXI{number:03d}.nii.gz")
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([0.9375, 0.9375, 1.2, 1])), paths[-1])
    return paths


def always(case: Case) -> list:
    """Return the tutorial's transforms that give the same in every epoch."""
    from monai.transforms import EnsureChannelFirst, LoadImage, Resize, ScaleIntensity

    return [LoadImage(image_only=True), ScaleIntensity(), EnsureChannelFirst(), Resize(case.shape)]


def like_ours() -> list:
    """Return MONAI's transforms that change what ours do, by as much, one scan at a time."""
    from monai.transforms import RandAdjustContrast, RandAffine, RandFlip, RandGaussianNoise

    turn = [np.deg2rad(5)] * 3
    moves = RandAffine(1.0, rotate_range=turn, translate_range=[2] * 3, scale_range=[0.05] * 3, padding_mode="zeros")
    return [RandFlip(0.5, 0), moves, RandAdjustContrast(1.0, (0.9, 1.1)), RandGaussianNoise(1.0, std=0.03)]


def cached(paths: list[Path], case: Case, random: list) -> object:
    """Return a CacheDataset, filled."""
    from monai.data import CacheDataset
    from monai.transforms import Compose

    return CacheDataset(paths, Compose([*always(case), *random]), progress=False)


def tutorial_loaders(paths: list[Path], case: Case, folder: Path) -> dict[str, Iterable]:
    """Return the ways of MONAI's tutorials and recipes to deliver these scans, with the tutorial's transforms and workers."""
    from monai.data import Dataset, PersistentDataset
    from monai.transforms import Compose, RandRotate90

    transforms = Compose([*always(case), RandRotate90(spatial_axes=(0, 2))])
    made = {"tutorial": Dataset(paths, transforms), "PersistentDataset": PersistentDataset(paths, transforms, folder)}
    loaders: dict[str, Iterable] = {
        name: DataLoader(dataset, case.batch, shuffle=True, **WORKERS) for name, dataset in made.items()
    }
    return loaders | {"CacheDataset": LateCache(lambda: cached(paths, case, [RandRotate90(spatial_axes=(0, 2))]), case.batch)}


class LateCache:
    """A loader over a CacheDataset that is made, and so filled, when its first epoch begins."""

    def __init__(self, make: Callable[[], object], batch: int) -> None:
        self.make, self.batch, self.loader = make, batch, None

    def __iter__(self) -> object:
        self.loader = self.loader or DataLoader(self.make(), self.batch, shuffle=True, **WORKERS)
        return iter(self.loader)


def write_shard(paths: list[Path], shape: tuple[int, ...], folder: Path) -> Shards:
    """Write the same scans, with the tutorial's transforms done once, as preprocessing leaves them; map them."""
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize, ScaleIntensity

    once = Compose([LoadImage(image_only=True), ScaleIntensity(0, 255), EnsureChannelFirst(), Resize(shape)])
    np.save(folder / "shard.npy", np.stack([np.asarray(once(path))[0].round().astype(np.uint8) for path in paths]))
    array = np.load(folder / "shard.npy", mmap_mode="r")
    return Shards([array], {path.name: (0, row) for row, path in enumerate(paths)})


def make_run(case: Case, count: int, device: torch.device, folder: Path, **changes: object) -> Trainer:
    """Return a training that has not begun."""
    seed_everything(0, device)
    net = build_network(case.network, case.arguments, 1, case.shape).to(device, memory_format=torch.channels_last_3d)
    block = settings(batch_size=case.batch, compile=case.compile, **changes)
    return Trainer(net, Regression("l2", 50, 15), block, count, folder, "bench", 0, Team(device))


def repeated(shards: Shards, times: int) -> Shards:
    """Return shards that name each of their scans several times: more steps an epoch, for a GPU makes them in no time."""
    return Shards(
        shards.arrays, {f"{scan} {number}": place for number in range(times) for scan, place in shards.places.items()}
    )


def part_of(shards: Shards, device: torch.device) -> Part:
    """Return all scans of some shards, with made-up ages."""
    return Part(ScanLoader(shards, list(shards), device), np.linspace(20, 80, len(shards)), list(shards))


def our_epoch(run: Trainer, part: Part) -> None:
    """Train for one epoch, all but validation and saving."""
    run.step = 0
    run.run_epoch(part, StopFlag(None))


def resident_epoch(run: Trainer, batch: torch.Tensor, encoded: torch.Tensor, steps: int) -> None:
    """Train on a batch that is on the device already."""
    run.net.train()
    for _ in range(steps):
        run.scaler.scale(run.loss(batch, encoded)).backward()
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)


def limit(run: Trainer, case: Case, scans: int, device: torch.device) -> Callable[[], None]:
    """Return what trains for one epoch of `scans` on a random batch that is on the device already."""
    batch = torch.rand(case.batch, 1, *case.shape, device=device).contiguous(memory_format=torch.channels_last_3d)
    return partial(resident_epoch, run, batch, torch.zeros(case.batch, 1, device=device), scans // case.batch)


def their_epoch(run: Trainer, loader: Iterable, device: torch.device) -> None:
    """Train for one epoch on what a loader delivers, with the same network, precision and optimiser."""
    run.net.train()
    for scans in loader:
        batch = torch.as_tensor(scans).to(device)
        encoded = torch.zeros(len(batch), 1, device=device)
        resident_epoch(run, batch.contiguous(memory_format=torch.channels_last_3d), encoded, 1)


def their_epochs(paths: list[Path], case: Case, folder: Path, device: torch.device) -> dict[str, tuple[float, float]]:
    """Return the seconds of the first and of a later epoch each of the other ways, and those of the limit in this process."""
    if device.type == "cuda":
        choose_device()  # with its settings of cuDNN; a CPU is left as a user finds it
    run = make_run(case, len(paths), device, folder)
    ways = {"the limit, in a process like those below": limit(run, case, len(paths), device)}
    for title, loader in tutorial_loaders(paths, case, folder).items():
        ways[title] = partial(their_epoch, run, loader, device)
    return {title: first_and_later(way, device) for title, way in ways.items()}


def their_input(paths: list[Path], case: Case, folder: Path) -> dict[str, tuple[float, float, float]]:
    """Return, for each of the other ways, the seconds of a first and a later epoch without a network, and the MB it adds."""
    found = {}
    loaders = tutorial_loaders(paths, case, folder)
    loaders["CacheDataset, augmentation like ours"] = LateCache(lambda: cached(paths, case, like_ours()), case.batch)
    for title, loader in loaders.items():
        before = memory()
        seconds = first_and_later(lambda: sum(1 for _ in loader), torch.device("cpu"))  # noqa: B023
        found[title] = (*seconds, memory() - before)
    return found


def first_and_later(way: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the seconds of the first time and the shortest of two later times."""
    return seconds_of(way, device), min(seconds_of(way, device) for _ in range(2))


def in_other_process(work: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a process that handles memory as usual: this one keeps what it frees, which slows forked workers."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=quiet) as other:
        return other.submit(work, *arguments).result()


def memory() -> float:
    """Return the memory of this process and its children that is not the system's cache of files, in MB."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous:"))
    return total / 1000


def measure_input(device: torch.device) -> None:
    """Print how long each way takes to deliver a sample, without a network."""
    print("\n## Input: milliseconds a sample, 96x96x96, batches of 2\n")
    print("| way | first epoch | later epochs | times ours without augmentation | memory it adds, MB |\n|---|---|---|---|---|")
    case = CASES[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_scans(folder)
        run = make_run(case, SCANS, device, folder)
        part = part_of(write_shard(paths, case.shape, folder), device)
        run.loss = lambda batch, encoded: batch.sum() * next(run.net.parameters()).sum()  # no network to speak of
        bare = make_run(case, SCANS, device, folder, augmentation=dict.fromkeys(settings()["augmentation"], 0.0))
        bare.loss = run.loss
        rows = {}
        for title, ours in {"ours, no augmentation": bare, "ours, all our augmentation": run}.items():
            before = memory()
            seconds = first_and_later(lambda: our_epoch(ours, part), device)  # noqa: B023
            rows[title] = (*seconds, memory() - before)
        rows |= in_other_process(their_input, paths, case, folder / "cache")
        fastest = rows["ours, no augmentation"][1]
        for title, (first, later, added) in rows.items():
            times = f"{1000 * first / SCANS:.0f} | {1000 * later / SCANS:.0f} | {later / fastest:.1f}"
            print(f"| {title} | {times} | {max(0, added):.0f} |", flush=True)


def measure_epochs(device: torch.device) -> None:
    """Print how long an epoch of training takes each way, and how near that is to the network alone."""
    print(f"\n## Epochs of {SCANS} scans (on a GPU {40 * SCANS}); the limit is the network alone, on a batch that is there\n")
    print("| network, grid | way | first epoch, s | later, s | scans a second | of the limit |\n|---|---|---|---|---|---|")
    for case in CASES + (GPU_CASES if device.type == "cuda" else []):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = write_scans(folder)
            times = 40 if device.type == "cuda" else 1
            scans = SCANS * times
            off = dict.fromkeys(settings()["augmentation"], 0.0)
            part = part_of(repeated(write_shard(paths, case.shape, folder), times), device)
            run, bare = make_run(case, scans, device, folder), make_run(case, scans, device, folder, augmentation=off)
            ways: dict[str, Callable[[], object]] = {
                "the limit": limit(run, case, scans, device),
                "ours, no augmentation": lambda: our_epoch(bare, part),  # noqa: B023
                "ours, all our augmentation": lambda: our_epoch(run, part),  # noqa: B023
            }
            first = {title: seconds_of(way, device) for title, way in ways.items()}
            later = {title: seconds_of(way, device) for title, way in ways.items()}
            turns = max(4, int(10 / later["the limit"]))
            for title in list(ways) * turns:  # by turns, as the machine's other work comes and goes
                later[title] = min(later[title], seconds_of(ways[title], device))
            theirs = in_other_process(their_epochs, paths * times, case, folder / "cache", device)
            first |= {title: seconds[0] for title, seconds in theirs.items()}
            later |= {title: seconds[1] for title, seconds in theirs.items()}
        for title in first:
            times = f"{first[title]:.2f} | {later[title]:.2f} | {scans / later[title]:.1f}"
            print(f"| {case.title} | {title} | {times} | {later['the limit'] / later[title]:.2f} |", flush=True)
        if device.type == "cuda":
            print(f"GPU memory at most: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")
            torch.cuda.reset_peak_memory_stats()


def measure_scaling(device: torch.device) -> None:
    """Print the time of a training scan (all but the network) and the memory, for more and more scans."""
    print("\n## Scaling: 40x48x40, batches of 8, read from the shards, without a network\n")
    print("| scans | opening the shards, s | ms a scan | memory it adds, MB |\n|---|---|---|---|")
    case = Case("", "SFCN", {"channels": [4, 4]}, (40, 48, 40), 8)
    for count in (100, 1_000, 10_000):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, *case.shape)}
            with open(folder / "shard.npy", "wb") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                block = np.random.default_rng(0).integers(0, 255, (100, *case.shape), dtype=np.uint8).tobytes()
                for _ in range(count // 100):
                    stream.write(block)
            run = make_run(case, count, device, folder)
            run.loss = lambda batch, encoded: batch.mean() * next(run.net.parameters()).sum()  # noqa: B023
            before = memory()
            start = time.perf_counter()
            shards = Shards([np.load(folder / "shard.npy", mmap_mode="r")], {f"scan-{row}": (0, row) for row in range(count)})
            part = part_of(shards, device)
            part.scans.resident = None
            opened = time.perf_counter() - start
            taken = min(seconds_of(lambda: our_epoch(run, part), device) for _ in range(2))  # noqa: B023
            print(f"| {count} | {opened:.3f} | {1000 * taken / count:.2f} | {max(0, memory() - before):.0f} |", flush=True)


def measure_checkpoint(device: torch.device) -> None:
    """Print what a checkpoint of SFCN with AdamW costs."""
    print("\n## Checkpoints of SFCN (3 million parameters, AdamW)\n")
    case = CASES[2]
    with tempfile.TemporaryDirectory(dir=ROOT) as name:
        folder = Path(name)
        array = np.random.default_rng(0).integers(0, 255, (32, *case.shape), dtype=np.uint8)
        part = part_of(Shards([array], {f"scan-{row}": (0, row) for row in range(32)}), device)
        run = make_run(case, 32, device, folder)
        epoch = min(seconds_of(lambda: our_epoch(run, part), device) for _ in range(2))
        run.best_weights = {name: value.cpu() for name, value in run.net.state_dict().items()}
        run.save()
        waits, written = [], []
        for _ in range(5):
            run.checkpoints.wait()
            waits.append(seconds_of(run.save, device))
            written.append(seconds_of(run.checkpoints.wait, device))
        size = run.checkpoints.last.stat().st_size / 1e6
    wait, write = min(waits), min(written)
    print(f"{size:.0f} MB: the training waits {1000 * wait:.0f} ms; {1000 * write:.0f} ms are written beside it.")
    print(
        f"Every 5 minutes that is {wait / 300:.4%}; of an epoch of 32 scans at 4 mm ({epoch:.1f} s) {wait / epoch:.2%}, ",
        end="",
    )
    print(f"of one of 400 scans {wait / (epoch * 400 / 32):.2%}.")


def measure_preprocess() -> None:
    """Print what each part of preprocessing a scan of IXI's size costs, with one thread."""
    print("\n## Preprocessing of one scan of 256x256x150 voxels to the 2 mm grid, one thread\n\n| part | seconds |\n|---|---|")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as name:
        path = write_scans(Path(name), 1)[0]
        loaded = load_scan(path)
        brain = mask.brain_mask(loaded)
        data = scan.foreground(loaded, brain)
        transform = registration.find_transform(loaded, data, "affine")
        on_grid = lambda: registration.to_grid(loaded, data, brain, "affine", transform, 2.0, (80, 96, 80))  # noqa: E731
        image, inside, *_ = on_grid()
        parts = {
            "reading and checking the file": lambda: load_scan(path),
            "brain mask (deepbet)": lambda: mask.brain_mask(loaded),
            "registration (ANTs)": lambda: registration.find_transform(loaded, data, "affine"),
            "resampling (ANTs)": on_grid,
            "intensities to 8 bits": lambda: scan.to_bytes(image, inside, (0.5, 99.5)),
            "bias field (N4), if asked for": lambda: scan.bias_field(data, brain, loaded.affine),
            "tissues, if asked for": lambda: tissues.tissue_maps(data, brain, loaded.affine),
        }
        for part, work in parts.items():
            print(f"| {part} | {min(seconds_of(work, cpu) for _ in range(2)):.2f} |", flush=True)
    torch.set_num_threads(threads)


def measure_plan() -> None:
    """Print how long a dry run takes for cohorts of several sizes."""
    print("\n## Plan: seconds of a dry run\n\n| subjects | seconds |\n|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for subjects in (100, 10_000, 100_000):
            overlay = Path(name) / f"{subjects}.yaml"
            overlay.write_text(yaml.safe_dump({"datasets": {"demo": {"simulate": {"subjects": subjects}}}}))
            snakemake = shutil.which("snakemake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            command = [str(snakemake), "-n", "--quiet", "--configfile", str(overlay)]
            dry_run = lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: B023, E731
            print(f"| {subjects} | {min(seconds_of(dry_run, torch.device('cpu')) for _ in range(3)):.1f} |", flush=True)


def quiet() -> None:
    """Say nothing but the results."""
    logging.disable()
    warnings.simplefilter("ignore")


def main() -> None:
    """Measure what is asked for and print tables in Markdown."""
    parts = {
        "input": measure_input,
        "epochs": measure_epochs,
        "scaling": measure_scaling,
        "checkpoint": measure_checkpoint,
        "plan": lambda device: measure_plan(),
        "preprocess": lambda device: measure_preprocess(),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(parts)} (default: all)")
    chosen = parser.parse_args().parts or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(parts)}")
    quiet()
    device = choose_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} cores"
    print(f"{name}, PyTorch {torch.__version__}; load when begun: {os.getloadavg()[0]:.1f}")
    for part in chosen:
        parts[part](device)


if __name__ == "__main__":
    main()
