"""Grid Engine's commands: submit, delete, and one look at the queue that all jobs share."""

import contextlib
import fcntl
import getpass
import json
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from dialect import write_whole

# What the commands print when the master or the way to it is down, rather than the request wrong.
AWAY = re.compile(
    r"commlib|got send (error|timeout)|unable to (contact|send message to|connect to) qmaster"
    r"|failed receiving gdi|receive timeout|cannot (connect|get connection)|no response from JSV",
    re.IGNORECASE,
)
FULL = re.compile(r"allowed per (user|cluster)")  # max_u_jobs and max_jobs of a site


class MasterAway(Exception):
    """Grid Engine's master did not answer; a later try may do."""


class Refused(Exception):
    """Grid Engine refused a request, for the reason given."""


class Full(MasterAway):
    """The site takes no more jobs until some have ended."""


class Queued(NamedTuple):
    """A job in the queue: its name and the letters of its state, such as qw, r, dr or Eqw."""

    name: str
    state: str

    @property
    def in_error(self) -> bool:
        """Whether it will never run until someone clears the error."""
        return "E" in self.state

    @property
    def waits(self) -> bool:
        """Whether it has not started."""
        return "w" in self.state and not self.in_error

    @property
    def being_deleted(self) -> bool:
        """Whether it was deleted and only has not ended yet."""
        return "d" in self.state


class Snapshot(NamedTuple):
    """The user's jobs in the queue by id, and when they were asked for, in seconds since the epoch."""

    asked: float
    jobs: dict[str, Queued]


def look(folder: Path, max_age: float) -> Snapshot:
    """Return the queue as it was at most `max_age` seconds ago.

    The answer of qstat is kept in `folder` and shared between the calls of all jobs, and so is its failure.
    Raises MasterAway if there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "qstat.lock", "w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks costs a qstat too many at worst
            fcntl.flock(lock, fcntl.LOCK_EX)
        kept, now, names = folder / "qstat.json", time.time(), {}
        with contextlib.suppress(OSError, ValueError, KeyError):
            last = json.loads(kept.read_text())
            names = last.get("names", {})
            if now - max_age <= last["answered"] <= now:
                if last["jobs"] is None:
                    raise MasterAway("qstat failed a moment ago")
                return Snapshot(last["asked"], {job: Queued(*value) for job, value in last["jobs"].items()})
        try:
            # -s: all of them, whatever the defaults of the user (~/.sge_qstat) leave out
            jobs = read_queue(run("qstat", "-u", getpass.getuser(), "-s", "psr", "-xml"))
            jobs, names = own_names(jobs, folder, names)
        except MasterAway:
            write_whole(kept, json.dumps({"asked": now, "answered": time.time(), "jobs": None, "names": names}))
            raise
        write_whole(kept, json.dumps({"asked": now, "answered": time.time(), "jobs": jobs, "names": names}))
        return Snapshot(now, jobs)


def own_names(jobs: dict[str, Queued], folder: Path, names: dict[str, str]) -> tuple[dict[str, Queued], dict[str, str]]:
    """Return the jobs under the names that they were submitted with, which a site may change, and those names to remember.

    `names` are those that were found before; only for the ids that are new is Grid Engine asked.
    """
    strange = [number for number, queued in jobs.items() if not (folder / queued.name).is_dir()]
    names = {number: names[number] for number in strange if number in names}
    with contextlib.suppress(MasterAway):
        for number, described in details([number for number in strange if number not in names]).items():
            script = Path(described.get("cwd", "/"), described.get("script_file", ""))
            ours = script.parent.parent.resolve() == folder.resolve()
            names[number] = script.parent.name if ours else jobs[number].name
    return {number: queued._replace(name=names.get(number, queued.name)) for number, queued in jobs.items()}, names


def details(jobs: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return what Grid Engine says of each of these jobs that it knows, whatever `look` leaves out. Raises MasterAway."""
    known: dict[str, dict[str, str]] = {}
    if not jobs:
        return known
    try:
        answer = run("qstat", "-j", ",".join(jobs))
    except MasterAway as error:
        if "do not exist" in str(error):
            return known
        raise
    for line in answer.splitlines():
        key, _, value = line.partition(":")
        if key == "job_number":
            known[value.strip()] = one = {}
        elif known:
            one[key] = value.strip()
    return known


