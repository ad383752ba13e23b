"""Files that are either whole or not there: everything is written under a temporary name and renamed."""

import errno
import functools
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec

import pandas as pd

log = logging.getLogger(__name__)


# A disk or network file system that fails for a moment, or for this machine alone; none of it is a mistake of the user's.
OF_THE_MACHINE = (errno.EIO, errno.ESTALE, getattr(errno, "EREMOTEIO", errno.EIO), errno.ENOTCONN)
PAUSES = (1, 5, 20)  # seconds between the tries to write

Arguments = ParamSpec("Arguments")


def tried_again(write: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Have a function that writes a file called again, three times at most, where the machine and not the file is at fault."""

    @functools.wraps(write)
    def persistent(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        for pause in PAUSES:
            try:
                return write(*args, **kwargs)
            except OSError as error:
                if error.errno not in OF_THE_MACHINE:
                    raise
                log.warning("%s: %s; writing it again in %g s", error.filename or "a file", error.strerror, pause)
                time.sleep(pause)
        return write(*args, **kwargs)

    return persistent


@contextmanager
def whole_file(path: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` if all went well, else delete it.

    The folder of `path` is made if needed. The suffix is kept, for libraries that go by it. What a killed process left is
    written over by the next. With `shared`, where others may write the same file at the same time, every writer has a temporary
    path of its own.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part.{uuid.uuid4().hex if shared else ''}{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch hides it
        if not isinstance(cause, OSError):
            raise
        cause.filename = cause.filename or str(path)
        raise cause from None
    finally:
        with suppress(OSError):  # what failed first is told
            temporary.unlink(missing_ok=True)


@tried_again
def write_text(text: str, path: str | Path) -> None:
    """Write `text` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@tried_again
def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    """Write `table` without its index to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def write_json(value: Any, path: str | Path) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all; NaN is refused, for JSON has none."""
    write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", path)


def files_below(folder: Path, above: frozenset[Path] = frozenset(), hidden: list[Path] | None = None) -> Iterator[Path]:
    """Yield every file below a folder, sorted, also through links to folders unless they lead in a circle.

    What is hidden (its name begins with a dot) is passed over: what a Mac writes beside each file (._T1.nii.gz), .git, a bin.

    Parameters
    ----------
    above
        The folders around it, their own paths.
    hidden
        Where to list the hidden files and folders.

    Raises
    ------
    OSError
        If a folder may not be looked into.
    """
    own = folder.resolve()
    if own in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            if hidden is not None:
                hidden.append(path)
        elif path.is_dir():
            yield from files_below(path, above | {own}, hidden)
        else:
            yield path


def as_path(text: str) -> str:
    r"""Return a path as someone wrote it, with ~ for one's home, and with the backslashes of Windows as slashes.

    >>> as_path(r"scans\p01.nii.gz")
    'scans/p01.nii.gz'
    """
    if "\\" in text and not Path(text).exists():
        text = text.replace("\\", "/")
    return os.path.expanduser(text)  # noqa: PTH111 - Path's raises for a user that there is not


def head_of(path: Path) -> bytes:
    """Return how a file begins, nothing if it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(512)
    except OSError:
        return b""


def pointer(head: bytes) -> str:
    """Return what to do about a file that begins so if it only stands for another, whose content is elsewhere; else ''."""
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, its content is not here: git lfs pull"
    if b"annex/objects/" in head[:200] and len(head) < 500:
        return "a pointer of git-annex, its content is not here: datalad get, or git annex get"
    return ""


def dead_link(path: Path) -> str:
    """Return what to do about a link that leads nowhere, '' if a path is none."""
    if not os.path.islink(path) or os.path.exists(path):  # noqa: PTH110, PTH114 - Path's raise for a name that is too long
        return ""
    target = path.readlink()
    if "annex/objects/" in str(target):
        return "a link of git-annex, its content is not here: datalad get, or git annex get"
    return f"a link to {target}, which is not there"


def is_web_page(head: bytes) -> bool:
    """Return whether a file that begins so is a web page, as comes in place of a file where one has to log in."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html"))


def files_inside(folders: Iterable[str], tables: bool) -> list[float]:
    """Return how many files each folder of images holds, for Snakemake looks at the folder's own time alone.

    With `tables`, the newest time of those that describe them (.tsv, .json) follows.
    """
    found = [list(files_below(Path(folder))) for folder in folders if Path(folder).is_dir()]
    described = [file for files in found for file in files if file.suffix in (".tsv", ".json") and file.exists()]
    changed = [max(file.stat().st_mtime for file in described)] if tables and described else []
    return [*map(len, found), *changed]
