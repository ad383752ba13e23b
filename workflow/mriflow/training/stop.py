"""When to stop before the work is done: a signal asked for it, the walltime is near, or who started this process is gone."""

import argparse
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
LAUNCHER = "MRIFLOW_LAUNCHER"  # in the environment: the number of the process that started this one among several
# All that may be a reason, from the least to the most pressing.
REASONS = ("walltime", "end of the launcher", *(number.name for number in SIGNALS))


class StopFlag:
    """Tells the training loop between two steps whether to end; saving inside a signal handler would save a half-made step.

    Parameters
    ----------
    deadline
        When to stop, in seconds since the epoch.
    """

    def __init__(self, deadline: float | None) -> None:
        self.deadline = math.inf if deadline is None else deadline
        self.signal: str | None = None

    def __enter__(self) -> "StopFlag":
        self.before = {number: signal.signal(number, self.catch) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def catch(self, number: int, _frame: object) -> None:
        """Remember the signal."""
        self.signal = signal.Signals(number).name

    def reason(self) -> str | None:
        """Return one of `REASONS`, "walltime" from the deadline on, or None to go on."""
        if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):
            return "end of the launcher"
        return self.signal or ("walltime" if time.time() >= self.deadline else None)


@contextmanager
def interruptible() -> Iterator[None]:
    """Make of each of `SIGNALS` what Ctrl-C is, so that what was begun is put in order; a StopFlag takes them over later."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def moment(text: str) -> float:
    """Read a deadline from the command line or the environment."""
    with suppress(ValueError):
        if math.isfinite(seconds := float(text)):
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r}, of the flag or of JOB_DEADLINE, is no number of seconds since the epoch")
