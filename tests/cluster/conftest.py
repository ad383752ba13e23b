"""What the tests on real schedulers share. A test runs on each of them, or on that of its mark `only`.

tests/sge/cell.sh and tests/slurm/cell.sh start them.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from cluster.schedulers import SCHEDULERS, Cell
from conftest import ROOT


def pytest_generate_tests(metafunc):
    """Run each test on each scheduler; `-m sge` and `-m slurm` choose one."""
    if "scheduler" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("only")
        names = only.args if only else SCHEDULERS
        metafunc.parametrize("scheduler", [pytest.param(one, marks=getattr(pytest.mark, one)) for one in names], indirect=True)


@pytest.fixture(scope="session")
def scheduler(request) -> Cell:
    """Return the scheduler; skip where it does not answer, or fail where REQUIRE_SGE=1 or REQUIRE_SLURM=1 asks for it."""
    cell = SCHEDULERS[request.param]
    if reason := cell.why_not():
        if os.environ.get(f"REQUIRE_{cell.name.upper()}") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return cell


class Workdir:
    """A working directory on the cell: a Snakefile, and a copy of the profile whose settings suit seconds rather than days.

    Snakemake's output is collected in `log`. What is put into `bin` comes before the scheduler's own commands.
    """

    def __init__(
        self,
        cell: Cell,
        folder: Path,
        snakefile: str,
        profile: dict | None = None,
        asks: str = "",
        held: bool = False,
        **settings,
    ):
        folder.mkdir(parents=True)
        self.cell, self.profile = cell, f"profiles/{cell.name}"
        self.folder, self.log, self.bin = folder, folder / "snakemake.log", folder / "bin"
        shutil.copytree(ROOT / "profiles", folder / "profiles", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        self.bin.mkdir()
        self.started = []
        (folder / "Snakefile").write_text(snakefile)
        self.change("settings.yaml", {"poll": 1, "grace": 6, "margin": 20, cell.submit: cell.hold if held else asks} | settings)
        self.change("config.yaml", {"seconds-between-status-checks": 1, "latency-wait": 10} | (profile or {}))

    def change(self, file: str, changes: dict) -> None:
        """Change keys of a file of the profile."""
        path = self.folder / self.profile / file
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake with the profile, in a process group of its own."""
        path = os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"]])
        command = ["snakemake", "--profile", self.profile, *arguments]
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
            self.cell.delete(*self.queue())
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
        found = [json.loads(file.read_text()) for file in self.records("[0-9]*.json", rule)]
        return sorted(found, key=lambda one: one["time"])

    def records(self, ending: str, rule: str = "*") -> list[Path]:
        """Return the files of the records of a rule's jobs."""
        return [*self.folder.glob(f".snakemake/{self.cell.name}/{rule}-*/{ending}")]

    def queue(self) -> dict[str, str]:
        """Return the jobs of this directory in the queue, id to state."""
        names = {file.parent.name for file in self.records("job.json")}
        return {job: state for job, name, state in self.cell.jobs() if name in names}

    def asked(self, submission: dict) -> list[str]:
        """Return the arguments with which a job was submitted."""
        return submission[self.cell.submit]

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
            return bool(submitted) and self.queue().get(submitted[-1].get("id")) == "running"

        self.wait_for(runs, f"a job of {rule} to run")
        return self.submissions(rule)[-1]["id"]


@pytest.fixture
def turn(request, scheduler):
    """Wait until no test takes the scheduler's daemons down; one that does, marked `alone`, until no other runs on it."""
    with open(Path(tempfile.gettempdir(), f"mriflow-{scheduler.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH)
        yield


@pytest.fixture
def workdir(tmp_path, scheduler, turn):
    """Make working directories of a test; what is left of their Snakemake and jobs is ended after it."""
    made = []

    def make(snakefile: str, name: str = "work", **settings) -> Workdir:
        made.append(Workdir(scheduler, tmp_path / name, snakefile, **settings))
        return made[-1]

    yield make
    for one in made:
        for process in one.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        if jobs := one.queue():
            scheduler.delete(*jobs)


@pytest.fixture
def admin(scheduler):
    """Do to the scheduler what its administrators do; its daemons are up again after the test."""

    def do(*command: str) -> None:
        subprocess.run(["sudo", "-n", scheduler.cell, *command], check=True, timeout=180)

    if subprocess.run(["sudo", "-n", "-l", scheduler.cell, "stop-master"], capture_output=True).returncode:
        pytest.skip(f"this user may not take daemons down with {scheduler.cell}")
    done = []
    yield lambda *command: (done.append(command), do(*command))
    for command in dict.fromkeys(f"start-{one[0].partition('-')[2]}" for one in done if one[0].startswith(("stop-", "kill-"))):
        do(command)
