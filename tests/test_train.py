import errno
import io
import itertools
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from conftest import ROOT, synthesis, training_inputs, training_settings, write_dataset
from mriflow.base.cli import run_stage
from mriflow.base.errors import UserError
from mriflow.split import split
from mriflow.train import main, train
from mriflow.training.augment import augment, draw_changes, grid_of
from mriflow.training.device import check_card, choose_device
from mriflow.training.distributed import Team
from mriflow.training.forward import channels_last, precision, run_network, work_of
from mriflow.training.loader import Batch, ScanLoader, Shards
from mriflow.training.loop import Part, Trainer
from mriflow.training.memory import MemoryTrial
from mriflow.training.networks import SFCN, build_network, check_end, monai_network
from mriflow.training.objectives import Classification, Regression, SoftLabel, load_objective
from mriflow.training.optimizers import make_optimizer, make_schedule

AGE = {"column": "age", "type": "regression", "classes": [], "auxiliary": []}
SEX = {"column": "sex", "type": "classification", "classes": ["F", "M"], "auxiliary": []}
NONE = dict.fromkeys(("shift_mm", "mirror", "rotate_degrees", "scale", "intensity", "bias_field", "noise"), 0.0)
UNET = {"name": "UNet", "arguments": {"channels": [8, 16], "strides": [2], "num_res_units": 1}}
TISSUES = {"column": "label_map", "type": "segmentation", "classes": ["csf", "gm", "wm"], "auxiliary": []}
SEGMENTATION = {"target": TISSUES, "network": UNET, "inputs": training_inputs(label_map=1)}
SMALL = {"name": "SFCN", "arguments": {"channels": [4, 8, 8], "dropout": 0.2}}


def run(folder, data, target=AGE, inputs=None, network=SMALL, fold=0, seed=0, deadline=None, **changes):
    start = {name: changes.pop(name) for name in ("dataset", "init", "freeze") if name in changes}
    files = {"model": folder / "model.pt", "history": folder / "history.csv", "warnings": folder / "warnings.json"}
    blocks = {"target": target, "inputs": inputs or training_inputs(), "network": network}
    run_of = {"work": folder / "work", "deadline": deadline, "fold": fold, "seed": seed}
    return train(**files, **data, **run_of, **blocks, **start, training=training_settings(**changes))


def command(folder, data, **changes):
    flags = {
        "model": folder / "model.pt",
        "history": folder / "history.csv",
        "warnings": folder / "warnings.json",
        "work": folder / "work",
        "fold": 0,
        "seed": 0,
    }
    flags |= {
        "target": json.dumps(AGE),
        "inputs": json.dumps(training_inputs()),
        "network": json.dumps(SMALL),
        "training": json.dumps(training_settings(**changes)),
    }
    flags |= {name: value for name, value in data.items() if not isinstance(value, list)}
    several = [word for n, v in data.items() if isinstance(v, list) for word in (f"--{n}", *map(str, v))]
    return [sys.executable, "-m", "mriflow.train", *[f"--{n}={v}" for n, v in flags.items()], *several]


def test_history_has_losses_and_metrics_after_every_epoch_and_the_network_learns(data, tmp_path):
    table = run(tmp_path, data, epochs=30)
    assert table["epoch"].tolist() == list(range(1, 31))
    assert {"learning_rate", "train_loss", "val_loss", "val_mae"} <= set(table)
    assert table["train_loss"].tail(3).mean() < 0.6 * table["train_loss"].head(3).mean()
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    assert model["epoch"] == 30
    assert list((tmp_path / "work/tensorboard").glob("events*"))


def test_same_seed_same_bytes_other_seed_other_weights(data, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, data, seed=seed)
    assert (tmp_path / "a/model.pt").read_bytes() == (tmp_path / "b/model.pt").read_bytes()
    assert (tmp_path / "a/history.csv").read_bytes() == (tmp_path / "b/history.csv").read_bytes()
    assert (tmp_path / "a/history.csv").read_bytes() != (tmp_path / "c/history.csv").read_bytes()


