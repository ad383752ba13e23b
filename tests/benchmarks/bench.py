"""Measure speed as ratios within one run, for machines are noisy: `make bench`; results and how to read them: README.md here.

    python tests/benchmarks/bench.py [PART ...]     all parts, or some of:
                                                    input epochs precision synthesis scaling checkpoint plan
                                                    preprocess

On a machine with a GPU everything is measured there but `precision`; `gpu.py` measures more of one, with fewer packages.
"""

import argparse
import copy
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml
from common import (
    EVERY_KIND,
    NO_AUGMENTATION,
    ROOT,
    SFCN,
    SMALL_SFCN,
    Case,
    always,
    by_turns,
    cached,
    like_ours,
    limit,
    make_run,
    our_epoch,
    part_of,
    quiet,
    repeated,
    their_epoch,
    tutorial_loader,
    without_network,
    write_scans,
    write_shard,
)
from torch.utils.data import DataLoader

from mriflow.config.resolve import filled
from mriflow.images import mask, registration, scan, tissues
from mriflow.images.nifti import load_scan
from mriflow.training.device import choose_device
from mriflow.training.forward import cpu_has_bfloat16, work_of
from mriflow.training.loader import Shards
from mriflow.training.networks import build_network
from mriflow.training.profiling import seconds_of
from mriflow.training.synthesis import generate

SCANS = 8
REGRESSOR = {"channels": [16, 32, 64, 128, 256], "strides": [2] * 4}
# Networks, size and batch of the MONAI tutorials on IXI; then ours.
CASES = [
    Case("tutorial, classification: DenseNet121, 96x96x96", "DenseNet121", {}, (96, 96, 96), 2),
    Case("tutorial, regression: Regressor, 96x96x96", "Regressor", REGRESSOR, (96, 96, 96), 2),
    Case("SFCN, 4 mm: 40x48x40", "SFCN", SFCN, (40, 48, 40), 4),
    Case("SFCN, 2 mm: 80x96x80", "SFCN", SFCN, (80, 96, 80), 4),
]  # fmt: skip
GPU_CASES = [Case("SFCN, 1 mm: 160x192x160", "SFCN", SFCN, (160, 192, 160), 8)]
WIDE_SFCN = {"channels": [16, 32, 64, 128, 64], "head": "flat"}
EFFICIENTNET = {"model_name": "efficientnet-b0"}
PRECISION_CASES = [
    Case("SFCN of the demo, 40x48x40", "SFCN", SMALL_SFCN, (40, 48, 40), 4),
    Case("SFCN of the demo, 80x96x80", "SFCN", SMALL_SFCN, (80, 96, 80), 2),
    Case("EfficientNet-B0, 40x48x40", "EfficientNetBN", EFFICIENTNET, (40, 48, 40), 2),
    Case("Regressor, 40x48x40", "Regressor", REGRESSOR, (40, 48, 40), 4),
    Case("SFCN of twice the demo's width, 40x48x40", "SFCN", WIDE_SFCN, (40, 48, 40), 4),
    Case("SFCN, 40x48x40", "SFCN", SFCN, (40, 48, 40), 4),
    Case("SFCN, 80x96x80", "SFCN", SFCN, (80, 96, 80), 2),
    Case("DenseNet121, 40x48x40", "DenseNet121", {}, (40, 48, 40), 2),
    Case("SEResNet50, 40x48x40", "SEResNet50", {}, (40, 48, 40), 2),
]
UNET = {"channels": [16, 32, 64, 128], "strides": [2, 2, 2], "num_res_units": 1}
WORKERS = {"num_workers": 2, "multiprocessing_context": "fork"}  # as in the tutorials; a process begun by spawn would spawn


def template_head() -> np.ndarray:
    """Return the template's head, in voxels of IXI's."""
    head = np.asarray(registration.template().dataobj, np.float32)
    grid = np.ix_(*(np.linspace(0, n - 1, m).astype(int) for n, m in zip(head.shape, (256, 256, 150), strict=True)))
    return head[grid] * 800


def tutorial_loaders(paths: list[Path], case: Case, folder: Path) -> dict[str, Iterable]:
    """Return the ways of MONAI's tutorials and recipes to deliver these scans, with the tutorial's transforms and workers."""
    from monai.data import PersistentDataset
    from monai.transforms import Compose, RandRotate90

    turn = RandRotate90(spatial_axes=(0, 2))
    persistent = PersistentDataset(paths, Compose([*always(case), turn]), folder)
    return {
        "tutorial": tutorial_loader(paths, case),
        "PersistentDataset": DataLoader(persistent, case.batch, shuffle=True, **WORKERS),
        "CacheDataset": LateCache(lambda: cached(paths, case, [turn]), case.batch),
    }


class LateCache:
    """A loader over a CacheDataset that is made, and so filled, when its first epoch begins."""

    def __init__(self, make: Callable[[], object], batch: int) -> None:
        self.make, self.batch, self.loader = make, batch, None

    def __iter__(self) -> object:
        self.loader = self.loader or DataLoader(self.make(), self.batch, shuffle=True, **WORKERS)
        return iter(self.loader)


