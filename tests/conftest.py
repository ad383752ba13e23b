"""What several tests share."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"

# Tests run beside each other and beside other work: one thread each, and the same sums every time.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is proved bit for bit is proved on the CPU
# Loopback servers are asked directly, whatever proxy this machine uses.
os.environ["NO_PROXY"] = "127.0.0.1"
sys.path.insert(0, str(Path(__file__).parent))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Begin with the tests of whole runs, which take longest, and keep those that share what is long in making together."""
    for item in items:
        if {"finished", "made"} & set(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    items.sort(key=lambda item: item.path.name != "test_workflow.py")


def shared(name: str) -> Path:
    """Return a folder of real data that is too large for the repository, or skip the test where it is not there."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the real data {name}, which are not on this machine ({folder})")
    return folder


def training_settings(**changes) -> dict:
    """Return a block of `training` with all defaults of the schema and `changes`."""
    from mriflow.config.resolve import filled

    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    block = schema["properties"]["training"]["additionalProperties"]
    given = filled({"epochs": 4, "batch_size": 4, "learning_rate": 0.01} | changes, block)
    return {key: value for key, value in given.items() if key not in ("gpu", "allow_cpu")}


def training_inputs(**changes) -> dict:
    """Return what the network sees, of the tiny dataset of `write_dataset`."""
    return {"channels": ["image"], "voxel_mm": 4, "covariates": [], "impute": False} | changes


def write_scan(path: Path, data: np.ndarray, voxel_mm: float = 4.0) -> Path:
    """Write voxels as a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([voxel_mm, voxel_mm, voxel_mm, 1])), path)
    return path


def write_dataset(
    folder: Path, subjects: int = 24, shape: tuple[int, int, int] = (16, 16, 16), seed: int = 0, grey_matter: bool = False
) -> dict:
    """Write a tiny preprocessed dataset whose images tell age (brightness) and sex (a bright corner).

    With `grey_matter` they stand for maps of it, too, as a second channel.

    Returns the paths that `train` and `evaluate` ask for.
    """
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, subjects).round(1)
    sex = np.where(np.arange(subjects) % 2, "M", "F")
    volumes = rng.normal(0, 8, (subjects, *shape)) + 40 + 2 * age[:, None, None, None]
    volumes[sex == "M", :8, :8, :8] += 60
    ids = [f"scan-{i:02d}" for i in range(subjects)]
    folder.mkdir(parents=True, exist_ok=True)
    volumes = volumes.clip(1, 255).astype(np.uint8)
    np.save(folder / "shard-000.npy", np.stack([volumes, volumes], 1) if grey_matter else volumes)
    pd.DataFrame(
        {"id": ids, "index": range(subjects), "problem": None, "brain_ml": 1400, "correlation": 0.9, "scale": 1.0}
    ).assign(fingerprint=ids, key=ids).to_csv(folder / "shard-000.csv", index=False)
    labels = pd.DataFrame({"id": ids, "subject": ids, "session": "", "site": "A", "age": age, "sex": sex})
    labels.assign(path=ids, fingerprint=ids, problem="", notes="").to_csv(folder / "labels.csv", index=False)
    return {
        "arrays": [folder / "shard-000.npy"],
        "indices": [folder / "shard-000.csv"],
        "labels": folder / "labels.csv",
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The paths of a tiny preprocessed dataset with its splits, as `train` asks for them."""
    from mriflow.split import split

    folder = tmp_path_factory.mktemp("data")
    files = write_dataset(folder)
    split(files["labels"], folder / "splits.csv", target="age", folds=3, validation=0.25, stratify=["sex"])
    return files | {"splits": folder / "splits.csv"}


def synthesis(**changes) -> dict:
    """Return a block `synthesis` of a training with all defaults and `changes`."""
    return training_settings(synthesis={"order": [["csf"], ["gm"], ["wm"]]} | changes)["synthesis"]


def measure_label_maps(path, maps, classes, voxel_ml):
    """Add to the index of a shard what `preprocess` says of its label maps, of which the grid lost a tenth."""
    index = pd.read_csv(path).assign(map_in_brain=1.0)
    for number, name in enumerate(classes, 1):
        ml = (maps == number).sum((1, 2, 3)) * voxel_ml
        index[f"map_ml_{name}"], index[f"grid_ml_{name}"] = 1.1 * ml, ml
    index.to_csv(path, index=False)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A tiny preprocessed dataset with label maps, as `data`: nested spheres of csf, gm and wm about a random centre."""
    from mriflow.split import split

    folder = tmp_path_factory.mktemp("labelled")
    files, rng = write_dataset(folder), np.random.default_rng(1)
    volumes = np.zeros((24, 2, 16, 16, 16), np.uint8)
    for volume in volumes:
        away = np.linalg.norm(np.indices((16, 16, 16)) - rng.uniform(6.5, 8.5, 3)[:, None, None, None], axis=0)
        volume[1] = np.digitize(-away, [-7, -5.5, -3.5])
        volume[0] = (np.array([0, 60, 140, 220])[volume[1]] + rng.normal(0, 8, away.shape)).clip(1, 255) * (volume[1] > 0)
    np.save(folder / "shard-000.npy", volumes)
    measure_label_maps(files["indices"][0], volumes[:, 1], ["csf", "gm", "wm"], 0.064)
    labels = pd.read_csv(files["labels"])
    labels.assign(label_map=labels["id"]).to_csv(files["labels"], index=False)
    split(files["labels"], folder / "splits.csv", target="label_map", folds=3, validation=0.25, stratify=["sex"])
    return files | {"splits": folder / "splits.csv"}


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
