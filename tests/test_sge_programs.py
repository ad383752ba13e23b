"""What Snakemake calls for its jobs (submit, status, cancel) where something fails. A stand-in for Grid Engine answers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from conftest import ROOT

STUBS = {
    "qsub": 'echo "$*" >> qsubs; echo $((6 + $(wc -l < qsubs)))',
    "qstat": "echo >> looks; for id in $(cat queue 2> /dev/null); do set -- $(tr : ' ' <<< $id); jobs+=\"<job_list>"
    '<JB_job_number>$1</JB_job_number><JB_name>$2</JB_name><state>$3</state></job_list>"; done; echo "<a>$jobs</a>"',
    "qdel": 'echo "$*" >> qdels',
    "python3": f'[ ! -e broken ] || {{ echo no python; exit 1; }}; echo >> pythons; exec {sys.executable} "$@"',
}


class Site:
    """A working directory with the profile and one job, `one`."""

    def __init__(self, folder: Path, elsewhere: Path):
        self.folder, self.bin = folder, elsewhere / "bin"
        shutil.copytree(ROOT / "profiles", elsewhere / "profiles", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        self.profile = elsewhere / "profiles/sge"
        self.change(poll=2)
        self.bin.mkdir()
        for name, script in STUBS.items():
            self.stub(name, script)
        properties = {"rule": "one", "output": ["one.txt"], "resources": {}, "threads": 1}
        (folder / ".snakemake/tmp.1").mkdir(parents=True)
        (folder / ".snakemake/tmp.1/job.1.sh").write_text(f"#!/bin/sh\n# properties = {json.dumps(properties)}\ntrue\n")

    def change(self, **keys):
        file = self.profile / "settings.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | keys))

    def stub(self, name: str, script: str):
        (self.bin / name).write_text(f"#!/bin/bash\n{script}\n")
        (self.bin / name).chmod(0o755)

    def start(self, program: str, *arguments: str) -> subprocess.Popen:
        environment = os.environ | {"PATH": f"{self.bin}:/usr/bin:/bin", "TMPDIR": str(self.bin)}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        output["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # so that no `interrupt` stays
        return subprocess.Popen([self.profile / program, *arguments], cwd=self.folder, env=environment, **output)

    def call(self, program: str, *arguments: str) -> tuple[int, str, str]:
        process = self.start(program, *arguments)
        answer, said = process.communicate(timeout=60)
        return process.returncode, answer.strip(), said

    def submit(self) -> str:
        code, answer, said = self.call("submit", ".snakemake/tmp.1/job.1.sh")
        assert code == 0, said
        return answer

    def lines(self, file: str) -> int:
        path = self.folder / file
        return path.read_text().count("\n") if path.exists() else 0


@pytest.fixture
def site(tmp_path):
    (tmp_path / "work").mkdir()
    return Site(tmp_path / "work", tmp_path)


def test_submission_is_tried_again_where_python_does_not_start(site):
    (site.folder / "broken").touch()
    process = site.start("submit", ".snakemake/tmp.1/job.1.sh")
    time.sleep(1)
    (site.folder / "broken").unlink()
    answer, said = process.communicate(timeout=60)
    assert (process.returncode, answer[:6]) == (0, "7.one-"), said
    assert said.count("trying again in") == 1


def test_submission_that_is_refused_is_not_tried_again(site):
    site.stub("qsub", "echo 'unknown resource' >&2; exit 1")
    code, answer, said = site.call("submit", ".snakemake/tmp.1/job.1.sh")
    assert (code, answer) == (1, "")
    assert "one: qsub refused it: unknown resource" in said and "trying again" not in said


def test_jobs_are_deleted_where_python_does_not_start(site):
    job = site.submit()
    (site.folder / "broken").touch()
    assert site.call("cancel", job)[0] == 0
    assert (site.folder / "qdels").read_text() == "7\n"


def waiting(site) -> str:
    """Submit the job, have it wait in the queue, and look at that once."""
    site.change(poll=60)
    job = site.submit()
    (site.folder / "queue").write_text(f"{job.replace('.', ':')}:qw\n")
    look_anew(site)
    assert site.call("status", job)[1] == "running"
    (site.folder / "pythons").unlink()
    return job


def look_anew(site):
    """Let the last look at the queue be too old."""
    for file in ("queue.json", "waiting"):
        (site.folder / ".snakemake/sge" / file).unlink(missing_ok=True)


def test_job_that_waits_is_told_without_a_python_until_the_next_look_or_its_exit_code(site):
    job = waiting(site)
    for _ in range(5):
        assert site.call("status", job)[1] == "running"
    assert site.lines("pythons") == 0
    code = site.folder / ".snakemake/sge" / job.partition(".")[2] / "1.exit"
    code.write_text("7 0\n")
    assert site.call("status", job)[1] == "success"
    code.unlink()
    (site.folder / "queue").write_text(f"{job.replace('.', ':')}:Eqw\n")
    look_anew(site)
    assert site.call("status", job)[1] == "failed"


def test_job_that_waits_is_told_without_a_python_while_the_master_is_away(site):
    job = waiting(site)
    site.stub("qstat", "exit 1")
    state = site.folder / ".snakemake/sge"
    (state / "queue.json").unlink()
    (state / "waiting").write_text("1\n" + (state / "waiting").read_text().partition("\n")[2])
    for _ in range(3):
        assert site.call("status", job)[1] == "running"
    assert site.lines("pythons") == 1


def test_full_disk_is_told_once_and_waited_for(small_disk, tmp_path):
    site = Site(small_disk, tmp_path)
    job = site.submit()
    fill = small_disk / "fill"
    with open(fill, "wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
        while True:
            stream.write(b"0" * 4096)
    said = ""
    for _ in range(3):
        code, answer, words = site.call("status", job)
        assert (code, answer) == (0, "running")
        said += words
    process = site.start("submit", ".snakemake/tmp.1/job.1.sh")
    time.sleep(3)
    assert process.poll() is None
    fill.unlink()
    answer, words = process.communicate(timeout=60)
    assert process.returncode == 0 and answer.strip() == "8.one-" + job.partition("-")[2], words
    said += words
    assert said.count("No space left on device") == 1, said
    assert "Traceback" not in said
    assert site.lines("qsubs") == 2


def test_log_that_found_no_room_is_told_so(site):
    job = site.submit()
    record = site.folder / ".snakemake/sge" / job.partition(".")[2]
    log = site.folder / "logs/sge/one/7.log"
    log.write_text("OSError: [Errno 28] No space left on device: 'shard.npy'\n")
    (record / "1.exit").write_text("7 1\n")
    time.sleep(1)
    answer = "running"
    while answer == "running":
        _, answer, said = site.call("status", job)
    assert answer == "failed" and "found no room on a disk" in said


def test_job_that_ends_during_the_look_at_the_queue_is_not_taken_for_killed(site):
    job = site.submit()
    code = site.folder / ".snakemake/sge" / job.partition(".")[2] / "1.exit"
    site.stub("qstat", f"echo '7 0' > {code}; echo '<a/>'")
    time.sleep(1)
    look_anew(site)
    assert site.call("status", job)[1] == "success"


def test_training_that_the_site_refused_in_between_is_not_run_again_and_says_so(site):
    name = site.submit().partition(".")[2]
    record = site.folder / ".snakemake/sge" / name
    (record / "2.json").write_text(json.dumps({"time": 0, "mem_mb": 1000}))  # refused: it was given no id
    (record / "2.end").write_text(json.dumps({"why": "error"}))
    script = site.folder / ".snakemake/tmp.1/job.1.sh"
    script.write_text(script.read_text() + "# --attempt 2\n")
    code, answer, said = site.call("submit", ".snakemake/tmp.1/job.1.sh")
    assert code == 0 and "not run again, for it ended with an error of its own" in said
    assert site.call("status", answer)[1] == "failed"