def their_epochs(paths: list[Path], case: Case, folder: Path, device: torch.device) -> dict[str, tuple[float, float]]:
    """Return the seconds of the first and of a later epoch each of the other ways, and those of the limit in this process."""
    if device.type == "cuda":
        choose_device()  # with its settings of cuDNN; a CPU is left as a user finds it
    run = make_run(case, len(paths), device, folder)
    ways = {"the limit, in a process like those below": limit(run, case, len(paths) // case.batch)}
    for title, loader in tutorial_loaders(paths, case, folder).items():
        ways[title] = partial(their_epoch, run, loader)
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
        paths = write_scans(folder, SCANS, head=template_head())
        run = make_run(case, SCANS, device, folder)
        part = part_of(write_shard(paths, case.shape, folder), device)
        without_network(run)
        rows = {}
        kinds = {"no augmentation": NO_AUGMENTATION, "our augmentation": run.settings["augmentation"]}
        for title, augmentation in {**kinds, "every kind of augmentation": EVERY_KIND}.items():
            run.settings = run.settings | {"augmentation": augmentation}
            before = memory()
            seconds = first_and_later(lambda: our_epoch(run, part), device)
            rows[f"ours, {title}"] = (*seconds, memory() - before)
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
            paths = write_scans(folder, SCANS, head=template_head())
            times = 40 if device.type == "cuda" else 1
            scans = SCANS * times
            part = part_of(repeated(write_shard(paths, case.shape, folder), scans), device)
            run = make_run(case, scans, device, folder)
            bare = make_run(case, scans, device, folder, augmentation=NO_AUGMENTATION)
            ways: dict[str, Callable[[], object]] = {
                "the limit": limit(run, case, scans // case.batch),
                "ours, no augmentation": lambda: our_epoch(bare, part),  # noqa: B023
                "ours, our augmentation": lambda: our_epoch(run, part),  # noqa: B023
            }
            first = by_turns(ways, 1, device)
            later = by_turns(ways, 1, device)
            later = by_turns(ways, max(4, int(10 / later["the limit"])), device)
            theirs = in_other_process(their_epochs, paths * times, case, folder / "cache", device)
            first |= {title: seconds[0] for title, seconds in theirs.items()}
            later |= {title: seconds[1] for title, seconds in theirs.items()}
        for title in first:
            times = f"{first[title]:.2f} | {later[title]:.2f} | {scans / later[title]:.1f}"
            print(f"| {case.title} | {title} | {times} | {later['the limit'] / later[title]:.2f} |", flush=True)
        if device.type == "cuda":
            print(f"GPU memory at most: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")
            torch.cuda.reset_peak_memory_stats()


def measure_precision(device: torch.device) -> None:
    """Print how long a training step takes on a CPU in float32 and in bfloat16, and how much work the network makes."""
    print("\n## Precision on a CPU: milliseconds a scan of a training step, one thread\n")
    if device.type != "cpu" or not cpu_has_bfloat16():
        print("Left out: this is a GPU, or a processor without bfloat16.")
        return
    print("| network, grid | multiply-adds a voxel | float32 | bfloat16 | times as fast | `auto` takes |")
    print("|---|---|---|---|---|---|")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for case in PRECISION_CASES:
        with tempfile.TemporaryDirectory() as name:
            run = make_run(case, case.batch, device, Path(name))
        ways = {}
        for precision in (torch.float32, torch.bfloat16):
            one = copy.copy(run)  # the same network, optimiser and batch
            one.precision = precision
            ways[str(precision)] = limit(one, case, 1)
        by_turns(ways, 1, device)
        seconds = by_turns(ways, 10, device)
        plain, short = (1000 * one / case.batch for one in seconds.values())
        work = work_of(build_network(case.network, case.arguments, 1, case.shape), case.shape)
        taken = str(run.precision).removeprefix("torch.")
        print(f"| {case.title} | {work:,.0f} | {plain:.1f} | {short:.1f} | {plain / short:.2f} | {taken} |", flush=True)
    torch.set_num_threads(threads)


def measure_synthesis(device: torch.device) -> None:
    """Print how many images a second are made of label maps, and how many a U-Net alone is trained on."""
    print("\n## Generated images: scans a second, batches of 2\n")
    print("| grid | generated | U-Net alone | both, times the U-Net alone |\n|---|---|---|---|")
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    block = schema["properties"]["training"]["additionalProperties"]["properties"]["synthesis"]
    settings = filled({"order": [["csf"], ["gm"], ["wm"]]}, block)
    for voxel_mm, shape in ((4.0, (40, 48, 40)), (2.0, (80, 96, 80))):
        labels = torch.zeros(2, *shape, dtype=torch.uint8, device=device)
        for number, margin in ((1, 4), (2, 6), (3, 10)):
            labels[:, margin:-margin, margin:-margin, margin:-margin] = number
        images = (labels > 0)[:, None].float()
        net = build_network("UNet", UNET, 4, shape, of_voxels=True).to(device)
        optimizer = torch.optim.AdamW(net.parameters())

        def generated() -> object:
            return generate(images, labels, [1, 2], ["csf", "gm", "wm"], settings, voxel_mm)  # noqa: B023

        def step() -> None:
            optimizer.zero_grad()  # noqa: B023
            torch.nn.functional.cross_entropy(net(images), labels.long()).backward()  # noqa: B023
            optimizer.step()  # noqa: B023

        ways: dict[str, Callable[[], object]] = {"generated": generated, "alone": step}
        by_turns(ways, 1, device)
        seconds = by_turns(ways, 5, device)
        alone, both = seconds["alone"], seconds["alone"] + seconds["generated"]
        row = [f"{'x'.join(map(str, shape))}", f"{2 / seconds['generated']:.1f}", f"{2 / alone:.1f}", f"{both / alone:.2f}"]
        print(f"| {' | '.join(row)} |", flush=True)


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
            without_network(run)
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
        path = write_scans(Path(name), 1, head=template_head())[0]
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


def main() -> None:
    """Measure what is asked for and print tables in Markdown."""
    parts = {
        "input": measure_input,
        "epochs": measure_epochs,
        "precision": measure_precision,
        "synthesis": measure_synthesis,
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
