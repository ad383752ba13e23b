"""One process alone trains in a work folder, and what a dead one left holds up nobody for longer than is said."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mriflow.base.errors import UserError
from mriflow.discard import discard
from mriflow.training import lock
from mriflow.training.lock import refresh, sole_writer

HOLD = """
import sys, time
from pathlib import Path
from mriflow.base.errors import UserError
from mriflow.training.lock import sole_writer
try:
    with sole_writer(Path(sys.argv[1]), 5):
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
except UserError as error:
    print(error, flush=True)
"""


def holder(work, seconds=60.0):
    command = [sys.executable, "-c", HOLD, str(work), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_second_process_is_told_who_trains_there(tmp_path):
    first = holder(tmp_path)
    assert first.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"process {first.pid} on .* trains here, and two must not"), sole_writer(tmp_path, 5):
        pass
    first.kill()
    first.wait()


def test_lock_of_a_killed_process_is_taken_over_at_once_and_removed_in_the_end(tmp_path):
    first = holder(tmp_path)
    first.stdout.readline()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    begun = time.monotonic()
    with sole_writer(tmp_path, 5):
        assert json.loads((tmp_path / lock.NAME).read_text())["process"] == os.getpid()
    assert time.monotonic() - begun < 5
    assert not list(tmp_path.iterdir())


def test_of_many_processes_that_find_a_stale_lock_one_takes_it(tmp_path):
    write_lock(tmp_path, process=2**22 + 1, began="1")
    every = [holder(tmp_path, 8) for _ in range(6)]
    said = [one.communicate()[0] for one in every]
    assert sorted(text == "held\n" for text in said) == [False] * 5 + [True], said


def write_lock(work, **changes):
    mine = {"host": lock.socket.gethostname(), "process": os.getpid(), "began": lock.began(os.getpid()), "job": ""}
    (work / lock.NAME).write_text(json.dumps(mine | changes))


@pytest.mark.parametrize(("job", "before"), [("7", "6 7"), ("7", "")])
def test_silent_lock_of_another_host_is_waited_for(tmp_path, monkeypatch, job, before):
    write_lock(tmp_path, host="elsewhere", job=job)
    monkeypatch.setenv("JOB_BEFORE", before)
    monkeypatch.setattr(lock, "MINUTES_AFTER_ITS_JOB", 1 / 60)
    monkeypatch.setattr(lock, "LEAST_MINUTES", 3 / 60)
    begun = time.monotonic()
    with sole_writer(tmp_path, 1e-6):
        assert (1 if before else 3) <= time.monotonic() - begun < 8


def test_lock_that_another_host_touches_is_not_taken(tmp_path):
    write_lock(tmp_path, host="elsewhere")
    threading.Timer(1.5, os.utime, [tmp_path / lock.NAME]).start()
    with pytest.raises(UserError, match="on elsewhere trains here"), sole_writer(tmp_path, 5):
        pass


def test_process_that_was_taken_for_dead_does_not_save(tmp_path):
    with sole_writer(tmp_path, 5):
        refresh(tmp_path)
        write_lock(tmp_path, host="elsewhere", job="8")
        with pytest.raises(UserError, match="job 8, process .* on elsewhere trains here now"):
            refresh(tmp_path)
    assert (tmp_path / lock.NAME).exists()


def learned(folder):
    """Write what a run leaves in the folder of an experiment."""
    for name in ("fold-0_seed-0", "fold-1_seed-0", "search/0a1b2c3d/fold-0_seed-0"):
        (folder / name / "work").mkdir(parents=True)
        (folder / name / "work/last.ckpt").touch()
        (folder / name / "model.pt").touch()
    for name in ("splits.csv", "balance.csv", "balance.html", "metrics.json", "search.csv"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("folds", "left"), [((), []), ((1,), ["fold-0_seed-0", "search", "search.csv"])], ids=["the experiment", "a fold"]
)
def test_discard_removes_what_is_learned_with_its_checkpoints_and_leaves_the_split(tmp_path, folds, left):
    folder = learned(tmp_path / "age")
    discard(folder, folds)
    assert sorted(path.name for path in folder.iterdir()) == ["balance.csv", "balance.html", *left, "splits.csv"]


def test_discard_removes_nothing_while_one_trains_or_where_nothing_is_meant(tmp_path):
    folder = learned(tmp_path / "age")
    first = holder(folder / "fold-1_seed-0/work")
    first.stdout.readline()
    with pytest.raises(UserError, match=rf"process {first.pid} on .* trains here"):
        discard(folder)
    first.kill()
    first.wait()
    assert (folder / "fold-0_seed-0/model.pt").exists()
    with pytest.raises(UserError, match="--folds: found 4, but .* the folds \\[0, 1\\]"):
        discard(folder, [4])
    with pytest.raises(UserError, match="found no splits.csv, expected the folder of an experiment"):
        discard(tmp_path)
