"""Everything that a training needs to go on as if it had never stopped."""

import hashlib
import io
import json
import logging
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mriflow.base.errors import UserError
from mriflow.base.files import tried_again, whole_file, write_csv
from mriflow.training.forward import out_of_memory
from mriflow.training.lock import refresh

log = logging.getLogger(__name__)


def hash_of(**settings: Any) -> str:
    """Return a short text that changes with any of `settings` (numbers, texts, lists and dicts of these).

    >>> hash_of(fold=0, seed=1) == hash_of(seed=1, fold=0)
    True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


@tried_again
def save_bytes(value: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers and texts to `path`, whole or not at all; equal values give equal bytes.

    Given a file's name instead of the open file, `torch.save` would write that name, which is a temporary one, into it.
    """
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        torch.save(interned(value), stream)


def interned(value: Any) -> Any:
    """Return nested dicts and lists with every text there only once: pickle tells equal texts from the same one."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {interned(key): interned(one) for key, one in value.items()}
    return [interned(one) for one in value] if isinstance(value, list) else value


class Checkpoints:
    """The newest checkpoint of a training and the one before it, written while the training goes on.

    Parameters
    ----------
    folder
        Where last.ckpt and previous.ckpt stand, beside history.csv.
    settings_hash
        Of data and settings; a checkpoint must have the same.
    """

    def __init__(self, folder: Path, settings_hash: str) -> None:
        self.last, self.previous = folder / "last.ckpt", folder / "previous.ckpt"
        self.settings_hash = settings_hash
        self.writer = ThreadPoolExecutor(1)
        self.writing: Future | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Copy `state`, and have it written; an error in writing is raised by the next `save` or `wait`."""
        self.wait()
        self.writing = self.writer.submit(self.write, {**on_cpu(state), "settings_hash": self.settings_hash})

    @tried_again
    def write(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, whole or not at all, and the history in it as a table to look at."""
        refresh(self.last.parent)
        with whole_file(self.last) as temporary:
            with open(temporary, "wb") as stream:
                torch.save(state, stream)
                stream.flush()
                os.fsync(stream.fileno())  # it takes a while, and both checkpoints before it are there meanwhile
            if self.last.exists():
                self.keep_as_previous()
        write_csv(pd.DataFrame(state["history"]), self.last.with_name("history.csv"))

    def keep_as_previous(self) -> None:
        """Make the newest checkpoint the one before, too; it stays until the next takes its name."""
        spare = self.previous.with_name(f".part.{self.previous.name}")
        spare.unlink(missing_ok=True)
        try:
            os.link(self.last, spare)
            os.replace(spare, self.previous)
        except OSError:  # a file system without hard links: between here and the next one's name only `previous` is there
            os.replace(self.last, self.previous)

    def wait(self) -> None:
        """Wait until the last `save` is on the disk."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that can be read, or None if there is nothing to go on from.

        A checkpoint of other data or settings is renamed, so that nothing is lost, and training starts anew; if these are
        changed back, it is used again.
        """
        for path in (self.last, self.previous):
            before = path.with_name(f"{self.settings_hash}-{path.name}")
            if path.is_file() and before.is_file() and (state := read(path)):
                put_aside(path, state)
            if before.is_file():
                os.replace(before, path)
        for path in (self.last, self.previous):
            if path.is_file():
                state = read(path)
                if state is None:
                    continue
                if hash_in(state) == self.settings_hash:
                    return state
                log.warning("%s is of other data or settings: moved aside, starting anew", path)
                put_aside(path, state)
        return None


def put_aside(path: Path, state: dict[str, Any]) -> None:
    """Rename a checkpoint after the hash of its settings."""
    os.replace(path, path.with_name(f"{hash_in(state)}-{path.name}"))


def hash_in(state: dict[str, Any]) -> str | None:
    """Return the hash of data and settings in a checkpoint; those written before it had this name are read, too."""
    return state.get("settings_hash", state.get("fingerprint"))


def read(path: Path) -> dict[str, Any] | None:
    """Return what a checkpoint holds; a damaged one is renamed, and nothing returned.

    Raises
    ------
    UserError
        If it is the machine that fails, and not the file.
    """
    try:
        state = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        if isinstance(state, dict):
            return state
        problem: object = f"it holds a {type(state).__name__}"
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        if isinstance(error, OSError) or out_of_memory(error):
            raise UserError(f"{path}: cannot be read now ({error}). It is kept: run the same command again.") from error
        problem = error
    aside = path.with_name(f"damaged-{path.name}")
    os.replace(path, aside)
    log.warning(
        "%s cannot be read (%s): moved to %s, going on from the one before it, if there is one", path, problem, aside.name
    )
    return None


def on_cpu(value: Any) -> Any:
    """Return a copy of nested dicts and lists with all tensors copied to the CPU, which later steps do not change."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_cpu(one) for key, one in value.items()}
    if isinstance(value, list):
        return [on_cpu(one) for one in value]
    return value
