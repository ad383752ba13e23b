"""One process alone trains in a work folder: two that write one checkpoint would both be wrong, and nobody would see it.

The lock is a file that names its holder and is touched at each save. It is stale, and the next process takes it over, if

- its process was on this host and lives no more,
- or it was not touched for three times as long as lies between two saves (at least 15 minutes),
- or its job is over, as the scheduler says (JOB_BEFORE, which the cluster's profile sets), and it was not touched for a minute.

A process that finds at a save that another has taken its lock over ends without saving.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mriflow.base.errors import UserError

log = logging.getLogger(__name__)

NAME = "lock.json"
LEAST_MINUTES, MINUTES_AFTER_ITS_JOB = 15.0, 1.0
held: dict[Path, str] = {}  # by this process


@contextmanager
def sole_writer(work: Path, save_minutes: float, rank: int = 0) -> Iterator[None]:
    """Hold the lock of a work folder, after waiting for one that may be stale; of several processes the first, which saves.

    Raises
    ------
    UserError
        If another process trains there.
    """
    if rank:
        yield
        return
    work.mkdir(parents=True, exist_ok=True)
    lock, mine = work / NAME, work / f".part.{os.getpid()}.{NAME}"
    text = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "began": began(os.getpid()), "job": job_id()})
    try:
        mine.write_text(text, encoding="utf-8")
        while not taken(mine, lock):
            wait_for_stale(lock, mine, 3 * save_minutes)
    finally:
        mine.unlink(missing_ok=True)
    held[lock] = text
    try:
        yield
    finally:
        del held[lock]
        with suppress(OSError):
            if lock.read_text(encoding="utf-8") == text:
                lock.unlink()


def taken(mine: Path, lock: Path) -> bool:
    """Return whether `mine` became the lock; where files cannot be linked, a file that must not exist yet is made instead."""
    try:
        os.link(mine, lock)
    except FileExistsError:
        return mine.samefile(lock)  # a network file system may have lost the answer only
    except OSError:
        try:
            with lock.open("x", encoding="utf-8") as stream:
                stream.write(mine.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def refresh(work: Path) -> None:
    """Show that the holder is alive, before it saves; nothing if this process holds no lock of the folder.

    Raises
    ------
    UserError
        If another process has taken the lock over.
    """
    lock = work / NAME
    if lock not in held:
        return
    if (holder := read(lock)) and json.dumps(holder) != held[lock]:
        raise UserError(
            f"{lock}: {described(holder)} trains here now; this process was taken for dead, and ends without saving"
        )
    with suppress(OSError):
        os.utime(lock)


def wait_for_stale(lock: Path, mine: Path, minutes: float) -> None:
    """Return once the lock is gone, or was stale and is removed. Raises UserError if its holder shows that it lives."""
    holder, touched = read(lock), time_of(lock)
    if touched is None:
        return
    here = holder.get("host") == socket.gethostname()
    over = bool(holder.get("job")) and holder["job"] in [*os.environ.get("JOB_BEFORE", "").split(), job_id()]
    patience = 60 * (MINUTES_AFTER_ITS_JOB if over or not holder else max(LEAST_MINUTES, minutes))
    if not (here and began(holder["process"]) != holder["began"]):
        log.info("%s: held by %s; waiting until that was silent for %g minutes", lock, described(holder), patience / 60)
        while silence(touched, mine) < patience:
            if (here and not over) or time_of(lock) not in (touched, None):
                raise UserError(
                    f"{lock}: {described(holder)} trains here, and two must not. Wait for it, or end it; if you know that it "
                    "is gone, delete this file."
                )
            if time_of(lock) is None:
                return
            time.sleep(1)
    log.warning("%s: %s ended without a word; going on in its place", lock, described(holder))
    aside = mine.with_name(f"{mine.name}.stale")
    with suppress(FileNotFoundError):
        os.replace(lock, aside)
        if time_of(aside) != touched:  # another was quicker, and this is its lock
            os.link(aside, lock)
        aside.unlink()


def silence(touched: float, mine: Path) -> float:
    """Return for how many seconds a lock was not touched, by the clock of its file system."""
    os.utime(mine)
    return mine.stat().st_mtime - touched


def time_of(lock: Path) -> float | None:
    """Return when a lock was touched last, None if there is none."""
    with suppress(FileNotFoundError):
        return lock.stat().st_mtime
    return None


def read(lock: Path) -> dict[str, Any]:
    """Return who holds a lock, nothing if that cannot be read."""
    with suppress(OSError, ValueError):
        return json.loads(lock.read_text(encoding="utf-8"))
    return {}


def described(holder: dict[str, Any]) -> str:
    """Return a holder in words."""
    job = f"job {holder['job']}, " if holder.get("job") else ""
    return f"{job}process {holder['process']} on {holder['host']}" if holder else "a process that left no name"


def job_id() -> str:
    """Return the id of the scheduler's job in which this process runs, nothing if it is in none."""
    return os.environ.get("JOB_ID") or os.environ.get("SLURM_JOB_ID") or ""


def began(process: int) -> str:
    """Return when a process of this host began, in the kernel's terms; nothing if it lives no more."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "" if Path("/proc/self").exists() else "unknown"
