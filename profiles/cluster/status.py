"""Report the state of a job to Snakemake: running, success or failed; running whenever that is not known.

status JOB      with the name that submit printed

A job ends with the exit code that it leaves on the file system. One that left none and is gone from the queue was killed.
One that saved its progress because its walltime came to an end is submitted again, and is still running.
"""

# ruff: noqa: E402
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is Snakemake's

import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from base import End, Full, MasterAway, Queued, Refused
from dialect import Site, clock, read_site
from here import STATE, scheduler
from jobs import GROWTH, Record, read_note
from look import Snapshot, look
from waiting import note_waiting
from words import NO_ROOM, say, say_no_room, say_once

GPU_MEMORY = re.compile(r"CUDA out of memory")
NO_MEMORY = re.compile(
    r"(?<!OutOf)MemoryError|bad_alloc|([Cc]annot|can't|[Uu]nable to) allocate|failed to map segment|too little memory"
)
WARNING = re.compile(r"^warning: (.*)$", re.MULTILINE)  # of Snakemake within the job
MACHINE = re.compile(
    r"Stale (NFS )?file handle|Input/output error|Remote I/O error|Transport endpoint is not connected"
    r"|asked for \d+ GPUs? and sees |no CUDA-capable device|CUDA-capable device\(s\) is/are busy|uncorrectable ECC"
    r"|Driver/library version mismatch|CUDA driver initialization failed"
)
ROOM = re.compile(r"No space left on device|Disk quota exceeded")
KILLED = re.compile(r"\bKilled\b|died with <Signals\.SIGKILL")
WALLTIME = ("walltime", "SIGUSR1")  # the clock of the job itself, or the scheduler's warning before the end
NOT_STARTED = 75  # of job.sh
TAIL = 100_000  # bytes of a log that are looked at
LINES = 20  # that are shown


def main() -> None:
    """Print the state of a job."""
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    answer = "running"
    try:
        site = read_site(STATE / "site.json")
        answer = state(sys.argv[1].partition(".")[2], site)
        note_waiting(site)
    except (Exception, SystemExit) as error:  # Snakemake stops watching all jobs if this fails for one
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            say_no_room(error)
        else:
            text = str(error) if isinstance(error, SystemExit | OSError) else traceback.format_exc()
            say_once(text, of=text)
    print(answer)


def state(name: str, site: Site) -> str:
    """Return the state of a job."""
    record = Record(name)
    if record.read("end"):
        return "failed"
    if not record.answered:  # of a window that follows another, the submission has not been answered yet
        return submit_again(record, site)
    code = record.exit_code()
    if code is not None:
        for warning in WARNING.findall(tail(record.log())):
            say_once(f"{record}: {warning}", of=warning)
    if code == 0:
        return "success"
    try:
        if in_queue := look_for(record, site):
            return in_queue
        end = scheduler.end_of(record.read("json")["id"], ended(record, look(site.settings["poll"])), code)
    except MasterAway:
        return "running"
    if code != record.exit_code():  # it ended a moment ago
        return state(name, site)
    if note := note_of(record):
        if note["reason"] not in WALLTIME and end.why != "walltime":
            known = "it was deleted" if end.why == "deleted" else "it was deleted, or killed at the end of its walltime"
            reason = f"saved and stopped on {note['reason']}: {known}"
            return fail(record, "lost", reason)
        if position(note) == position(record.read("json")["started_from"]):
            return fail(record, "error", "made no step in its whole walltime; give the rule more `runtime`")
        text = f"{record}: saved at epoch {note['epoch']}, step {note['step']} when its walltime ended; goes on in a new job"
        say_once(text, of=text)  # a full disk may delay it
        return submit_again(record, site)
    return fail(record, *diagnose(record, code, end))


def look_for(record: Record, site: Site) -> str:
    """Return the state of the last submission as the queue shows it, or nothing if it is over. Raises MasterAway."""
    submission = record.read("json")
    queue = look(site.settings["poll"])
    queued = queue.jobs.get(submission["id"])
    queued = queued if queued and queued.name == record.folder.name else None  # ids begin anew one day
    if queued and queued.in_error:
        reason = scheduler.why_in_error(submission["id"], queued)
        scheduler.delete([submission["id"]])
        return fail(record, reason.why, reason.facts)
    left_code = record.exit_code() is not None
    if left_code and time.time() - record.file("exit").stat().st_mtime > site.settings["grace"]:
        return ""
    if queued or queue.asked <= submission["time"]:  # one that left an exit code, too: it may be started again
        record.file("gone").unlink(missing_ok=True)
        return "running"
    if left_code:
        return ""
    if not record.read("gone"):
        record.write("gone", since=time.time(), ended=queue.ended.get(submission["id"]))
    over = ended(record, queue)
    if over and over.why and (not record.job().note or note_of(record)):  # there is nothing that may show late
        return ""
    if time.time() - record.read("gone")["since"] < site.settings["grace"]:
        return "running"
    if scheduler.known(submission["id"]):  # what is not listed may be there all the same
        record.file("gone").unlink()
        return "running"
    return ""


