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
