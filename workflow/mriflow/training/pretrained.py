"""Weights to start from: published ones of SFCN, or a model of an earlier training."""

import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import nn

from mriflow.base.errors import UserError
from mriflow.training.freezing import output_layer
from mriflow.training.networks import WithCovariates

log = logging.getLogger(__name__)

MEANING = ("classes", "low", "high", "width")  # of an objective's state: what its outputs stand for


class Start(NamedTuple):
    """What a training starts from.

    Attributes
    ----------
    path
        The file.
    weights
        Its tensors by their names.
    facts
        What else stands in a model.pt; nothing for a plain file of weights.
    """

    path: Path
    weights: dict[str, torch.Tensor]
    facts: dict[str, Any]


def load_pretrained(net: nn.Module, start: Start, here: Mapping[str, Any] | None = None) -> None:
    """Load weights into a network: all of them, but for an output layer that does not fit, which starts anew.

    It does not fit if it has another size, or if a model.pt was trained for another target, loss or bins. What covariates add
    to the outputs is taken from a model of the same covariates; else it starts anew, too.

    The weights published with SFCN (Peng et al. 2021) have names that begin with ``module.``, from training on several GPUs;
    that is taken off. Their age model has 40 outputs, for the bins of 42 to 82 years; their sex model has 2 outputs and
    channels [28, 58, 128, 256, 256, 64].

    Parameters
    ----------
    net
        The network, of the same layout.
    start
        From `read_start`.
    here
        `target`, `channels`, `covariates` and `objective` as the model.pt of this training will have them.

    Raises
    ------
    UserError
        If the channels are others, or if a tensor other than the output layer's is missing, is unknown, or has another shape;
        all of these are named.
    """
    path, facts, here = start.path, start.facts, here or {}
    if differs(facts, here, "channels"):
        raise UserError(
            f"{path}: was trained on scans with the channels {', '.join(facts['channels'])}; here they have "
            f"{', '.join(here['channels'])}. Give both experiments `preprocess` blocks with the same channels."
        )
    given, of_covariates = unwrapped(start.weights)
    inner = net.net if isinstance(net, WithCovariates) else net
    assert isinstance(inner, nn.Module)
    expected = inner.state_dict()
    last = output_layer(inner)
    head = {name for name in expected if name.rpartition(".")[0] == last}
    different = {name for name in expected.keys() & given if given[name].shape != expected[name].shape}
    other = differs(facts, here, "target") or not same_outputs(facts.get("objective"), here.get("objective"))
    anew = head if other or (different and different <= head) else set()
    wrong = [f"{name}: not in the file" for name in expected if name not in given]
    wrong += [f"{name}: not in this network" for name in given if name not in expected]
    wrong += [f"{name}: {shapes(given[name], expected[name])}" for name in expected if name in different - anew]
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} of its {len(given)} tensors do not match the network:\n  "
            + "\n  ".join(wrong)
            + "\nGive the network the `arguments` that these weights were trained with (of SFCN, its `channels`), and its "
            "scans as many channels."
        )
    inner.load_state_dict({name: expected[name] if name in anew else given[name] for name in expected})
    log.info("%s: %d of %d tensors loaded", path, len(expected) - len(anew), len(expected))
    if not anew and "target" not in facts:
        log.info("the output layer is kept, too, for its size fits: see that it was trained for the same classes or bins")
    for name in sorted(anew):
        why = shapes(given[name], expected[name]) if name in different else "it was trained for another target, loss or bins"
        log.info("%s starts anew: %s", name, why)
    load_covariates(net, of_covariates, same=not differs(facts, here, "covariates"))


def load_covariates(net: nn.Module, given: torch.Tensor | None, same: bool) -> None:
    """Load what covariates add to the outputs, from a model of the `same` ones."""
    if isinstance(net, WithCovariates):
        fits = same and given is not None and given.shape == net.linear.weight.shape
        if fits:
            net.linear.load_state_dict({"weight": given})
        log.info("what covariates add to the outputs %s", "is loaded, too" if fits else "starts anew")
    elif given is not None:
        log.info("what covariates add to the outputs of that model is left out, for there are none here")


def differs(facts: Mapping[str, Any], here: Mapping[str, Any], key: str) -> bool:
    """Return whether a model.pt is known to have something else than is `here`; of covariates the names count."""
    if key not in facts or key not in here:
        return False
    return list(facts[key]) != list(here[key]) if key == "covariates" else facts[key] != here[key]


def same_outputs(theirs: Mapping[str, Any] | None, ours: Mapping[str, Any] | None) -> bool:
    """Return whether the outputs of two objectives stand for the same, as far as is known; their weights do not matter."""
    if theirs is None or ours is None:
        return True
    if "parts" in theirs and "parts" in ours:
        pairs = zip(theirs["parts"], ours["parts"], strict=False)
        return len(theirs["parts"]) == len(ours["parts"]) and all(same_outputs(*pair) for pair in pairs)
    same_kind = theirs["loss"] == ours["loss"] or {theirs["loss"], ours["loss"]} <= {"l1", "l2"}
    return same_kind and all(theirs.get(key) == ours.get(key) for key in MEANING)


def unwrapped(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Return the weights of a network without its covariates, and those of the covariates, if it has any (`WithCovariates`)."""
    inner = {name.removeprefix("net."): value for name, value in weights.items() if name.startswith("net.")}
    if inner and set(weights) == {f"net.{name}" for name in inner} | {"linear.weight"}:
        return inner, weights["linear.weight"]
    return dict(weights), None


def shapes(given: torch.Tensor, expected: torch.Tensor) -> str:
    """Return two shapes as text."""
    return f"{tuple(given.shape)} in the file, {tuple(expected.shape)} here"


def read_start(path: Path) -> Start:
    """Read a file of weights: a state dict, or a model.pt of `train`; ``module.`` before the names is taken off.

    Raises
    ------
    UserError
        If the file is missing, or no file of weights.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights (`init` of the network).")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for what is no file of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, UnpicklingError):  # PyTorch would tell how to load it all the same
            reason = "it is damaged, or holds more than tensors, such as code, and code is never run"
        raise UserError(f"{path}: cannot be read as weights of PyTorch ({reason}); expected what torch.save wrote.") from error
    facts: dict[str, Any] = {}
    for key in ("weights", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            facts, state = {name: value for name, value in state.items() if name != key}, state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no weights; expected a dict of tensors (a state dict), or a model.pt.")
    return Start(path, {str(name).removeprefix("module."): value for name, value in state.items()}, facts)
