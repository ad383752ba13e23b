"""The jobs whose state is `running` for certain until the next look at the queue, and why one of them does not start."""

import contextlib
import os
import time

from base import MasterAway, write_whole
from dialect import Site
from here import STATE, scheduler
from jobs import Record
from look import look
from words import said, say

FILE = STATE / "waiting"  # read by `status`, which needs no Python for these
PATIENCE = 30  # times `poll`: how long a job may wait without a word
DAY = 86400.0
SPARING = 60  # times what a look costs in seconds of a CPU: how long it is good at least, however many jobs there are


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
        queue = look(poll)
    except MasterAway:
        write_whole(FILE, "\n".join([str(int(time.time() + poll)), *lines, ""]))
        return
    lines, long = [], dict[str, Record]()
    for job_id, queued in queue.jobs.items():
        record = Record(queued.name)
        submission = record.read("json")
        over = any(record.file(ending).exists() for ending in ("exit", "end"))  # the folder was listed a moment ago
        if submission.get("id") == job_id and not over and not queued.in_error:
            lines.append(f"{queued.name} {record.last}")
            if queued.waits and time.time() - submission["time"] > PATIENCE * poll:
                long.setdefault(str([word for word in submission[scheduler.SUBMIT] if queued.name not in word]), record)
    until = max(queue.asked + poll, time.time() + SPARING * sum(os.times()[:4]))
    write_whole(FILE, "\n".join([str(int(until)), *lines, ""]))
    for request, record in long.items():
        if not said(f"waits: {request}", DAY):
            submission = record.read("json")
            minutes = round((time.time() - submission["time"]) / 60)
            why = scheduler.why_waiting(submission["id"], queue.jobs[submission["id"]])
            say(f"{record}: has waited for {minutes} min. {why}")
