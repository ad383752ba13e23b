"""Measure speed as ratios in one run, for machines are noisy: `make bench`.

What is compared
----------------
input        one training sample: ours (from a mapped array) against decoding and resizing the NIfTI file in every epoch
loop         training scans per second: ours against the network alone on a tensor that is already there
plan         a dry run for a cohort of 100 against one of 100,000
"""

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from conftest import training_settings  # noqa: E402
from mriflow.augment import augment  # noqa: E402
from mriflow.networks import SFCN  # noqa: E402
from mriflow.train import generator, make_optimizer  # noqa: E402
from mriflow.volumes import Volumes  # noqa: E402

SHAPE = (80, 96, 80)
SCANS, BATCH = 16, 4


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest time that `work` took."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def input_path(folder: Path) -> tuple[float, float]:
    """Return the seconds for one sample from a mapped array, and from a compressed NIfTI file of 1 mm."""
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize, ScaleIntensity

    rng = np.random.default_rng(0)
    np.save(folder / "shard.npy", rng.integers(0, 255, (SCANS, *SHAPE), dtype=np.uint8))
    mapped = np.load(folder / "shard.npy", mmap_mode="r")
    volumes = Volumes(list(mapped), torch.device("cpu"))
    volumes.resident = None  # measured as if the dataset did not fit into memory

    scan = np.kron(rng.integers(0, 900, (32, 32, 19)), np.ones((8, 8, 8))).astype(np.int16)[..., :150]
    nib.save(nib.Nifti1Image(scan, np.diag([0.94, 0.94, 1.2, 1])), folder / "scan.nii.gz")
    tutorial = Compose([LoadImage(image_only=True), EnsureChannelFirst(), ScaleIntensity(), Resize(SHAPE)])
    ours = seconds(lambda: volumes.batch(range(SCANS))) / SCANS
    return ours, seconds(lambda: tutorial(folder / "scan.nii.gz"))


def loop() -> tuple[float, float]:
    """Return the seconds for one training step of ours, and of the network alone."""
    settings = training_settings()
    volumes = Volumes(list(np.random.default_rng(0).integers(0, 255, (SCANS, *SHAPE), dtype=np.uint8)), torch.device("cpu"))
    net = SFCN(1, (8, 16, 32, 64, 32), 0.3)
    optimizer = make_optimizer(net, settings)
    ready = volumes.batch(range(BATCH))

    def step(scans: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        net(scans).square().mean().backward()
        optimizer.step()

    whole = seconds(lambda: step(augment(volumes.batch(range(BATCH)), settings["augmentation"], generator(0))))
    return whole, seconds(lambda: step(ready))


def plan(folder: Path, subjects: int) -> float:
    """Return the seconds for a dry run of a cohort."""
    overlay = folder / f"{subjects}.yaml"
    overlay.write_text(yaml.safe_dump({"datasets": {"demo": {"simulate": {"subjects": subjects}}}}))
    command = [str(Path(sys.executable).parent / "snakemake"), "-n", "--quiet", "--configfile", str(overlay)]
    return seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True), repeats=3)


def main() -> None:
    """Measure everything and print a table."""
    logging.disable()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, tutorial = input_path(folder)
        step, alone = loop()
        small, large = plan(folder, 100), plan(folder, 100_000)
    grid = "x".join(map(str, SHAPE))
    print(f"{torch.get_num_threads()} threads, grid {grid}, batches of {BATCH}")
    print(f"{'':8}{'ours':>16}{'compared with':>30}{'ratio':>12}")
    print(f"input   {ours * 1000:9.1f} ms a sample  {tutorial * 1000:9.1f} ms decoded each time  {tutorial / ours:8.1f}")
    print(f"loop    {step * 1000:9.1f} ms a step    {alone * 1000:9.1f} ms network alone      {alone / step:8.2f}")
    print(f"plan    {large:9.2f} s at 100,000   {small:9.2f} s at 100 scans         {large / small:8.2f}")


if __name__ == "__main__":
    main()
