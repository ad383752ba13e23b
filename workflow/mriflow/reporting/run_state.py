"""What Snakemake knows of a run in a folder: its jobs, and which are done, running, failed or waiting."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from mriflow.base.errors import UserError

BLOCK = re.compile(
    r"^(?P<error>Error in )?(?:local)?rule (?P<rule>\w+):\n(?P<fields>(?:    .*\n)+)(?:Shell command: (?P<command>.*))?",
    re.MULTILINE,
)
FIELD = re.compile(r"^    (output|log): (.*)$", re.MULTILINE)
STARTED = re.compile(r"^Select jobs to execute", re.MULTILINE)


@dataclass
class Job:
    """A job of the workflow.

    Attributes
    ----------
    outputs, log
        Relative to the run's folder.
    command
        What it runs, or the first line of that.
    state
        ``done``; ``running``; ``failed``; ``interrupted``, if it was begun by a Snakemake that is gone; ``waiting``.
    id
        On a cluster, its name there. Such a job runs, or waits in the queue, whatever became of the Snakemake that sent it.
    """

    rule: str
    outputs: list[Path]
    log: Path | None
    command: str
    state: str = "waiting"
    id: str | None = None


def jobs_of_run(folder: Path, arguments: Sequence[str]) -> list[Job]:
    """Return the jobs that `snakemake`, called in a folder with these arguments, would want to be done, in running order.

    Raises
    ------
    UserError
        With Snakemake's words, if it cannot plan the run.
    """
    begun, alive, failed = marked(folder), is_running(folder), failures(folder)
    to_do = {path for job in planned(folder, arguments) for path in job.outputs}
    jobs = planned(folder, [*arguments, "--forceall"])
    for job in jobs:
        marks = [begun[str(path)] for path in job.outputs if str(path) in begun]
        if marks:
            job.id = marks[0]
            job.state = "running" if alive or job.id else "interrupted"
        elif not to_do & set(job.outputs):
            job.state = "done"
        elif failed & set(job.outputs):
            job.state = "failed"
    return jobs


def planned(folder: Path, arguments: Sequence[str]) -> list[Job]:
    """Return the jobs that a dry run of Snakemake would do, but for those that make nothing."""
    # The arguments last: --configfile takes all that follow it.
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", "--nolock", *arguments]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if answer.returncode:
        said = (answer.stderr + answer.stdout).strip()
        raise UserError(f"Snakemake cannot plan the run of {folder.resolve()}:\n{said}")
    jobs = []
    for block in BLOCK.finditer(answer.stdout):
        fields = dict(FIELD.findall(block["fields"]))
        if outputs := paths(fields.get("output")):
            log = next(iter(paths(fields.get("log"))), None)
            jobs.append(Job(block["rule"], outputs, log, block["command"] or ""))
    return jobs


def paths(listed: str | None) -> list[Path]:
    """Return what stands in a line of Snakemake's."""
    return [Path(one) for one in listed.partition(" (")[0].split(", ")] if listed else []


def marked(folder: Path) -> dict[str, str | None]:
    """Return the outputs that were begun and are not finished, each with its job's name on a cluster, if it has one."""
    place = folder / ".snakemake/incomplete"
    found = {}
    for marker in place.rglob("*") if place.is_dir() else ():
        if not marker.is_file() or marker.name == "migration_underway":
            continue
        name = "".join(part.removeprefix("@") for part in marker.relative_to(place).parts)  # long ones are cut into folders
        try:
            found[base64.urlsafe_b64decode(name).decode()] = json.loads(marker.read_text() or "{}").get("external_jobid")
        except (ValueError, FileNotFoundError):
            continue  # finished, or being written, while it was read
    return found


def is_running(folder: Path) -> bool:
    """Return whether a Snakemake of this machine works in a folder."""
    mine = {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.info["pid"] in mine or not any(Path(word).name == "snakemake" or word == "snakemake" for word in words[:3]):
            continue
        try:
            if Path(process.cwd()) == folder.resolve():
                return True
        except (psutil.Error, OSError):
            continue
    return False


def failures(folder: Path) -> set[Path]:
    """Return the outputs of the jobs that failed in the last run in a folder."""
    logs = sorted((folder / ".snakemake/log").glob("*.snakemake.log"), reverse=True)
    texts = (log.read_text(errors="replace") for log in logs)
    last = next((text for text in texts if STARTED.search(text)), "")
    errors = (dict(FIELD.findall(block["fields"])) for block in BLOCK.finditer(last) if block["error"])
    return {path for fields in errors for path in paths(fields.get("output"))}