def read_queue(xml: str) -> dict[str, Queued]:
    """Return the jobs of qstat's XML by their ids."""
    try:
        listed = ElementTree.fromstring(xml).iter("job_list")  # noqa: S314 - from the site's own qstat
    except ElementTree.ParseError as error:
        raise MasterAway(f"qstat's answer was cut off: {error}") from None
    return {one.findtext("JB_job_number", ""): Queued(one.findtext("JB_name", ""), one.findtext("state", "")) for one in listed}


def submit(arguments: Sequence[str]) -> str:
    """Hand a job to qsub and return its id, which a site may wrap in words of its own. Raises MasterAway or Refused."""
    answer = run("qsub", "-b", "n", *arguments)  # a script, whatever ~/.sge_request says
    number = re.search(r"^\s*(\d+)\s*$", answer, re.MULTILINE) or re.search(r"[Yy]our job (\d+)", answer)
    if not number:
        raise Refused(f"qsub answered {answer!r} where the id of a job was expected")
    return number[1]


def could_run(arguments: Sequence[str]) -> bool:
    """Return whether the site has a node on which a job with these arguments could ever run, if all were free."""
    with contextlib.suppress(MasterAway, Refused):
        return "found suitable queue" in run("qsub", "-w", "v", *arguments)
    return False


def why_waiting(job: str) -> str:
    """Return why a job that is in the queue does not start, in a sentence for the user."""
    for mode, meaning in (("v", "No queue of this site could ever run it as it asks"), ("p", "It can run here, but not now")):
        try:
            answer = run("qalter", "-w", mode, job)
        except (MasterAway, Refused) as error:
            answer = str(error)
        if "is held" in answer:
            return f"It is held; `qstat -j {job}` says what for, `qrls {job}` lets it go"
        if "no suitable queues" in answer:
            reasons = list(dict.fromkeys(re.findall(r"^Job \d+ (.*cannot run.*)$", answer, re.MULTILINE)))
            more = f"; and {len(reasons) - 3} more (qalter -w {mode} {job})" if len(reasons) > 3 else ""
            return f"{meaning}: {'; '.join(reasons[:3])}{more}"
    return f"`qstat -j {job}` says more"


def delete(jobs: Sequence[str]) -> None:
    """Delete jobs, those that have ended meanwhile too, and leave qdel to itself if it takes long."""
    if jobs:
        process = subprocess.Popen(
            ["qdel", *jobs], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.5)


def error_reason(job: str) -> str:
    """Return why a job is in the error state, in Grid Engine's words."""
    with contextlib.suppress(MasterAway, Refused):
        for key, value in details([job]).get(job, {}).items():
            if key.startswith("error reason"):
                return value
    return "reason unknown"


def accounting(job: str) -> dict[str, str]:
    """Return what the accounting file says of a job's last end, or nothing where it is missing or slow."""
    with contextlib.suppress(MasterAway, Refused):
        lines = run("qacct", "-j", job, timeout=10).rsplit("=====", 1)[-1].splitlines()
        return {words[0]: words[1].strip() for words in (line.split(None, 1) for line in lines) if len(words) == 2}
    return {}


def run(*command: str, timeout: float = 60) -> str:
    """Run a command and return its output. Raises MasterAway or Refused."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise Refused(f"there is no {command[0]} on this machine: Grid Engine is used from a login node") from None
    except subprocess.TimeoutExpired:
        raise MasterAway(f"{command[0]} did not answer within {timeout:g} s") from None
    if done.returncode:
        message = (done.stderr or done.stdout).strip()
        if FULL.search(message):
            raise Full(message)
        # A qstat that fails says nothing about a job; it may always be tried again.
        raise MasterAway(message) if command[0] == "qstat" or AWAY.search(message) else Refused(message)
    return done.stdout
