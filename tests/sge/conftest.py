"""What the tests on a real Grid Engine share. `cell.sh` beside this file starts one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from conftest import ROOT

CELL = "/usr/local/sbin/mriflow-test-cell"  # root's copy of cell.sh, which `cell.sh start` lets this user run


def why_not() -> str:
    """Return why no job can be submitted from this machine; an empty text where one can."""
    if os.geteuid() == 0:
        return "Grid Engine refuses jobs of root; run the tests as the user that tests/sge/cell.sh makes"
    if not Path("/usr/local/sbin/mriflow-test-cell").exists():
        return "not a machine that tests/sge/cell.sh made a cell of, and a cluster in use is not to be tried on"
    try:
        subprocess.run(["qconf", "-sh"], check=True, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return "no Grid Engine on this machine; tests/sge/cell.sh installs and starts one"
    except subprocess.TimeoutExpired:
        return "Grid Engine does not answer; tests/sge/cell.sh starts one"
    except subprocess.CalledProcessError as error:
        return f"Grid Engine does not answer ({' '.join(error.stderr.split())}); tests/sge/cell.sh starts one"
    return ""


@pytest.fixture(scope="session", autouse=True)
def grid_engine():
    """Skip every test of this folder where no Grid Engine answers; fail it where REQUIRE_SGE=1 asks for one."""
    if reason := why_not():
        if os.environ.get("REQUIRE_SGE") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


class Workdir:
    """A working directory on the cell: a Snakefile, and a copy of the profile whose settings suit seconds rather than days.

    Snakemake's output is collected in `log`. What is put into `bin` comes before Grid Engine's own commands.
    """

    def __init__(self, folder: Path, snakefile: str, profile: dict | None = None, **settings):
        folder.mkdir(parents=True)
        self.folder, self.log, self.bin = folder, folder / "snakemake.log", folder / "bin"
        shutil.copytree(ROOT / "profiles", folder / "profiles", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        self.bin.mkdir()
        self.started = []
        (folder / "Snakefile").write_text(snakefile)
        self.change("settings.yaml", {"poll": 1, "grace": 6, "margin": 20} | settings)
        self.change("config.yaml", {"seconds-between-status-checks": 1, "latency-wait": 10} | (profile or {}))

    def change(self, file: str, changes: dict) -> None:
        """Change keys of a file of the profile."""
        path = self.folder / "profiles/sge" / file
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake with the profile, in a process group of its own."""
        path = os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"]])
        command = ["snakemake", "--profile", "profiles/sge", *arguments]
        with open(self.log, "a") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | {"PATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # As from a terminal: what runs the tests may ignore Ctrl-C, and Snakemake with it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.started.append(process)
        return process

    def run(self, *arguments: str, timeout: float = 480) -> int:
        """Run Snakemake to its end and return its exit code; its jobs are deleted if it takes too long."""
        process = self.start(*arguments)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            subprocess.run(["qdel", *self.queue()], check=False)
            pytest.fail(f"not done after {timeout} s:\n{self.output()}")

    def output(self) -> str:
        """Return what Snakemake and the profile have printed."""
        return self.log.read_text() if self.log.exists() else ""

    def read(self, file: str) -> str:
        """Return the text of a file, an empty one if it does not exist."""
        path = self.folder / file
        return path.read_text() if path.is_file() else ""

    def submissions(self, rule: str = "*") -> list[dict]:
        """Return what was submitted for the jobs of a rule, oldest first."""
        records = [file for file in self.folder.glob(f".snakemake/sge/{rule}-*/[0-9]*.json")]
        return sorted((json.loads(file.read_text()) for file in records), key=lambda one: one["time"])

    def queue(self) -> dict[str, str]:
        """Return the jobs of this directory in Grid Engine's queue, id to state."""
        names = {file.parent.name for file in self.folder.glob(".snakemake/sge/*/job.json")}
        answer = subprocess.run(["qstat", "-xml"], capture_output=True, text=True, check=True).stdout
        jobs = ElementTree.fromstring(answer).iter("job_list")
        return {job.findtext("JB_job_number"): job.findtext("state") for job in jobs if job.findtext("JB_name") in names}

    def wait_for(self, condition, what: str, timeout: float = 240) -> None:
        """Wait until `condition()` holds."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"waited {timeout} s for {what}:\n{self.output()}")
            time.sleep(0.2)

    def wait_until_running(self, rule: str) -> str:
        """Wait until the last submission of a rule runs, and return its id."""

        def runs() -> bool:
            submitted = self.submissions(rule)
            return bool(submitted) and self.queue().get(submitted[-1].get("id")) == "r"

        self.wait_for(runs, f"a job of {rule} to run")
        return self.submissions(rule)[-1]["id"]


@pytest.fixture
def workdir(tmp_path):
    """Make working directories of a test; what is left of their Snakemake and jobs is ended after it."""
    made = []

    def make(snakefile: str, name: str = "work", **settings) -> Workdir:
        made.append(Workdir(tmp_path / name, snakefile, **settings))
        return made[-1]

    yield make
    for one in made:
        for process in one.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        if jobs := one.queue():
            subprocess.run(["qdel", *jobs], check=False)


@pytest.fixture
def cell():
    """Do to the cell what its administrators do; its daemons are up again after the test."""

    def do(*command: str) -> None:
        subprocess.run(["sudo", "-n", CELL, *command], check=True, timeout=180)

    if subprocess.run(["sudo", "-n", "-l", CELL, "stop-master"], capture_output=True).returncode:
        pytest.skip(f"this user may not take the cell's daemons down with {CELL}")
    done = []
    yield lambda *command: (done.append(command), do(*command))
    if any("master" in command[0] or "execd" in command[0] for command in done):
        do("start-master")
        do("start-execd")
