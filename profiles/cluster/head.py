"""Submit Snakemake itself as a job, unless it is in the queue already. Called by head.sh, after its checks.

head.py HOURS [SNAKEMAKE ARGUMENTS]
"""

import signal

if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback

import os
import re
import shlex
import sys
from pathlib import Path

from base import MasterAway, Refused
from dialect import Request, read_site
from here import LOGS, PROFILE, STATE, scheduler
from jobs import submit_arguments
from look import look
from words import short_hash

MEMORY_MB = 4000  # of Snakemake, which only waits


def main() -> None:
    """Submit Snakemake, and say where its output goes."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__.strip())
    job = submit(sys.argv[1], sys.argv[2:])
    print(f"Snakemake runs as job {job}; follow it with: tail -F {LOGS}/head/{job}.log")


def submit(hours: str, arguments: list[str]) -> str:
    """Submit Snakemake with these arguments and return the id of its job. Exits if one is in the queue already."""
    site = read_site(STATE / "site.json")
    if not re.fullmatch(r"\d+(\.\d+)?", hours):
        sys.exit(f"HOURS={hours!r}: a number of hours was expected")
    request = Request.of({"mem_mb": MEMORY_MB, "runtime": 60 * float(hours)}, 1)
    name = f"head-{short_hash(str(Path.cwd()))}"
    try:
        running = [number for number, queued in look(0).jobs.items() if queued.name == name]
        if running:
            sys.exit(f"job {running[0]} runs Snakemake in this folder already; see {LOGS}/head/{running[0]}.log")
        (LOGS / "head").mkdir(parents=True, exist_ok=True)
        command = [str(Path(sys.executable).parent / "snakemake"), f"--profile={os.path.relpath(PROFILE)}", *arguments]
        prologue = shlex.quote(str(PROFILE / "prologue.sh"))
        (STATE / "head.sh").write_text(f"#!/bin/bash\nsource {prologue}\nexec {shlex.join(command)}\n")
        return scheduler.submit([*submit_arguments("head", name, request, site, False), str(STATE / "head.sh")])
    except (MasterAway, Refused) as error:
        sys.exit(f"{scheduler.TITLE}: {error}")


if __name__ == "__main__":
    main()
