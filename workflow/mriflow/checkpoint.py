"""Everything that a training needs to go on as if it had never stopped."""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

from mriflow.files import whole_file

log = logging.getLogger(__name__)


def fingerprint(**parts: Any) -> str:
    """Return a short text that changes with any of `parts` (numbers, texts, lists and dicts of these)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` and the random states of torch to `path`, whole or not at all."""
    random_states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_states["cuda"] = torch.cuda.get_rng_state()
    save_bytes({**state, "random_states": random_states}, path)


def save_bytes(value: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers and texts to `path`, whole or not at all; equal values give equal bytes.

    Given a file's name instead of the open file, `torch.save` would write that name, which is a temporary one, into it.
    """
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        torch.save(value, stream)


def load_checkpoint(path: Path, wanted: str) -> dict[str, Any] | None:
    """Return the state saved at `path` and restore the random states, or None if there is nothing to go on from.

    A checkpoint of other data or settings is refused: it is renamed, so that nothing is lost, and training starts anew.

    Parameters
    ----------
    wanted
        The fingerprint that the checkpoint must have.
    """
    before = path.with_name(f"{wanted}-{path.name}")
    if before.is_file():  # the settings were changed, and changed back
        os.replace(before, path)
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        aside = path.with_name(f"damaged-{path.name}")
        os.replace(path, aside)
        log.warning("%s cannot be read (%s): moved to %s, starting anew", path, error, aside.name)
        return None
    if state["fingerprint"] != wanted:
        aside = path.with_name(f"{state['fingerprint']}-{path.name}")
        os.replace(path, aside)
        log.warning("%s is of other data or settings: moved to %s, starting anew", path, aside.name)
        return None
    torch.set_rng_state(state["random_states"]["cpu"])
    if "cuda" in state["random_states"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random_states"]["cuda"])
    return state
