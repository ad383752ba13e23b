"""What the stages' commands share: how they read their arguments and how they end."""

import argparse
import errno
import logging
import socket
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from mriflow.base.errors import UserError
from mriflow.base.files import OF_THE_MACHINE


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of one stage; `description` is the stage's module docstring, shown by ``--help``."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return tqdm's progress bar: lively in a terminal, a line every half minute in a log file."""
    from tqdm import tqdm  # here, for `make bench-gpu` trains without it

    pause = 0.2 if sys.stderr.isatty() else 30
    return tqdm(iterable, mininterval=pause, maxinterval=pause, **options)


def run_stage(main: Callable[[], object]) -> None:
    """Run a stage's `main` and end the process with 0, 1 (the user's error, its text alone) or 130 (Ctrl-C)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    if not sys.warnoptions:  # what libraries warn their own users of is nothing to ours
        for kind in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", kind)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno in OF_THE_MACHINE:
            sys.exit(
                f"error: the machine {socket.gethostname()} failed, and this is no mistake of yours: "
                f"{error.filename or 'a file'}: {error.strerror}. Run the same command again; what was finished is kept."
            )
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            sys.exit(
                f"error: {error.filename or 'a file'}: {error.strerror}. You may not write or read there: `ls -ld` shows whose "
                "it is. Have it made yours, or write elsewhere (`pathvars` in the config)."
            )
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(
            f"error: no space left to write {error.filename or 'a file'}: {error.strerror}. "
            "Free some space (or quota) and run the same command again; what was finished is kept."
        )
