"""What is said to the user, on stderr: what stands on stdout is an answer to Snakemake."""

import contextlib
import errno
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from here import PROFILE, STATE

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def say(text: str) -> None:
    """Print a message for the user."""
    print(f"{PROFILE.name}: {text}", file=sys.stderr, flush=True)


def say_once(text: str, of: str, seconds: float = 600) -> None:
    """Print a message unless one `of` the same was printed a while ago, for another job too."""
    if not said(of, seconds):
        say(text)


def said(of: str, seconds: float) -> bool:
    """Return whether a message `of` the same was printed so many seconds ago, and note that one is printed now if not.

    The note stands in the state's folder or, where that disk is full, among the temporary files of this machine.
    """
    for folder in (STATE, Path(os.environ.get("TMPDIR", "/tmp"))):  # noqa: S108 - an empty file, named by a hash
        file = folder / f"said-{short_hash([str(Path.cwd()), of])}"
        with contextlib.suppress(OSError):
            if file.exists() and time.time() - file.stat().st_mtime < seconds:
                return True
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            return False
    return False


def say_no_room(error: OSError) -> None:
    """Say once that a disk is full, or a quota used up."""
    text = f"{error}. Nothing is lost: waiting until there is room again (a quota counts files, too)"
    say_once(text, of="room")


def title(rule: str, wildcards: dict[str, str]) -> str:
    """Return how a job is called in messages: its rule, and its wildcards if it has any."""
    values = ", ".join(f"{name}={value}" for name, value in wildcards.items())
    return f"{rule} ({values})" if values else rule


def short_hash(value: Any) -> str:
    """Return a short hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
