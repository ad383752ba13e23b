"""Submit a job of the workflow.

submit JOBSCRIPT      as Snakemake calls it: prints the id of the job, or says why not and ends with 3

`preview`, beside this file, shows how a job of a rule would be submitted.
"""

import signal

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import traceback
from pathlib import Path

from base import Full, MasterAway, Refused, write_whole
from dialect import Site, read_site
from here import PROFILE, STATE, scheduler
from jobs import HASH_KEY, Job, Record, next_memory
from look import look
from words import NO_ROOM, say, say_no_room, say_once

PAUSES = (2, 5, 10, 30)
NOT_SUBMITTED = 3  # for a reason that was said
AGAIN_IN_VAIN = {"error": "it ended with an error of its own", "never": "it can never run as it asks"}


def main() -> None:
    """Submit a job."""
    match sys.argv[1:]:
        case ["--print", *arguments]:
            preview = os.path.relpath(PROFILE / "preview")
            print(f"submit --print is now a command of its own: {shlex.join([preview, *arguments])}", file=sys.stderr)
            sys.exit(2)
        case [script] if not script.startswith("-"):
            # Snakemake quotes the path for a shell in a way that a quote in it breaks; its last two parts never need quotes.
            path = Path(".snakemake", *Path(script).parts[-2:])
            print(submit_when_there_is_room(path))
        case ["-h" | "--help"]:
            print(__doc__.strip())
        case _:
            sys.exit(__doc__.strip())


def submit_when_there_is_room(script: Path) -> str:
    """Submit the job of a script as `submit` does; while the disk is full, which is said once, it waits."""
    while True:
        try:
            site = read_site(STATE / "site.json")
            watch_for_interrupt()
            return submit(Job.read(script, site.settings["saves_progress"]), script, site)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            say_no_room(error)
            time.sleep(PAUSES[2])


def submit(job: Job, script: Path, site: Site) -> str:
    """Submit a job, unless it is in the queue already, and return the id by which `status` and `cancel` know it."""
    record = Record(job.name)
    why = record.read("end").get("why") if job.attempt > 1 else None
    if why in AGAIN_IN_VAIN:
        say(f"{job}: not run again, for {AGAIN_IN_VAIN[why]}; see {record.log()}")
        return record.external_id
    if left_in_queue(record, job, site):
        record.prepare(job, script)
        say(f"{job}: is in the queue already, left by a Snakemake that was killed; waiting for it")
        return record.external_id
    mem_mb, avoid = next_memory(job, record), record.avoid_failed_host(site)
    record.prepare(job, script)
    tried = False
    patience = Patience(site)
    while True:
        try:
            if tried and record.arrived(look(0)):
                break  # only the answer had been lost
            tried = True
            record.submit(site, mem_mb, avoid)
            break
        except Full as error:
            say_once(f"{job}: the site takes no more jobs now; waiting as long as that lasts: {error}", of="full")
            patience = Patience(site)
            time.sleep(site.settings["poll"])
        except MasterAway as error:
            patience.wait(job, error)
        except Refused as error:
            sys.exit(f"{job}: {scheduler.SUBMIT} refused it: {error}\n{shlex.join(command_of(record))}")
    say(f"{job}: {shlex.join([*command_of(record), str(record.file('sh'))])}")
    return record.external_id


def command_of(record: Record) -> list[str]:
    """Return the command of the last submission, but for its script."""
    return [scheduler.SUBMIT, *record.read("json")[scheduler.SUBMIT]]


def watch_for_interrupt() -> None:
    """Start `interrupt` for the Snakemake that called, unless it runs already, or Snakemake is in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    caller = os.getppid()
    while shell := re.search(r"^Name:\s*(?:sh|dash|bash|submit)$(?s:.*)^PPid:\s*(\d+)", status_of(caller), re.MULTILINE):
        caller = int(shell[1])
    kept = STATE / "interrupt.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads(kept.read_text())
        if known["snakemake"] == caller and b"interrupt" in Path("/proc", str(known["process"]), "cmdline").read_bytes():
            return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until it is ready, and shows it by closing its output
    command = [sys.executable, str(PROFILE / "interrupt"), str(caller)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with process.stdout as ready:  # type: ignore[union-attr]
        ready.read()
    write_whole(kept, json.dumps({"snakemake": caller, "process": process.pid}))


def status_of(process: int) -> str:
    """Return what the kernel says of a process."""
    return Path("/proc", str(process), "status").read_text()


def left_in_queue(record: Record, job: Job, site: Site) -> bool:
    """Return whether the last submission is still alive and does just what is asked for now.

    One that does something else, since the config was changed, or of which there is no record, since .snakemake was deleted, or
    that the scheduler starts again though it was reported as over, is deleted and waited for: two jobs must not write one file.
    """
    over = not record.last or record.exit_code() is not None or bool(record.read("end"))
    max_age = site.settings["poll"] if over else 0
    patience = Patience(site)
    while True:
        try:
            queue = look(max_age)
        except MasterAway as error:
            if not record.last:
                return False
            patience.wait(job, error)
            continue
        if not over and record.read("json").get(HASH_KEY) == job.hash and record.adopt(queue):
            return True
        earlier = {number: queued for number, queued in queue.jobs.items() if queued.name == job.name}
        if not earlier:
            return False
        say(f"{job}: waiting until an earlier job of the same output is gone ({', '.join(earlier)})")
        scheduler.delete([number for number, queued in earlier.items() if not queued.being_deleted])
        max_age = 0
        patience.wait(job)


class Patience:
    """How long to wait for the scheduler's answer, or for a job to be gone, before the program gives up."""

    def __init__(self, site: Site) -> None:
        self.seconds, self.begun, self.pauses = site.settings["patience"], time.monotonic(), iter(PAUSES)

    def wait(self, job: Job, error: MasterAway | None = None) -> None:
        """Wait, and say so if the scheduler is away."""
        if time.monotonic() - self.begun > self.seconds:
            sys.exit(f"gave up after {self.seconds} s (`patience` in settings.yaml)")
        pause = next(self.pauses, PAUSES[-1]) if error else PAUSES[0]
        if error:
            say(f"{job}: trying again in {pause:g} s: {error}")
        time.sleep(pause)


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            sys.exit(NOT_SUBMITTED)
        raise
    except OSError as error:
        sys.exit(f"{error}")
    except Exception:
        traceback.print_exc()
        sys.exit(NOT_SUBMITTED)