def ended(record: Record, queue: Snapshot) -> Queued | None:
    """Return how the last submission ended, if the scheduler still says so, or said so when it was gone."""
    job_id = record.read("json")["id"]
    kept = record.read("gone").get("ended")
    over = queue.ended.get(job_id) or (Queued(*kept) if kept else None)
    return over if over and over.name == record.folder.name else None


def submit_again(record: Record, site: Site) -> str:
    """Submit a job once more, for the next window of its walltime; if the master is away, the next call tries again."""
    first = record.answered
    try:
        if not first:
            queue = look(site.settings["poll"])
            if queue.asked <= record.read("json")["time"] or record.arrived(queue):
                return "running"
        record.submit(site, record.read("json")["mem_mb"])
    except Full as error:
        say_once(f"{record}: is submitted again as soon as the site takes more jobs: {error}", of="full")
    except MasterAway as error:
        if first:
            say(f"{record}: is submitted again as soon as {scheduler.MASTER} answers: {error}")
    except Refused as error:
        return fail(record, "error", f"could not be submitted again: {error}")
    return "running"


def note_of(record: Record) -> dict[str, Any] | None:
    """Return the note of why the last submission stopped, if it left one; one of an earlier submission is none of its."""
    job, start = record.job(), record.file("start")
    try:
        new = job.note and Path(job.note).stat().st_mtime >= start.stat().st_mtime
    except FileNotFoundError:
        return None
    return read_note(job) if new else None


def position(note: dict[str, Any] | None) -> tuple[int, int]:
    """Return the epoch and the step of a note, in which progress shows."""
    return (note["epoch"], note["step"]) if note else (0, 0)


def diagnose(record: Record, code: int | None, end: End) -> tuple[str, str]:
    """Return why a job failed, in a word and in a sentence; what the scheduler says of its end goes before what was printed."""
    job, submission = record.job(), record.read("json")
    text = "\n".join(tail(file) for file in [*job.logs, record.log()])
    mem_mb = submission["mem_mb"]
    memory = f"had too little memory with mem_mb={mem_mb}; the next try asks for {GROWTH * mem_mb:.0f} MB"
    facts = f" ({end.facts})" if end.facts else ""
    given = clock(submission["walltime"])
    walltime = f"was killed at the end of its walltime, {given}; give the rule more `runtime`{facts}"
    if end.why == "memory":
        return "memory", memory
    if end.why == "walltime":
        return "walltime", walltime
    if end.why == "node":
        return "node", f"lost its node{facts}"
    if end.why == "deleted":
        return "lost", f"was deleted{facts}"
    if code == NOT_STARTED:
        return "lost", "could not start: its node did not see its input in time, or its prologue or scratch folder failed"
    if machine := MACHINE.search(text):
        line = next(line for line in text.splitlines() if machine[0] in line)
        host = record.read("start").get("host")
        return "machine", f"failed by its machine, {host}, which the next try avoids if the site has others: {line.strip()}"
    if ROOM.search(text):
        return "room", "found no room on a disk (a quota counts files, too): make room, or give it another"
    if GPU_MEMORY.search(text):
        return "error", "had too little memory on its GPU; take a smaller `batch_size` or another gpu_model"
    if NO_MEMORY.search(text) or re.search(scheduler.NO_MEMORY, text):
        return "memory", memory
    if code is not None:
        if KILLED.search(tail(record.log())):
            return "killed", "had a process that was killed"
        return "error", f"ended with an error (exit code {code})"
    ran = record.read("gone").get("since", time.time()) - record.read("start").get("time", time.time())
    if ran >= submission["walltime"]:
        return "walltime", walltime
    # Address space, of which a job without a limit, with CUDA above all, reserves far more than it uses.
    if submission["limited"] and end.peak_mb > 0.9 * mem_mb:
        return "memory", memory
    return "lost", f"ended without an exit code: it was killed or deleted, or its node was lost{facts}"


def tail(file: Any) -> str:
    """Return the end of a log, nothing if it does not exist."""
    try:
        with open(file, "rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - TAIL))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def fail(record: Record, why: str, text: str) -> str:
    """Note why a job failed, and show it to the user."""
    shown = ""
    if not any(Path(log).exists() for log in record.job().logs):  # else Snakemake shows that of the stage, which was begun
        shown = "".join(f"\n    {line}" for line in tail(record.log()).splitlines()[-LINES:])
    say(f"{record}: {text}. Its output: {record.log()}{shown}")
    record.write("end", why=why, text=text, time=time.time())
    return "failed"


if __name__ == "__main__":
    main()
