"""The benchmarks run, and the one of a GPU with the few packages that it asks for: a lent card is not lost to a missing one."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import ROOT, training_settings

FOLDER = ROOT / "tests/benchmarks"
# What the workflow needs and the benchmark of a GPU does not, and what others bring.
MISSING = ["ants", "deepbet", "einops", "jsonschema", "matplotlib", "nilearn", "psutil", "scipy", "skimage", "sklearn"]
MISSING += ["snakemake", "tensorboard", "tqdm", "yaml"]
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({MISSING})); sys.path.insert(0, {str(FOLDER)!r}); "


def run_without(program, *arguments, folder):
    """Run a program in a Python that has neither the packages in MISSING nor mriflow."""
    command = [sys.executable, "-S", "-W", "ignore", "-c", program, *arguments]
    packages = [path for path in sys.path if path.endswith("site-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(packages)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_training_block_of_the_benchmarks_is_that_of_the_schema(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from common import TRAINING

    block = training_settings(epochs=1000, batch_size=2, learning_rate=1e-5)
    assert {key: block[key] for key in TRAINING} == TRAINING


def test_what_is_measured_without_a_network_runs_none(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    import common

    device = torch.device("cpu")
    run = common.make_run(common.Case("", "SFCN", {"channels": [4, 4]}, (8, 8, 8), 2), 4, device, tmp_path)
    seen = []
    run.net.register_forward_hook(lambda *answers: seen.append(answers))
    volumes = np.ones((4, 8, 8, 8), np.uint8)
    part = common.part_of(common.Shards([volumes], {f"scan-{row}": (0, row) for row in range(4)}), device)
    common.our_epoch(run, part)
    assert len(seen) == 2
    common.without_network(run)
    common.our_epoch(run, part)
    assert len(seen) == 2 and run.loss_sum != 0


@pytest.mark.long
def test_benchmark_of_a_gpu_trains_with_few_packages_and_writes_its_tables(tmp_path):
    program = """
import gpu, torch
from pathlib import Path
device = torch.device("cpu")
tables = gpu.Tables(Path("out"), device)
gpu.steps_of_an_epoch = lambda run, case: 1
paths = gpu.write_scans(Path(), 2, (16, 16, 16))
case = gpu.Case("SFCN", "SFCN", {"channels": [4, 4]}, (8, 8, 8), 2)
gpu.measure_speed(case, False, paths, tables, device)
"""
    ended = run_without(WITHOUT + program, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    ways = pd.read_csv(tmp_path / "out/speed.csv")["way"].tolist()
    assert ways[:3] == ["the network alone", "ours, streamed", "ours, no augmentation"]
    assert any("MONAI tutorial" in way for way in ways)
    assert "| SFCN | 8x8x8 | 2 | the network alone |" in (tmp_path / "out/bench.md").read_text()


def test_benchmark_of_a_gpu_says_that_there_is_none(tmp_path):
    ended = run_without(WITHOUT + "import gpu; gpu.main()", folder=tmp_path)
    assert ended.returncode == 2
    assert "sees no GPU. --small tries everything on the CPU" in ended.stderr


@pytest.mark.long
def test_benchmark_of_a_gpu_runs_small_on_a_cpu(tmp_path):
    ended = run_without(WITHOUT + "import gpu; gpu.main()", "--small", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    text = (tmp_path / "bench-gpu/bench.md").read_text()
    assert "failed" not in text and "the training loss is nowhere further than" in text
