"""Files that are either whole or not there: everything is written under a temporary name and renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` if all went well, else delete it.

    The folder of `path` is made if needed. The suffix is kept, for libraries that go by it. What a killed process left is
    written over by the next.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(text: str, path: str | Path) -> None:
    """Write `text` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(table: pd.DataFrame, path: str | Path) -> None:
    """Write `table` without its index to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def write_json(value: Any, path: str | Path) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all; NaN is refused, for JSON has none."""
    write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", path)


def files_below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield every file below a folder, sorted, also through links to folders unless they lead in a circle.

    Parameters
    ----------
    above
        The folders around it, their own paths.

    Raises
    ------
    OSError
        If a folder may not be looked into.
    """
    own = folder.resolve()
    if own in above:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from files_below(path, above | {own})
        else:
            yield path


def is_web_page(head: bytes) -> bool:
    """Return whether a file that begins so is a web page, as comes in place of a file where one has to log in."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html"))
