"""Weights to start from: published ones of SFCN, or a model of an earlier run."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mriflow.base.errors import UserError

log = logging.getLogger(__name__)


def load_pretrained(net: nn.Module, path: Path) -> None:
    """Load weights into a network: all of them, but for an output layer of another size, which starts anew.

    The weights published with SFCN (Peng et al. 2021) have names that begin with ``module.``, from training on several GPUs;
    that is taken off. Their age model has 40 outputs, for the bins of 42 to 82 years; their sex model has 2 outputs and
    channels [28, 58, 128, 256, 256, 64].

    Parameters
    ----------
    net
        The network, of the same layout.
    path
        A state dict, or a model.pt of `train`.

    Raises
    ------
    UserError
        If the file is missing or no file of weights, or if a tensor other than the output layer's is missing, is unknown, or
        has another shape; all of these are named.
    """
    given = read_weights(path)
    expected = net.state_dict()
    head = {name for name in expected if name.rpartition(".")[0] == list(expected)[-1].rpartition(".")[0]}
    different = {name for name in expected.keys() & given if given[name].shape != expected[name].shape}
    anew = head if different and different <= head else set()
    wrong = [f"{name}: not in the file" for name in expected if name not in given]
    wrong += [f"{name}: not in this network" for name in given if name not in expected]
    wrong += [f"{name}: {shapes(given[name], expected[name])}" for name in expected if name in different - anew]
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} of its {len(given)} tensors do not match the network:\n  "
            + "\n  ".join(wrong)
            + "\nGive the network the `arguments` that these weights were trained with (of SFCN, its `channels`)."
        )
    net.load_state_dict({name: expected[name] if name in anew else given[name] for name in expected})
    log.info("%s: %d of %d tensors loaded", path, len(expected) - len(anew), len(expected))
    if not anew:
        log.info("the output layer is kept, too, for its size fits: see that it was trained for the same classes or bins")
    for name in sorted(anew):
        log.info("%s starts anew: %s", name, shapes(given[name], expected[name]))


def shapes(given: torch.Tensor, expected: torch.Tensor) -> str:
    """Return two shapes as text."""
    return f"{tuple(given.shape)} in the file, {tuple(expected.shape)} here"


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of weights by their names, without ``module.`` before them."""
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights (`init` of the network).")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for what is no file of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: cannot be read as weights of PyTorch ({reason}); expected what torch.save wrote.") from error
    for key in ("weights", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no weights; expected a dict of tensors (a state dict), or a model.pt.")
    return {str(name).removeprefix("module."): value for name, value in state.items()}