def interrupted_training_ends_as_an_uninterrupted_one(data, tmp_path, signals, epochs, **changes):
    """Kill a training by each of `signals` at a random moment, run it to the end, and compare it with a whole one."""
    run(tmp_path / "whole", data, epochs=epochs)
    steps = []
    rng = random.Random(0)
    folder = tmp_path / "broken"
    stopped = 0
    for number in signals:
        process = subprocess.Popen(command(folder, data, epochs=epochs, **changes), stderr=subprocess.PIPE, text=True)
        seen = (folder / "work/last.ckpt").stat().st_mtime_ns if stopped else 0
        while process.poll() is None:
            checkpoint = folder / "work/last.ckpt"
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != seen:
                time.sleep(rng.uniform(0, 0.15))
                process.send_signal(number)
                break
            time.sleep(0.005)
        stopped += process.wait() != 0
        assert "Traceback" not in process.stderr.read()
        steps.append(torch.load(folder / "work/last.ckpt", weights_only=True)["step"])
    assert stopped == len(signals), "a training was over before it was killed: give it more epochs"
    assert not (folder / "model.pt").exists()
    run(folder, data, epochs=epochs)
    assert (folder / "model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()
    assert (folder / "history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()
    return steps


def test_killed_and_interrupted_training_ends_with_the_same_bytes(data, tmp_path):
    signals = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    interrupted_training_ends_as_an_uninterrupted_one(data, tmp_path, signals, epochs=120)


def test_interrupted_it_says_why_and_exits_with_130(data, tmp_path):
    process = subprocess.Popen(command(tmp_path, data, epochs=500), stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "work/last.ckpt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "run the same command again" in said
    stopped = json.loads((tmp_path / "work/stopped.json").read_text())
    assert stopped["reason"] == "SIGINT"
    assert not (tmp_path / "model.pt").exists()


def run_until(looks, folder, data, monkeypatch, **changes):
    """Train with a clock that ticks each time it is looked at, until the deadline, and return where the run stopped."""
    ticks = itertools.count(1)
    monkeypatch.setattr("mriflow.training.stop.time", SimpleNamespace(time=lambda: next(ticks)))
    with pytest.raises(KeyboardInterrupt):
        run(folder, data, deadline=looks, **changes)
    stopped = json.loads((folder / "work/stopped.json").read_text())
    assert stopped.pop("reason") == "walltime"
    assert not (folder / "model.pt").exists()
    return tuple(stopped.values())


@pytest.mark.parametrize("kind", ["age", "maps", "generated", "patches"])
def test_training_stopped_by_the_clock_ends_with_the_same_bytes(kind, data, labelled, tmp_path, monkeypatch):
    data, options = (data, {}) if kind == "age" else (labelled, SEGMENTATION)
    options = options | ({"synthesis": synthesis()} if kind == "generated" else {})
    options = options | ({"patch": [8, 12, 8]} if kind == "patches" else {})
    run(tmp_path / "whole", data, **options)
    folder = tmp_path / "broken"
    stops = []
    # Looked at before an epoch and after each of its three steps: in mid-epoch, before validation and after it.
    for looks in (3, 3, 2, 3):
        stops.append(run_until(looks, folder, data, monkeypatch, **options))
        saved = torch.load(folder / "work/last.ckpt", weights_only=True)
        assert stops[-1] == (saved["epoch"], saved["step"])
    assert stops == [(0, 2), (1, 0), (1, 1), (1, 3)]
    run(folder, data, deadline=time.time() + 3600, **options)
    assert not (folder / "work/stopped.json").exists()
    assert (folder / "model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()
    assert (folder / "history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()


def test_after_the_deadline_nothing_is_trained_and_a_finished_training_is_written(data, tmp_path, monkeypatch):
    assert run_until(0, tmp_path, data, monkeypatch) == (0, 0)
    stop = run_until(7, tmp_path, data, monkeypatch)
    checkpoint = tmp_path / "work/last.ckpt"
    before = checkpoint.stat().st_mtime_ns, checkpoint.read_bytes()
    assert run_until(0, tmp_path, data, monkeypatch) == stop == (1, 2)
    assert (checkpoint.stat().st_mtime_ns, checkpoint.read_bytes()) == before
    run(tmp_path, data)
    model = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").unlink()
    run(tmp_path, data, deadline=0)
    assert (tmp_path / "model.pt").read_bytes() == model
    assert not (tmp_path / "work/stopped.json").exists()


def test_deadline_comes_from_the_environment_of_the_job(data, tmp_path, monkeypatch, capsys):
    arguments = command(tmp_path, data)[3:]
    for wrong in ("soon", "nan"):
        monkeypatch.setenv("JOB_DEADLINE", wrong)
        with pytest.raises(SystemExit):
            main(arguments)
        assert f"--deadline: '{wrong}', of the flag or of JOB_DEADLINE, is no number of seconds" in capsys.readouterr().err
    monkeypatch.setenv("JOB_DEADLINE", "1700000000.5")
    with pytest.raises(SystemExit) as ended:
        run_stage(lambda: main(arguments))
    assert ended.value.code == 130
    assert json.loads((tmp_path / "work/stopped.json").read_text()) == {"reason": "walltime", "epoch": 0, "step": 0}
    main([*arguments, f"--deadline={time.time() + 3600}"])
    assert (tmp_path / "model.pt").exists(), "the flag goes before the environment"
    monkeypatch.setenv("JOB_DEADLINE", "")
    main(arguments)


def test_checkpoint_of_other_settings_or_data_is_not_used_and_not_lost(data, tmp_path, caplog):
    run(tmp_path, data, epochs=2)
    fresh = run(tmp_path / "fresh", data, epochs=2, learning_rate=0.02)
    again = run(tmp_path, data, epochs=2, learning_rate=0.02)
    assert "of other data or settings" in caplog.text
    assert again.equals(fresh)
    assert len(list((tmp_path / "work").glob("*-last.ckpt"))) == 1


def test_damaged_checkpoint_is_put_aside_and_the_one_before_it_is_used(data, tmp_path, caplog):
    whole = run(tmp_path, data)
    model = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "work/last.ckpt").write_bytes((tmp_path / "work/last.ckpt").read_bytes()[:5000])
    caplog.set_level("INFO")
    assert run(tmp_path, data).equals(whole)
    assert "last.ckpt cannot be read" in caplog.text
    assert "going on after epoch 3, step 0" in caplog.text
    assert (tmp_path / "model.pt").read_bytes() == model
    for name in ("last", "previous"):
        (tmp_path / f"work/{name}.ckpt").write_bytes(b"damaged")
    caplog.clear()
    assert run(tmp_path, data).equals(whole)
    assert "going on after" not in caplog.text
    assert (tmp_path / "work/damaged-previous.ckpt").exists()


def test_a_full_disk_keeps_the_checkpoint_before(data, tmp_path, monkeypatch):
    run_until(7, tmp_path, data, monkeypatch)
    monkeypatch.undo()
    before = (tmp_path / "work/last.ckpt").read_bytes()

    def no_space(_, stream):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mriflow.training.checkpoint.torch.save", no_space)
    with pytest.raises(OSError, match="No space"):
        run(tmp_path, data)
    assert (tmp_path / "work/last.ckpt").read_bytes() == before


def test_a_write_that_fails_for_a_moment_is_made_again(data, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", data)
    save, failures = torch.save, iter([errno.ESTALE, errno.EIO])

    class Failing(io.RawIOBase):
        def writable(self):
            return True

        def write(self, _):
            raise OSError(number, "the machine")

    def fails_at_first(state, stream):
        nonlocal number
        number = next(failures, None)
        save(state, Failing() if number else stream)

    number = None
    monkeypatch.setattr("mriflow.training.checkpoint.torch.save", fails_at_first)
    monkeypatch.setattr("mriflow.base.files.PAUSES", (0, 0, 0))
    assert run(tmp_path, data).equals(whole)
    assert next(failures, None) is None


@pytest.mark.parametrize("error", [OSError(errno.ESTALE, "stale"), MemoryError(), RuntimeError("can't allocate memory")])
def test_checkpoint_that_the_machine_cannot_read_now_is_not_taken_for_damaged(data, tmp_path, monkeypatch, error):
    whole = run(tmp_path, data)
    before = sorted(path.name for path in (tmp_path / "work").glob("*.ckpt"))

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("mriflow.training.checkpoint.torch.load", fail)
    with pytest.raises(UserError, match=r"last.ckpt: cannot be read now .* It is kept"):
        run(tmp_path, data)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "work").glob("*.ckpt")) == before
    assert run(tmp_path, data).equals(whole)


def test_checkpoints_are_saved_within_an_epoch_and_change_nothing(data, tmp_path):
    run(tmp_path / "whole", data)
    folder = tmp_path / "often"
    process = subprocess.Popen(command(folder, data, epochs=4, checkpoint_minutes=1e-9), stderr=subprocess.DEVNULL)
    checkpoint = folder / "work/last.ckpt"
    seen = set()
    while process.poll() is None:
        with suppress(FileNotFoundError):
            state = torch.load(checkpoint, weights_only=True)
            seen.add((state["epoch"], state["step"]))
    assert any(step for _, step in seen), seen
    assert (folder / "model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()


def test_shards_copied_to_scratch_give_the_same_and_leave_nothing_there(data, tmp_path, monkeypatch, caplog):
    run(tmp_path / "whole", data)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    caplog.set_level("INFO")
    main(command(tmp_path / "copied", data, copy_to_scratch=True)[3:])
    assert f"copying 0.0 GB to {scratch}" in caplog.text
    assert not list(scratch.iterdir())
    assert (tmp_path / "copied/model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    main(command(tmp_path / "full", data, copy_to_scratch=True)[3:])
    assert "read where they are" in caplog.text
    assert (tmp_path / "full/model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signal_before_the_training_begins_ends_it_in_order(data, tmp_path, number):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    arguments = command(tmp_path, data, copy_to_scratch=True, epochs=1000)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(scratch)})
    while not list(scratch.glob("*/0.npy")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, "Traceback" in said) == (130, False), said
    assert "run the same command again" in said
    assert not list(scratch.glob("*/*.npy"))


@pytest.mark.parametrize(("flags", "said"), [
    (["--profile"], "as it is trained"),
    (["--fast-dev-run"], "val_loss"),
    (["--overfit=4"], "val_loss"),
])  # fmt: skip
def test_looking_into_a_training_prints_and_writes_nothing(data, tmp_path, capsys, flags, said):
    epochs = 1 if flags == ["--profile"] else 15
    main([*command(tmp_path / "look", data, epochs=epochs, learning_rate=0.02)[3:], *flags])
    printed = capsys.readouterr().out
    assert said in printed
    assert not (tmp_path / "look").exists()
    if flags == ["--profile"]:
        assert all(part in printed for part in ("input", "augment", "forward", "backward", "optimiser", "checkpoint"))
    if flags == ["--overfit=4"]:
        losses = [float(line.split()[2]) for line in printed.splitlines()[1:]]
        assert losses[-1] < 0.7 * losses[0]


def test_batch_that_does_not_fit_into_memory_is_told_with_one_that_does(tmp_path):
    data = write_dataset(tmp_path, subjects=56, shape=(48, 48, 48))
    split(data["labels"], tmp_path / "splits.csv", target="age", folds=2, validation=0.3)
    wide = {"name": "SFCN", "arguments": {"channels": [64, 64, 8]}}
    data |= {"splits": tmp_path / "splits.csv", "network": json.dumps(wide)}
    # As a cluster's limit on memory does: the allocation fails.
    limit = "import psutil, resource, runpy, torch; used = psutil.Process().memory_info().vms; "
    limit += "import mriflow.training.loop; resource.setrlimit(resource.RLIMIT_AS, 2 * (used + 2_000_000_000,)); "
    limit += "runpy.run_module('mriflow.train', run_name='__main__')"

    def run_limited(**changes):
        flags = command(tmp_path, data, batch_size=16, **changes)[3:]
        return subprocess.run([sys.executable, "-c", limit, *flags], capture_output=True, text=True, timeout=200)

    ended = run_limited()
    assert ended.returncode == 1, ended.stderr
    assert "error: 16 scans of 48x48x48 voxels do not fit into the memory of this cpu" in ended.stderr
    told = re.search(r"[248] scans fit. Set `batch_size: [248]` in the training block, or `accumulate: ([248])`", ended.stderr)
    assert told, ended.stderr
    assert "Traceback" not in ended.stderr
    followed = run_limited(accumulate=int(told[1]), epochs=1)
    assert followed.returncode == 0, followed.stderr


@pytest.mark.parametrize(("block", "fit", "told"), [
    ({"batch_size": 3}, 2, "2 scans fit. Set `batch_size: 2` in the training block."),
    ({"batch_size": 16, "accumulate": 4}, 2, "2 scans fit. Set `batch_size: 8` in the training block, or `accumulate: 8`"),
    ({"batch_size": 12}, 5, "4 scans fit. Set `batch_size: 4` in the training block, or `accumulate: 3`"),
    ({"batch_size": 4}, 1, "Not even 2 scans fit"),
])  # fmt: skip
def test_advice_on_memory_names_a_batch_that_is_allowed(tmp_path, monkeypatch, block, fit, told):
    monkeypatch.setattr(MemoryTrial, "fits", lambda self, count, scans, shape: self.reserve.closed and count <= fit)
    trainer = make_trainer(tmp_path, **block)
    assert told in trainer.memory.advice(
        trainer.micro_batch, trainer.settings, SimpleNamespace(shape=(8, 8, 8)), 1, "no memory"
    )


def make_trainer(folder, rank=0, size=1, **changes):
    net = build_network("SFCN", SMALL["arguments"], 1, (8, 8, 8))
    settings = training_settings(**changes)
    return Trainer(net, Regression("l2", 50, 15), settings, 20, folder, "", 0, Team(torch.device("cpu"), rank, size), 4)


def test_processes_share_each_part_of_a_batch(tmp_path, monkeypatch):
    """So that shared batch norm sees the scans that it sees in one process."""
    monkeypatch.setattr("mriflow.training.loop.share", lambda net, team: net)

    class Recorder:
        shape, labels = (8, 8, 8), torch.zeros(20, 1)

        def __len__(self):
            return 20

        def batches(self, positions, size):
            self.asked = [set(part.tolist()) for part in positions.split(size)]
            for _ in self.asked:
                yield Batch(torch.zeros(size, 1, *self.shape), torch.zeros(size, 0), torch.zeros(size, 1))

    def parts_of(rank, size):
        scans = Recorder()
        trainer = make_trainer(tmp_path, rank, size, batch_size=8, accumulate=2)
        trainer.shared, trainer.team = None, SimpleNamespace(rank=rank, size=size, total=lambda value: value)
        next(trainer.train_steps(Part(scans, np.arange(20.0), [])))
        return scans.asked

    one, first, second = parts_of(0, 1), parts_of(0, 2), parts_of(1, 2)
    assert [len(part) for part in one] == [4] * 4
    assert [len(part) for part in first] == [2] * 4
    assert [a | b for a, b in zip(first, second, strict=True)] == one


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_kept():
    program = """
import resource, torch
from mriflow.training.device import choose_device
choose_device()
def faults():
    torch.ones(5_000_000).sum(), [torch.ones(20_000_000) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = [faults() for _ in range(6)][-1]
print(faults() - before)
"""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", one], check=True, capture_output=True, text=True).stdout)
        for one in (program, program.replace("choose_device()\n", ""))
    )
    assert kept < 1000 < given_back


def test_network_that_cannot_be_compiled_is_trained_as_it_is(data, tmp_path, monkeypatch, caplog):
    whole = run(tmp_path / "whole", data)

    def no_compiler(net):
        def fail(batch):
            raise RuntimeError("no compiler found")

        return fail

    monkeypatch.setattr("torch.compile", no_compiler)
    assert run(tmp_path / "compiled", data, compile=True).equals(whole)
    assert "cannot be compiled, going on without: no compiler found" in caplog.text


@pytest.mark.parametrize(("bf16", "wanted"), [(True, torch.bfloat16), (False, torch.float16)])
def test_precision_is_what_the_card_has(monkeypatch, bf16, wanted):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: bf16)
    cuda = torch.device("cuda")
    assert precision(cuda, {"mixed_precision": "auto"}, lambda: 0) == wanted
    assert precision(cuda, {"mixed_precision": "off"}, lambda: 1e6) == torch.float32


def processor(monkeypatch, bfloat16):
    """Take this processor for one that multiplies in bfloat16, or does not."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": bfloat16})


def test_on_a_cpu_that_has_bfloat16_wide_networks_are_trained_in_it(monkeypatch):
    cpu, auto = torch.device("cpu"), {"mixed_precision": "auto"}
    networks = yaml.safe_load((ROOT / "config/config.yaml").read_text())["networks"]

    def of(name, settings, channels=1):
        net = build_network("SFCN", networks[name]["arguments"], 1, (40, 48, 40), channels)
        return precision(cpu, settings, lambda: work_of(net, (40, 48, 40), channels))

    processor(monkeypatch, True)
    assert [of("sfcn", auto), of("sfcn-small", auto), of("sfcn-small", auto, 4)] == [torch.bfloat16, *[torch.float32] * 2]
    assert of("sfcn", {"mixed_precision": "off"}) == torch.float32
    processor(monkeypatch, False)
    assert of("sfcn", auto) == torch.float32


WIDE = {"name": "SFCN", "arguments": {"channels": [32, 64, 8], "dropout": 0.2}}


def test_training_in_bfloat16_learns_as_in_float32_and_ends_with_the_same_bytes_when_resumed(
    data, tmp_path, monkeypatch, caplog
):
    processor(monkeypatch, True)
    caplog.set_level("INFO")
    options = {"network": WIDE, "epochs": 8}
    short = run(tmp_path / "whole", data, **options)
    assert "computing in bfloat16" in caplog.text
    plain = run(tmp_path / "float32", data, mixed_precision="off", **options)
    assert not short.equals(plain)
    assert short["train_loss"].tolist() == pytest.approx(plain["train_loss"].tolist(), rel=0.1)
    with monkeypatch.context() as clock:
        for looks in (3, 6, 5):
            run_until(looks, tmp_path / "broken", data, clock, **options)
    run(tmp_path / "broken", data, **options)
    assert (tmp_path / "broken/model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()


def test_scans_are_changed_in_float32_whatever_the_precision_of_the_network():
    """On a GPU a Fourier transform fails in bfloat16: a rotation of the scans that are looked at when a training ends."""
    shards = Shards([np.full((2, 8, 8, 8), 128, np.uint8)], {"a": (0, 0), "b": (0, 1)})
    scans = ScanLoader(shards, ["a", "b"], torch.device("cpu"))
    seen = []

    def change(images, places):
        seen.append((images @ images).dtype)
        return images

    run_network(build_network("SFCN", {"channels": [4, 4]}, 1, (8, 8, 8)), scans, 1, precision=torch.bfloat16, change=change)
    assert seen == [torch.float32] * 2


@pytest.mark.parametrize("channels", [1, 3])
def test_the_channels_of_a_voxel_lie_beside_each_other_on_a_gpu(channels):
    images = torch.rand(2, channels, 4, 5, 6)
    on_gpu = SimpleNamespace(shape=images.shape, device=torch.device("cuda"), as_strided=images.as_strided)
    on_gpu.contiguous = lambda memory_format: images.contiguous(memory_format=memory_format) if channels > 1 else on_gpu
    laid = channels_last(on_gpu)
    assert laid.equal(images)
    assert laid.stride() == (120 * channels, 1, 30 * channels, 6 * channels, channels)


@pytest.mark.parametrize("bfloat16", [True, False])
def test_training_goes_on_in_the_precision_in_which_it_was_begun(data, tmp_path, monkeypatch, caplog, bfloat16):
    processor(monkeypatch, bfloat16)
    run(tmp_path / "whole", data, network=WIDE)
    with monkeypatch.context() as clock:
        run_until(4, tmp_path / "moved", data, clock, network=WIDE)
    processor(monkeypatch, not bfloat16)
    run(tmp_path / "moved", data, network=WIDE)
    assert ("begun in bfloat16, which this processor lacks" in caplog.text) == bfloat16
    assert (tmp_path / "moved/model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()


def test_job_that_sees_fewer_gpus_than_it_asked_for_stops(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match=r"asked for 2 GPUs and sees 1 \(CUDA_VISIBLE_DEVICES is"):
        choose_device(2, allow_cpu=True)


def test_finished_training_run_again_does_not_train(data, tmp_path):
    run(tmp_path, data)
    first = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").unlink()
    written = (tmp_path / "work/last.ckpt").stat().st_mtime_ns
    run(tmp_path, data)
    assert (tmp_path / "model.pt").read_bytes() == first
    assert (tmp_path / "work/last.ckpt").stat().st_mtime_ns == written


def test_early_stopping(data, tmp_path):
    table = run(tmp_path, data, epochs=200, early_stopping=3, select="best", learning_rate=1e-9)
    best = table["val_loss"].idxmin()
    assert len(table) - 1 - best == 3
    assert torch.load(tmp_path / "model.pt", weights_only=True)["epoch"] == best + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "l2", "optimizer": "sgd", "schedule": "cosine"},
        {"loss": "soft-label", "bins": [10, 90], "schedule": "step"},
    ],
)
def test_every_regression_loss_optimiser_and_schedule_trains(data, tmp_path, changes):
    table = run(tmp_path, data, epochs=6, **changes)
    assert np.isfinite(table.drop(columns="epoch")).all().all()


def test_classification_learns_and_reports_accuracy(data, tmp_path):
    table = run(tmp_path, data, target=SEX, epochs=60, augmentation=NONE)
    assert {"val_accuracy", "val_auc"} <= set(table)
    assert table["train_loss"].iloc[-1] < 0.45


@pytest.mark.parametrize(("target", "changes"), [
    (AGE, {"loss": "l2"}),
    (SEX, {}),
    (AGE, {"loss": "l1", "epochs": 1, "batch_size": 12}),  # in the last step: the training loss was measured before it
])  # fmt: skip
def test_divergence_is_told_and_nothing_is_written(data, tmp_path, target, changes):
    with pytest.raises(UserError, match="training diverged. Lower `learning_rate`"):
        run(tmp_path, data, target=target, optimizer="sgd", learning_rate=1e30, schedule="constant", **changes)
    assert not (tmp_path / "model.pt").exists()


def test_full_disk_ends_with_a_clear_error(data, small_disk):
    (small_disk / "filler").write_bytes(bytes(1000 * 1024))
    ended = subprocess.run(command(small_disk, data), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "no space left" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (small_disk / "model.pt").exists()


def test_gpu_asked_for_and_not_seen_stops_with_a_remedy():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="asked for 1 GPU and sees none.*allow_cpu"):
        choose_device(1, allow_cpu=False)
    assert choose_device(1, allow_cpu=True).type == "cpu"


def test_card_that_this_pytorch_was_not_built_for_is_told():
    check_card("H200", (9, 0), ["sm_80", "sm_90"])
    check_card("RTX 3090", (8, 6), ["sm_80", "sm_90"])
    check_card("new", (12, 0), ["sm_90", "compute_90"])
    with pytest.raises(UserError, match=r"1080 Ti has compute capability 6.1.*sm_75"):
        check_card("GTX 1080 Ti", (6, 1), ["sm_75", "sm_80", "compute_90"])


def test_sfcn_is_that_of_the_paper():
    net = SFCN(40)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(2.95e6, rel=0.01)
    names = set(net.state_dict())
    assert {
        "feature_extractor.conv_0.0.weight",
        "feature_extractor.conv_5.1.running_mean",
        "classifier.conv_6.weight",
    } <= names
    net.eval()
    assert net(torch.zeros(1, 1, 64, 64, 64)).shape == (1, 40)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("DenseNet121", {}),
        ("SEResNet50", {}),
        ("resnet18", {}),
        ("EfficientNetBN", {"model_name": "efficientnet-b0"}),
        ("Regressor", {"channels": [4, 8], "strides": [2, 2]}),
        ("ResNet", {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 8]}),
    ],
)
def test_any_3d_network_of_monai_by_name(name, arguments):
    net = build_network(name, arguments, 3, (32, 32, 32))
    assert sum(p.numel() for p in net.parameters()) > 0


def test_wrong_network_is_told():
    with pytest.raises(UserError, match="no network 'DenseNet12'.*DenseNet121"):
        build_network("DenseNet12", {}, 1, (32, 32, 32))
    with pytest.raises(UserError, match="arguments .*groth.*growth_rate"):
        build_network("DenseNet121", {"groth": 3}, 1, (32, 32, 32))
    with pytest.raises(UserError, match="halves the grid 5 times, too often for"):
        build_network("SFCN", {}, 1, (16, 16, 16))
    bounded = build_network("Discriminator", {"channels": [4, 8], "strides": [2, 2]}, 1, (32, 32, 32))
    with pytest.raises(UserError, match="ends in Sigmoid, so that its outputs stay within bounds"):
        check_end(bounded, "Discriminator")
    arguments = {"channels": [4, 8], "strides": [2, 2], "last_act": None}
    check_end(build_network("Discriminator", arguments, 1, (32, 32, 32)), "Discriminator")
    assert monai_network("ViT", 1, (32, 32, 32), 1)[1]["post_activation"] == "none"
    with pytest.raises(UserError, match="no network that classifies"):
        build_network("UNet", {"channels": [4, 8], "strides": [2]}, 1, (32, 32, 32))


@pytest.mark.parametrize(
    ("objective", "labels"),
    [
        (Regression("l1", 50, 10), np.array([20.0, 45.5, 81.0])),
        (SoftLabel(10, 90, 1, 1), np.array([20.0, 45.5, 81.0])),
        (Classification(["F", "M"], [1, 1]), np.array(["F", "M", "M"])),
    ],
)
def test_objective_predicts_what_it_encodes_and_survives_saving(objective, labels):
    objective = load_objective(json.loads(json.dumps(objective.state())))
    encoded = objective.encode(labels)
    if isinstance(objective, Classification):
        outputs = torch.nn.functional.one_hot(encoded[:, 0].long(), 2).float() * 50
        assert (np.array(["F", "M"])[objective.predict(outputs).argmax(1)] == labels).all()
    else:
        outputs = encoded if isinstance(objective, Regression) else encoded.clamp(min=1e-30).log()
        assert objective.predict(outputs) == pytest.approx(labels, abs=0.05)
    perfect = objective.loss(outputs, encoded).item()
    assert perfect <= 1e-5
    assert objective.loss(outputs.flip(0) + 1, encoded).item() > perfect


def test_label_outside_the_bins_goes_to_the_nearest():
    encoded = SoftLabel(40, 80, 1, 1).encode(np.array([20.0, 95.0]))
    assert encoded.argmax(1).tolist() == [0, 39]
    assert encoded.sum(1).tolist() == pytest.approx([1, 1])


def test_class_weights_balance_the_classes():
    weights = Classification(["F", "M"], [1.0, 3.0])
    outputs, truth = torch.zeros(4, 2), torch.tensor([[0.0], [0], [0], [1]])
    assert weights.loss(outputs, truth).item() == pytest.approx(np.log(2), abs=1e-6)
    one_sided = torch.tensor([[2.0, 0.0]]).repeat(4, 1)
    assert weights.loss(one_sided, truth) > Classification(["F", "M"], [1.0, 1.0]).loss(one_sided, truth)


def augmented(scans, settings, seed=0):
    return augment(scans, draw_changes(len(scans), 4, settings, torch.Generator().manual_seed(seed)), settings)


def blob():
    scan = torch.zeros(1, 1, 16, 20, 24)
    scan[0, 0, 3:6, 8:12, 10:14] = 1
    return scan


def test_augmentation_off_changes_nothing():
    assert torch.allclose(augmented(blob(), NONE), blob(), atol=1e-5)


def test_mirror_swaps_left_and_right_alone():
    assert torch.allclose(augmented(blob(), NONE | {"mirror": 1.0}), blob().flip(2), atol=1e-5)


def test_shift_moves_by_whole_voxels_no_more_than_asked_and_along_every_axis():
    scans = blob().repeat(64, 1, 1, 1, 1)
    moved = augmented(scans, NONE | {"shift_mm": 11.0})
    for axis in (2, 3, 4):
        dims = [d for d in (1, 2, 3, 4) if d != axis]
        where = torch.arange(scans.shape[axis], dtype=torch.float32)
        centre = lambda s: (s.sum(dims) @ where) / s.sum((1, 2, 3, 4))  # noqa: B023, E731
        shifts = centre(moved) - centre(scans)
        assert shifts.tolist() == pytest.approx(shifts.round().tolist(), abs=1e-4)
        assert shifts.abs().max() == pytest.approx(2, abs=1e-4)
        assert shifts.std() > 0.7


def ball(shape=(24, 32, 28)):
    """A ball with soft edges, off the centre."""
    places = torch.meshgrid(*(torch.arange(count) - count / 2 for count in shape), indexing="ij")
    distance = sum(((place - off) / 6) ** 2 for place, off in zip(places, (2, -3, 1), strict=True)) ** 0.5
    return (torch.sigmoid(6 * (1 - distance)) * (distance < 1.6))[None, None]


def test_rotation_keeps_volume_and_turns_as_interpolation_does_on_a_grid_with_unequal_sides():
    scans = ball().repeat(16, 1, 1, 1, 1)
    settings = NONE | {"rotate_degrees": 20.0, "scale": 0.1}
    turned = augmented(ball().repeat(16, 1, 1, 1, 1), NONE | {"rotate_degrees": 20.0})
    assert turned.sum((1, 2, 3, 4)).tolist() == pytest.approx([ball().sum().item()] * 16, rel=0.01)
    changes = draw_changes(16, 4, settings, torch.Generator().manual_seed(0))
    linear = torch.nn.functional.grid_sample(scans, grid_of(changes.matrices, scans.shape[2:]), align_corners=False)
    assert (augment(scans, changes, settings) - linear).abs().max() < 0.15
    assert (linear - scans).abs().mean() > 0.005


def test_noise_and_intensity_leave_the_background_black():
    changed = augmented(blob(), NONE | {"noise": 0.2, "intensity": 0.2})
    assert (changed[blob() == 0] == 0).all()
    assert changed[blob() > 0].std() > 0.01


def test_batches_hold_the_scans_asked_for_from_any_shard_and_from_memory_alike():
    arrays = [np.stack([np.full((4, 4, 4), i, np.uint8) for i in numbers]) for numbers in ((0, 1), (2, 3, 4, 5), (6,))]
    places = [(number, row) for number, array in enumerate(arrays) for row in range(len(array))]
    shards = Shards(arrays, {f"scan-{number}": place for number, place in enumerate(places)})
    volumes = ScanLoader(shards, [f"scan-{n}" for n in (6, 1, 4, 3)], torch.device("cpu"))
    positions = torch.tensor([3, 0, 1, 2, 0, 2, 1])
    wanted = [[3, 6, 1], [4, 6, 4], [1]]
    for resident in (None, volumes.read(torch.arange(4))):
        volumes.resident = resident
        found = [[round(v * 255) for v in batch.images[:, 0, 0, 0, 0].tolist()] for batch in volumes.batches(positions, 3)]
        assert found == wanted


def test_bias_field_is_smooth_bounded_and_of_each_scan_its_own():
    scans = torch.full((8, 1, 20, 24, 20), 0.5)
    fields = (augmented(scans, NONE | {"bias_field": 0.3}) / scans).log()
    assert 0.1 < fields.abs().max() <= 0.3 + 1e-5
    assert fields.diff(dim=2).abs().max() < 0.1
    assert (fields[0] - fields[1]).abs().max() > 0.05


def test_noise_of_a_scan_does_not_depend_on_the_batch_it_is_in():
    settings = NONE | {"noise": 0.2, "shift_mm": 8.0}
    scans = torch.rand(4, 1, 16, 16, 16)
    changes = draw_changes(4, 4, settings, torch.Generator())
    whole = augment(scans, changes, settings)
    parts = [augment(scans[part], changes.at(part), settings) for part in (slice(0, 1), slice(1, 4))]
    assert torch.equal(whole, torch.cat(parts))


def test_schedules_end_low():
    net = torch.nn.Linear(1, 1)
    for name in ("one-cycle", "cosine", "step"):
        options = training_settings(schedule=name, epochs=10)
        optimizer = make_optimizer(net, options)
        schedule = make_schedule(optimizer, options, 5)
        rates = []
        for _ in range(50):
            optimizer.step()
            schedule.step()
            rates.append(optimizer.param_groups[0]["lr"])
        assert max(rates) <= 0.01 + 1e-9
        assert rates[-1] < 0.003


@pytest.mark.long
def test_twenty_kills_at_random_moments(data, tmp_path):
    signals = [signal.SIGKILL] * 20
    steps = interrupted_training_ends_as_an_uninterrupted_one(data, tmp_path, signals, epochs=300, checkpoint_minutes=1e-9)
    assert any(steps), "some within an epoch"


def test_leak_in_splits_stops_training(data, tmp_path):
    table = pd.read_csv(data["splits"])
    table.loc[table["part"] == "train", "subject"] = "one"
    table.loc[table["part"] == "test", "subject"] = "one"
    table.to_csv(tmp_path / "leaky.csv", index=False)
    with pytest.raises(UserError, match="leak"):
        run(tmp_path, data | {"splits": tmp_path / "leaky.csv"})
    assert sorted(os.listdir(tmp_path)) == ["leaky.csv", "work"]
    assert not os.listdir(tmp_path / "work")
