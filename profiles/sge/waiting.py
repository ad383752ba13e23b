"""The jobs whose state is `running` for certain until the next look at the queue, and why one of them does not start."""

import contextlib
import time

import gridengine
from dialect import Site, write_whole
from gridengine import MasterAway
from jobs import Record
from words import STATE, said, say

FILE = STATE / "waiting"  # read by `status`, which needs no Python for these
PATIENCE = 30  # times `poll`: how long a job may wait without a word
DAY = 86400.0


def note_waiting(site: Site) -> None:
    """Write which jobs are in the queue and neither in error nor over, until when that is good, and say why one waits long.

    The file is a line with that time, and then a line for each job: its name, and the number of its last submission.
    While the master is away, what was known last stays good.
    """
    poll, lines = site.settings["poll"], list[str]()
    with contextlib.suppress(OSError, ValueError):
        until, *lines = FILE.read_text().splitlines()
        if int(until) > time.time():
            return
    try:
        queue = gridengine.look(STATE, poll)
    except MasterAway:
        write_whole(FILE, "\n".join([str(int(time.time() + poll)), *lines, ""]))
        return
    there = []
    for job_id, queued in queue.jobs.items():
        record = Record(queued.name)
        ours = record.last and record.read("json").get("id") == job_id
        if ours and not queued.in_error and record.exit_code() is None and not record.read("end"):
            there.append((record, queued))
    lines = [f"{queued.name} {record.last}" for record, queued in there]
    write_whole(FILE, "\n".join([str(int(queue.asked + poll)), *lines, ""]))
    for record, queued in there:
        if queued.waits and time.time() - record.read("json")["time"] > PATIENCE * poll:
            say_why(record)


def say_why(record: Record) -> None:
    """Say, once for all jobs that ask for the same, why a job does not start."""
    submission = record.read("json")
    arguments = [word for word in submission["qsub"] if word != record.folder.name]
    if said(f"waits: {arguments}", DAY):
        return
    minutes = round((time.time() - submission["time"]) / 60)
    say(f"{record}: has waited for {minutes} min. {gridengine.why_waiting(submission['id'])}")
