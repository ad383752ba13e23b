"""What a scheduler's adapter and the programs beside this file share: its errors, a job in the queue, how a command is run."""

import contextlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class MasterAway(Exception):
    """The scheduler did not answer; a later try may do."""


class Refused(Exception):
    """The scheduler refused a request, for the reason given."""


class Full(MasterAway):
    """The site takes no more jobs until some have ended."""


class Queued(NamedTuple):
    """A job that the scheduler lists: its name, its state and, if it gives one, its reason in the scheduler's words."""

    name: str
    state: str
    reason: str = ""
    waits: bool = False  # has not started
    in_error: bool = False  # will never run until someone clears the error
    being_deleted: bool = False  # was deleted, or ends, and only is not gone yet
    over: bool = False  # ended a while ago
    why: str = ""  # it is over, as in `End`


class End(NamedTuple):
    """What the scheduler says of a job's end."""

    why: str = ""  # memory, walltime, deleted or node, if it says so; of one that never ran, queue or never
    facts: str = ""  # in its own words
    peak_mb: float = 0.0  # of memory


class Words(NamedTuple):
    """What a scheduler's commands print when the way to it is down, or the site full, rather than the request wrong."""

    away: re.Pattern[str]
    full: re.Pattern[str]
    asks: Sequence[str]  # commands that only ask: if one fails, that says nothing about a job, and it may always be tried again


def run(words: Words, *command: str, timeout: float = 60, environment: Mapping[str, str] | None = None) -> str:
    """Run a command of the scheduler and return its output. Raises MasterAway, Full or Refused."""
    try:
        # A name of another of the user's jobs may be in any encoding.
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False, env=environment
        )
    except FileNotFoundError:
        raise Refused(f"there is no {command[0]} on this machine: a cluster is used from its login node") from None
    except subprocess.TimeoutExpired:
        raise MasterAway(f"{command[0]} did not answer within {timeout:g} s") from None
    if done.returncode:
        message = (done.stderr or done.stdout).strip()
        if words.full.search(message):
            raise Full(message)
        raise MasterAway(message) if command[0] in words.asks or words.away.search(message) else Refused(message)
    return done.stdout


def start(*command: str) -> None:
    """Start a command, and leave it to itself if it takes long."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.5)


def write_whole(file: Path, text: str) -> None:
    """Write a file that other processes see whole or not at all."""
    temporary = file.with_name(f".part.{os.getpid()}.{file.name}")
    try:
        temporary.write_text(text)
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
