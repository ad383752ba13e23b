"""The two schedulers that the tests beside this file run on, as an ordinary user sees them."""

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

TRUSTED = "/usr/local/lib/mriflow-tests"  # root's copies of the scripts that make them


class Cell:
    """A real scheduler on this one machine, made by `cell.sh`, root's copy of which the user may run."""

    name: str  # of its profile
    title: str
    cell: str
    asks: tuple[str, ...]  # is there a scheduler?
    submit: str
    look: str
    delete_command: str
    hold: str  # argument of a job that is held back
    away: str  # what is printed while it does not answer
    full: tuple[str, ...]
    walltime: tuple[str, ...] = ("walltime",)  # reasons of a training that the end of its walltime stopped
    warning: tuple[str, ...] = ("SIGUSR1",)  # and of one that does not know the time itself
    minutes = 1  # of a short walltime

    def why_not(self) -> str:
        """Return why no job can be submitted from this machine; an empty text where one can."""
        script = f"tests/{self.name}/cell.sh"
        if os.geteuid() == 0:
            return f"jobs are an ordinary user's; run the tests as the one that {script} makes"
        if not Path(self.cell).exists():
            return f"not a machine that {script} made a cell of, and a cluster in use is not to be tried on"
        try:
            subprocess.run(self.asks, check=True, capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            return f"no {self.title} on this machine; {script} installs and starts one"
        except subprocess.TimeoutExpired:
            return f"{self.title} does not answer; {script} starts one"
        except subprocess.CalledProcessError as error:
            return f"{self.title} does not answer ({' '.join(error.stderr.split())}); {script} starts one"
        return ""

    def jobs(self) -> list[tuple[str, str, str]]:
        """Return id, name and state (`running` if it is that) of the user's jobs that are not over."""
        raise NotImplementedError

    def delete(self, *jobs: str) -> None:
        """Delete jobs."""
        subprocess.run([self.delete_command, *jobs], check=False, capture_output=True)

    def release(self, *jobs: str) -> None:
        """Let jobs go that were held back."""
        raise NotImplementedError


class GridEngine(Cell):
    """Grid Engine, of tests/sge/cell.sh."""

    name, title, cell, asks = "sge", "Grid Engine", f"{TRUSTED}/sge/cell.sh", ("qconf", "-sh")
    submit, look, delete_command, hold = "qsub", "qstat", "qdel", "-h"
    away = "error: commlib error: got select error (Connection refused)"
    full = (
        "Unable to run job: job rejected: only 1 jobs are allowed per user (current job count: 1).",
        "Unable to run job: job rejected: only 1 jobs are allowed per cluster.",
    )

    def jobs(self) -> list[tuple[str, str, str]]:
        answer = subprocess.run(["qstat", "-xml"], capture_output=True, text=True, check=True).stdout
        jobs = [
            [job.findtext(key) for key in ("JB_job_number", "JB_name", "state")]
            for job in ElementTree.fromstring(answer).iter("job_list")
        ]
        return [(job, name, "running" if state == "r" else state) for job, name, state in jobs]

    def release(self, *jobs: str) -> None:
        subprocess.run(["qrls", *jobs], check=True)


class Slurm(Cell):
    """Slurm, of tests/slurm/cell.sh."""

    name, title, cell, asks = "slurm", "Slurm", f"{TRUSTED}/slurm/cell.sh", ("sinfo", "--noheader")
    submit, look, delete_command, hold = "sbatch", "squeue", "scancel", "--hold"
    away = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    full = ("sbatch: error: AssocMaxSubmitJobLimit", "sbatch: error: QOSMaxSubmitJobPerUserLimit")
    walltime = ("walltime", "SIGUSR1", "SIGUSR2")  # its warning may come a minute early, before training has begun;
    warning = ("SIGUSR1", "SIGUSR2")  # then it is told at the end that it is killed
    minutes = 2

    def jobs(self) -> list[tuple[str, str, str]]:
        command = ["squeue", "--noheader", "--me", "--format=%i|%j|%T"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        jobs = [line.split("|") for line in answer.splitlines()]
        return [(job, name, "running" if state == "RUNNING" else state) for job, name, state in jobs]

    def release(self, *jobs: str) -> None:
        subprocess.run(["scontrol", "release", ",".join(jobs)], check=True)


SCHEDULERS = {one.name: one for one in (GridEngine(), Slurm())}
