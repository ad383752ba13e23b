"""What the benchmarks share: scans, networks, our way to train and those of MONAI.

It needs torch, numpy, pandas, nibabel and monai alone, and no package mriflow installed.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow"))  # whether the package is installed or not
os.environ["NUMEXPR_MAX_THREADS"] = str(os.cpu_count())

from mriflow.training.distributed import Team  # noqa: E402
from mriflow.training.forward import precision, work_of  # noqa: E402
from mriflow.training.loader import Batch, ScanLoader, Shards  # noqa: E402
from mriflow.training.loop import Part, Trainer  # noqa: E402
from mriflow.training.networks import build_network  # noqa: E402
from mriflow.training.objectives import Regression  # noqa: E402
from mriflow.training.profiling import seconds_of  # noqa: E402
from mriflow.training.setup import seed_everything  # noqa: E402
from mriflow.training.stop import StopFlag  # noqa: E402


class Case(NamedTuple):
    """What is trained: a network on a grid, in batches."""

    title: str
    network: str
    arguments: dict
    shape: tuple[int, int, int]
    batch: int


SFCN = {"channels": [32, 64, 128, 256, 256, 64]}
SMALL_SFCN = {"channels": [8, 16, 32, 64, 32], "dropout": 0.3, "head": "flat"}

# A training block with all defaults of the schema, which the GPU's machine cannot read for lack of YAML; a test compares them.
AUGMENTATION = {
    "shift_mm": 0,
    "mirror": 0.5,
    "rotate_degrees": 0,
    "scale": 0,
    "intensity": 0.1,
    "bias_field": 0,
    "noise": 0,
}
EVERY_KIND = AUGMENTATION | {"shift_mm": 4.0, "rotate_degrees": 5.0, "scale": 0.05, "bias_field": 0.2, "noise": 0.03}
NO_AUGMENTATION = dict.fromkeys(AUGMENTATION, 0.0)
TRAINING = {
    "epochs": 1000,
    "batch_size": 2,
    "accumulate": 1,
    "learning_rate": 1e-5,
    "loss": "auto",
    "bins": [10, 95],
    "bin_width": 1,
    "bin_sigma": 1,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "one-cycle",
    "select": "last",
    "early_stopping": 0,
    "augmentation": AUGMENTATION,
    "mixed_precision": "auto",
    "compile": False,
    "checkpoint_minutes": 5,
    "copy_to_scratch": False,
}


def write_scans(
    folder: Path, count: int, shape: tuple[int, int, int] = (256, 256, 150), head: np.ndarray | None = None
) -> list[Path]:
    """Write scans with the size, voxels and noise of IXI's, int16, gzipped: of a head (0 to 800), or of a smooth ellipsoid."""
    rng = np.random.default_rng(0)
    if head is None:
        x, y, z = (np.linspace(-1.2, 1.2, n, dtype=np.float32) for n in shape)
        inside = (x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2) < 1
        texture = F.interpolate(torch.from_numpy(rng.normal(500, 150, (1, 1, 16, 16, 16))), shape, mode="trilinear")
        head = texture[0, 0].numpy() * inside
    paths = []
    for number in range(count):
        voxels = head + np.abs(rng.normal(0, 12, shape))
        paths.append(folder / f"IXI{number:03d}.nii.gz")
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([0.9375, 0.9375, 1.2, 1])), paths[-1])
    return paths


def always(case: Case) -> list:
    """Return the tutorial's transforms that give the same in every epoch."""
    from monai.transforms import EnsureChannelFirst, LoadImage, Resize, ScaleIntensity

    return [LoadImage(image_only=True), ScaleIntensity(), EnsureChannelFirst(), Resize(case.shape)]


def like_ours() -> list:
    """Return MONAI's transforms that change what all kinds of ours do, by as much, one scan at a time."""
    from monai.transforms import RandAdjustContrast, RandAffine, RandBiasField, RandFlip, RandGaussianNoise

    turn = [np.deg2rad(5)] * 3
    moves = RandAffine(1.0, rotate_range=turn, translate_range=[2] * 3, scale_range=[0.05] * 3, padding_mode="zeros")
    noise = RandGaussianNoise(1.0, std=0.03)
    return [RandFlip(0.5, 0), moves, RandAdjustContrast(1.0, (0.9, 1.1)), RandBiasField(coeff_range=(0, 0.1), prob=1.0), noise]


def cached(paths: list[Path], case: Case, random: list) -> object:
    """Return a CacheDataset, filled."""
    from monai.data import CacheDataset
    from monai.transforms import Compose

    return CacheDataset(paths, Compose([*always(case), *random]), progress=False)


