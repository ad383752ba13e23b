"""One training by several processes, on the CPU, where they talk by gloo; on GPUs it is NCCL, and batch norm is shared, too."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from test_learning import BOTH, two_channels  # noqa: F401 - a fixture
from test_train import AGE, SEX, command, run

# Instance norm, no dropout, and SGD, as Adam makes whole steps of the rounding of gradients that are nought: what several
# processes or parts of a batch do is then what one does.
REGRESSOR = {"name": "Regressor", "arguments": {"channels": [4, 8], "strides": [2, 2], "dropout": 0.0}}
INSTANCE = {"name": "SFCN", "arguments": {"channels": [4, 8, 8], "norm": "instance", "dropout": 0.0}}
SFCN_DROPOUT = {"name": "SFCN", "arguments": {"channels": [4, 8, 8], "dropout": 0.2}}


def two(folder, data, network=REGRESSOR, **changes):
    """The command of a training by two processes."""
    arguments = [*command(folder, data, **changes), "--gpus=2", "--allow-cpu"]
    return [f"--network={json.dumps(network)}" if one.startswith("--network=") else one for one in arguments]


def alone(folder, data, network=REGRESSOR, **changes):
    run(folder, data, network=network, optimizer="sgd", **changes)
    return torch.load(folder / "model.pt", weights_only=True)["weights"], pd.read_csv(folder / "history.csv")


def same(one, other, tolerance):
    weights = max((one[0][name].float() - other[0][name].float()).abs().max().item() for name in one[0])
    return weights < tolerance and np.allclose(one[1], other[1], rtol=tolerance, atol=tolerance)


def test_two_processes_with_parts_of_a_batch_train_as_one_does(data, tmp_path):
    one = alone(tmp_path / "one", data)
    assert same(one, alone(tmp_path / "parts", data, accumulate=2), 1e-4)
    subprocess.run(two(tmp_path / "two", data, optimizer="sgd", accumulate=2), check=True, timeout=200)
    weights = torch.load(tmp_path / "two/model.pt", weights_only=True)["weights"]
    assert same(one, (weights, pd.read_csv(tmp_path / "two/history.csv")), 1e-4)
    assert not same(one, alone(tmp_path / "other", data, seed=1), 1e-4), "the comparison can fail"


def test_two_processes_train_as_one_with_channels_covariates_and_an_auxiliary_target(two_channels, tmp_path):  # noqa: F811
    blocks = {"target": AGE | {"auxiliary": [SEX]}, "inputs": BOTH, "network": INSTANCE}
    run(tmp_path / "one", two_channels, **blocks, optimizer="sgd")
    arguments = [*command(tmp_path / "two", two_channels, optimizer="sgd"), "--gpus=2", "--allow-cpu"]
    subprocess.run([*arguments, *(f"--{name}={json.dumps(block)}" for name, block in blocks.items())], check=True, timeout=200)
    one, two = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("one", "two"))
    assert one["covariates"] == two["covariates"]
    assert all(torch.allclose(one["weights"][name], two["weights"][name], atol=1e-4) for name in one["weights"])


def workers_of(process):
    return [child for child in psutil.Process(process.pid).children() if "mriflow.train" in " ".join(child.cmdline())]


def wait_for(there, process):
    while not there():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def stopped_by(act, folder, data):
    """Start a training by two processes, let `act` stop it when a checkpoint is there, and return its exit code and words."""
    arguments = two(folder, data, SFCN_DROPOUT, epochs=60)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    checkpoint = folder / "work/last.ckpt"
    seen = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    wait_for(lambda: checkpoint.exists() and checkpoint.stat().st_mtime_ns != seen, process)
    workers = workers_of(process)
    assert len(workers) == 2
    act(process, workers)
    said = process.communicate(timeout=60)[1]
    assert not psutil.wait_procs(workers, timeout=30)[1], "no process is left behind"
    assert not (folder / "model.pt").exists()
    return process.returncode, said


@pytest.mark.long
def test_two_processes_stopped_in_any_way_leave_none_behind_and_end_with_the_same_bytes(data, tmp_path):
    subprocess.run(two(tmp_path / "whole", data, SFCN_DROPOUT, epochs=60), check=True, timeout=300)
    folder = tmp_path / "broken"
    for number in (signal.SIGUSR1, signal.SIGTERM):
        code, said = stopped_by(lambda process, _: process.send_signal(number), folder, data)  # noqa: B023
        assert (code, "Traceback" in said) == (130, False), said
        assert json.loads((folder / "work/stopped.json").read_text())["reason"] == number.name
    code, said = stopped_by(lambda _, workers: workers[1].kill(), folder, data)
    assert (code, "SIGKILL" in said, "Traceback" in said) == (1, True, False), said
    stopped_by(lambda process, _: process.kill(), folder, data)
    subprocess.run(two(folder, data, SFCN_DROPOUT, epochs=60), check=True, timeout=300)
    assert (folder / "model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()
    assert (folder / "history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()


@pytest.mark.long
def test_two_processes_stop_together_at_the_deadline_and_one_cannot_go_on_for_them(data, tmp_path):
    environment = os.environ | {"JOB_DEADLINE": str(time.time() + 25)}
    ended = subprocess.run(two(tmp_path, data, epochs=100_000), env=environment, capture_output=True, text=True, timeout=100)
    assert (ended.returncode, "Traceback" in ended.stderr) == (130, False), ended.stderr
    assert json.loads((tmp_path / "work/stopped.json").read_text())["reason"] == "walltime"
    before = (tmp_path / "work/last.ckpt").read_bytes()
    single = [one for one in two(tmp_path, data, epochs=100_000) if one != "--gpus=2"]
    ended = subprocess.run(single, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "was begun by 2 process(es), and cannot go on with 1" in ended.stderr
    assert (tmp_path / "work/last.ckpt").read_bytes() == before


def test_stopped_before_its_processes_have_begun_the_launcher_ends(data, tmp_path):
    process = subprocess.Popen(two(tmp_path, data, epochs=60), stderr=subprocess.PIPE, text=True)
    while "training with 2 processes" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, "Traceback" in said) == (130, False), said
    assert not (tmp_path / "model.pt").exists()


def test_a_mistake_of_the_user_is_told_by_several_processes_without_a_traceback(data, tmp_path):
    ended = subprocess.run(two(tmp_path, data, batch_size=3), capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1
    assert "`batch_size: 3` of the training block cannot be shared by 2 process(es)" in ended.stderr
    assert "Traceback" not in ended.stderr
