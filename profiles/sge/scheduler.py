"""Grid Engine: its commands, and what they answer."""

import contextlib
import getpass
import re
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import base
from base import End, MasterAway, Queued, Refused, Words

TITLE, MASTER = "Grid Engine", "Grid Engine's master"
SUBMIT = "qsub"
DELETE = "qdel"  # read by `cancel`, too
JOB_ID = "$JOB_ID"  # the job's id in the name of its log
NO_MEMORY = r"(?!)"  # printed by the scheduler into the log of a job that took too much: nothing
WORDS = Words(
    away=re.compile(
        r"commlib|got send (error|timeout)|unable to (contact|send message to|connect to) qmaster"
        r"|failed receiving gdi|receive timeout|cannot (connect|get connection)|no response from JSV",
        re.IGNORECASE,
    ),
    full=re.compile(r"allowed per (user|cluster)"),  # max_u_jobs and max_jobs of a site
    asks=["qstat"],
)


def run(*command: str, timeout: float = 60) -> str:
    """Run a command and return its output. Raises MasterAway, Full or Refused."""
    return base.run(WORDS, *command, timeout=timeout)


def job_arguments(name: str, log: str) -> list[str]:
    """Return what every qsub says, whatever the job asks for; the log comes last."""
    return ["-terse", "-S", "/bin/bash", "-cwd", "-j", "y", "-r", "n", "-N", name, "-o", log]


def warned(_seconds: int) -> list[str]:
    """Return how a job asks to be sent a signal before it is killed; the time of an earlier one stands in the dialect."""
    return ["-notify"]


def joined(arguments: list[str]) -> list[str]:
    """Return what a job asks for as it is submitted."""
    return arguments


def by_hand(arguments: list[str]) -> list[str]:
    """Return the command that opens a shell on a node with these resources."""
    return ["qrsh", "-cwd", "-now", "no", *arguments]


def delayed(seconds: int) -> list[str]:
    """Return how a job asks to start so much later."""
    return ["-a", time.strftime("%Y%m%d%H%M.%S", time.localtime(time.time() + seconds))]


def list_jobs(folder: Path, names: dict[str, str]) -> tuple[dict[str, Queued], dict[str, str]]:
    """Return the user's jobs by their ids, and names to remember. Raises MasterAway.

    `folder` holds the records of those that are of this folder.
    """
    # -s: all of them, whatever the defaults of the user (~/.sge_qstat) leave out
    return own_names(read_queue(run("qstat", "-u", getpass.getuser(), "-s", "psr", "-xml")), folder, names)


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
    """Return what Grid Engine says of each of these jobs that it knows, whatever a list leaves out. Raises MasterAway."""
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


def known(job: str) -> bool:
    """Return whether a job that was not listed is in the queue all the same. Raises MasterAway."""
    return job in details([job])


def read_queue(xml: str) -> dict[str, Queued]:
    """Return the jobs of qstat's XML by their ids; states are letters such as qw, r, dr or Eqw."""
    try:
        listed = [*ElementTree.fromstring(xml).iter("job_list")]  # noqa: S314 - from the site's own qstat
    except ElementTree.ParseError as error:
        raise MasterAway(f"qstat's answer was cut off: {error}") from None
    jobs = {}
    for one in listed:
        state = one.findtext("state", "")
        jobs[one.findtext("JB_job_number", "")] = Queued(
            name=one.findtext("JB_name", ""),
            state=state,
            waits="w" in state and "E" not in state,
            in_error="E" in state,
            being_deleted="d" in state,
        )
    return jobs


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


def why_waiting(job: str, _queued: Queued) -> str:
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
    """Start to delete jobs, those that have ended meanwhile too."""
    base.start("qdel", *jobs)


def why_in_error(job: str, _queued: Queued) -> End:
    """Return why a job is in the error state, in Grid Engine's words."""
    reason = "reason unknown"
    with contextlib.suppress(MasterAway, Refused):
        described = details([job]).get(job, {})
        reason = next((value for key, value in described.items() if key.startswith("error reason")), reason)
    return End("queue", f"was put into the error state and deleted: {reason}")


def end_of(job: str, _ended: Queued | None, code: int | None) -> End:
    """Return what the accounting file says of a job that left no exit code; nothing where that file is missing or slow."""
    if code is not None:
        return End()
    account = accounting(job)
    facts = ", ".join(f"{key} {account[key]}" for key in ("failed", "exit_status") if key in account)
    # Started again and gone all the same: so a job is got rid of whose node does not answer, and which may live on there.
    why = "node" if account.get("failed", "").startswith("25 ") else ""
    return End(why, f"accounting: {facts}" if facts else "", megabytes(account.get("maxvmem", "")))


def accounting(job: str) -> dict[str, str]:
    """Return what the accounting file says of a job's last end, or nothing where it is missing or slow."""
    with contextlib.suppress(MasterAway, Refused):
        lines = run("qacct", "-j", job, timeout=10).rsplit("=====", 1)[-1].splitlines()
        return {words[0]: words[1].strip() for words in (line.split(None, 1) for line in lines) if len(words) == 2}
    return {}


def megabytes(text: str) -> float:
    """Return a size as qacct writes it, such as 1.234G, in MB; 0 if it says nothing."""
    size = re.fullmatch(r"([\d.]+)([KMGT]?)", text)
    return float(size[1]) * {"": 1e-6, "K": 1e-3, "M": 1, "G": 1e3, "T": 1e6}[size[2]] if size else 0.0
