"""One look at the queue that all jobs share."""

import contextlib
import fcntl
import json
import time
from typing import NamedTuple

from base import MasterAway, Queued, write_whole
from here import STATE, scheduler


class Snapshot(NamedTuple):
    """The user's jobs by id, those in the queue and those that the scheduler still knows to be over.

    `asked` is when they were asked for, in seconds since the epoch.
    """

    asked: float
    jobs: dict[str, Queued]
    ended: dict[str, Queued]


def look(max_age: float) -> Snapshot:
    """Return the queue as it was at most `max_age` seconds ago.

    The scheduler's answer is kept and shared between the calls of all jobs, and so is its failure.
    Raises MasterAway if there is none.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / "queue.lock", "w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks costs a question too many at worst
            fcntl.flock(lock, fcntl.LOCK_EX)
        kept, now, names = STATE / "queue.json", time.time(), {}
        with contextlib.suppress(OSError, ValueError, KeyError):
            last = json.loads(kept.read_text())
            names = last.get("names", {})
            if now - max_age <= last["answered"] <= now:
                if last["jobs"] is None:
                    raise MasterAway(f"{scheduler.TITLE} did not answer a moment ago")
                return snapshot(last["asked"], {job: Queued(*value) for job, value in last["jobs"].items()})
        try:
            jobs, names = scheduler.list_jobs(STATE, names)
        except MasterAway:
            write_whole(kept, json.dumps({"asked": now, "answered": time.time(), "jobs": None, "names": names}))
            raise
        write_whole(kept, json.dumps({"asked": now, "answered": time.time(), "jobs": jobs, "names": names}))
        return snapshot(now, jobs)


def snapshot(asked: float, jobs: dict[str, Queued]) -> Snapshot:
    """Return the jobs that were listed, apart by whether they are over."""
    alive = {job: queued for job, queued in jobs.items() if not queued.over}
    return Snapshot(asked, alive, {job: queued for job, queued in jobs.items() if queued.over})


def in_queue(queue: Snapshot) -> list[str]:
    """Return the ids of this folder's jobs that are in the queue and not being deleted."""
    return [number for number, job in queue.jobs.items() if (STATE / job.name).is_dir() and not job.being_deleted]