def tutorial_loader(paths: list[Path], case: Case, workers: int = 2) -> Iterable:
    """Return the way of MONAI's tutorials on IXI to deliver scans: unpacked, scaled and resized in every epoch, by workers."""
    from monai.data import Dataset
    from monai.transforms import Compose, RandRotate90

    dataset = Dataset(paths, Compose([*always(case), RandRotate90(spatial_axes=(0, 2))]))
    return DataLoader(dataset, case.batch, shuffle=True, num_workers=workers, multiprocessing_context="fork")


def write_shard(paths: list[Path], shape: tuple[int, ...], folder: Path) -> Shards:
    """Write the same scans, with the tutorial's transforms done once, as preprocessing leaves them; map them."""
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize, ScaleIntensity

    once = Compose([LoadImage(image_only=True), ScaleIntensity(0, 255), EnsureChannelFirst(), Resize(shape)])
    np.save(folder / "shard.npy", np.stack([np.asarray(once(path))[0].round().astype(np.uint8) for path in paths]))
    array = np.load(folder / "shard.npy", mmap_mode="r")
    return Shards([array], {path.name: (0, row) for row, path in enumerate(paths)})


def make_run(case: Case, count: int, device: torch.device, folder: Path, **changes: object) -> Trainer:
    """Return a training that has not begun, of so many scans."""
    seed_everything(0, device)
    net = build_network(case.network, case.arguments, 1, case.shape)
    block = TRAINING | {"batch_size": case.batch, "checkpoint_minutes": 1e6} | changes
    chosen = precision(device, block, partial(work_of, net, case.shape))
    net = net.to(device, memory_format=torch.channels_last_3d)
    voxel_mm = 160 / case.shape[0]
    objective = Regression("l2", 50, 15)
    return Trainer(net, objective, block, count, folder, "bench", 0, Team(device), voxel_mm, precision=chosen)


def repeated(shards: Shards, count: int) -> Shards:
    """Return shards that name their scans again and again, `count` in all: more steps an epoch."""
    places = list(shards.places.values())
    return Shards(shards.arrays, {f"scan-{number}": places[number % len(places)] for number in range(count)})


def part_of(shards: Shards, device: torch.device, labels: np.ndarray | None = None) -> Part:
    """Return all scans of some shards, with made-up ages if they have none."""
    labels = np.linspace(20, 80, len(shards)) if labels is None else labels
    encoded = Regression("l2", 50, 15).encode(labels)
    return Part(ScanLoader(shards, list(shards), device, labels=encoded), labels, list(shards))


def our_epoch(run: Trainer, part: Part) -> None:
    """Train for one epoch, all but validation and saving."""
    run.step = 0
    run.train_epoch(part, StopFlag(None))


def step_on(run: Trainer, images: torch.Tensor) -> None:
    """Train on one batch of images that are on the device, as our loop does."""
    batch = Batch(images, images.new_zeros(len(images), 0), images.new_zeros(len(images), 1))
    run.scaler.scale(run.losses(batch, images.new_full((len(images), 1), 1 / len(images)))[0]).backward()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)


def without_network(run: Trainer) -> None:
    """Let a training do nothing with a batch but sum it: what is left to measure is all but the network."""

    def losses(batch: Batch, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = batch.images.sum() * next(run.net.parameters()).sum()
        return loss, loss.detach()

    run.losses = losses  # type: ignore[method-assign]


def limit(run: Trainer, case: Case, steps: int) -> Callable[[], None]:
    """Return what trains for some steps on a random batch that is on the device already: the network alone."""
    images = torch.rand(case.batch, 1, *case.shape, device=run.device).contiguous(memory_format=torch.channels_last_3d)

    def epoch() -> None:
        run.net.train()
        for _ in range(steps):
            step_on(run, images)

    return epoch


def their_epoch(run: Trainer, loader: Iterable) -> None:
    """Train for one epoch on what a loader delivers, with the same network, precision and optimiser."""
    run.net.train()
    for scans in loader:
        step_on(run, torch.as_tensor(scans).to(run.device).contiguous(memory_format=torch.channels_last_3d))


def by_turns(ways: dict[str, Callable[[], object]], turns: int, device: torch.device) -> dict[str, float]:
    """Return the shortest time of each way, tried by turns, as the machine's other work comes and goes."""
    shortest = dict.fromkeys(ways, float("inf"))
    for title in list(ways) * turns:
        shortest[title] = min(shortest[title], seconds_of(ways[title], device))
    return shortest


def quiet() -> None:
    """Say nothing but the results."""
    logging.disable()
    warnings.simplefilter("ignore")
