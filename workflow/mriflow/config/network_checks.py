"""What no schema can check of networks: their arguments, the batches that they take, and the weights that they start from."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mriflow.config.label_maps import EXPERIMENT_NAME, tissue_network
from mriflow.config.mistakes import Mistakes, in_short, instead

# What an experiment names, and the section of the config in which it is looked up.
SECTIONS = {
    "dataset": "datasets",
    "target": "targets",
    "preprocess": "preprocess",
    "split": "splits",
    "network": "networks",
    "training": "training",
}
SFCN_ARGUMENTS = ("channels", "dropout", "head", "norm")  # of `mriflow.training.networks.SFCN`, but those that the data give
SFCN_CHOICES = {"head": ("average", "flat"), "norm": ("batch", "instance", "group")}
SFCN_CHANNELS = [32, 64, 128, 256, 256, 64]  # if none are given


@cache
def names_in_monai() -> frozenset[str]:
    """Return the names in monai.networks.nets, read from its file, for an import takes seconds; none if MONAI is not here."""
    found = find_spec("monai")
    if not found or not found.origin:
        return frozenset()
    tree = ast.parse((Path(found.origin).parent / "networks/nets/__init__.py").read_text(encoding="utf-8"))
    return frozenset(name.asname or name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names)


def check_network(at: tuple, block: dict, mistakes: Mistakes) -> None:
    """Add a network that there is not, and arguments that SFCN does not take; those of MONAI's networks are its own."""
    name, arguments = block["name"], block["arguments"]
    if name != "SFCN":
        if names_in_monai() and name not in names_in_monai():
            mistakes.add((*at, "name"), f"found {name!r}, expected SFCN or a network of MONAI{instead(name, names_in_monai())}")
        return
    for key, value in arguments.items():
        place = (*at, "arguments", key)
        if key not in SFCN_ARGUMENTS:
            mistakes.add(place, f"not an argument of SFCN{instead(key, SFCN_ARGUMENTS)}")
        elif key in SFCN_CHOICES and value not in SFCN_CHOICES[key]:
            mistakes.add(place, f"found {in_short(value)}, expected one of {', '.join(SFCN_CHOICES[key])}")
        elif key == "channels" and not is_channels(value):
            mistakes.add(place, f"found {in_short(value)}, expected the channels of two blocks or more, such as [8, 16, 8]")
        elif key == "dropout" and not (isinstance(value, int | float) and 0 <= value < 1):
            mistakes.add(place, f"found {in_short(value)}, expected a share from 0 to less than 1")


def is_channels(value: Any) -> bool:
    """Return whether a value can be the channels of SFCN's blocks."""
    if not isinstance(value, list) or len(value) < 2:
        return False
    return all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in value)


def check_grid(experiment: str, names: dict, blocks: dict, mistakes: Mistakes) -> None:
    """Add a network that halves the grid until nothing is left."""
    network, shortest = blocks["network"], min(blocks["preprocess"]["shape"])
    channels = network["arguments"].get("channels", SFCN_CHANNELS)
    if network["name"] != "SFCN" or not is_channels(channels):
        return
    halvings = len(channels) - 1
    if shortest >> halvings < 1:
        text = f"found {len(channels)} blocks, which halve the grid {halvings} times; that of {names['preprocess']!r} in "
        text += f"experiment {experiment!r} has {shortest} voxels along its shortest axis. Expected fewer"
        mistakes.add(("networks", names["network"], "arguments", "channels"), text)


def check_augmentation(
    experiment: str, names: dict, blocks: dict, mistakes: Mistakes, keys: dict | None = None, search: str = ""
) -> None:
    """Add changes to training scans that would change nothing: shifts of less than a voxel, and brightness of tissue maps.

    Of the training block, or of the `keys` of a trial of a `search`.
    """
    block = blocks["preprocess"]
    given = {f"augmentation.{key}": value for key, value in blocks["training"]["augmentation"].items()}
    given, at = (given, ("training", names["training"])) if keys is None else (keys, ("searches", search, "keys"))

    def add(key: str, text: str) -> None:
        mistakes.add((*at, *(key.split(".") if keys is None else [key])), text)

    for key, value in given.items():
        if key == "augmentation.shift_mm" and 0 < value < block["voxel_mm"]:
            text = f"found {value:g}, less than a voxel of {names['preprocess']!r} in experiment {experiment!r}, which would "
            add(key, f"{text}shift nothing: expected 0, or at least {block['voxel_mm']:g}")
        elif key in ("augmentation.bias_field", "augmentation.noise") and value and "image" not in block["channels"]:
            text = f"found {value:g}, which changes the image alone, and {names['preprocess']!r} in experiment "
            add(key, f"{text}{experiment!r} has none among its `channels`: expected 0")


def check_batch(at: tuple, training: dict, mistakes: Mistakes, keys: dict | None = None) -> None:
    """Add a batch that cannot be shared by the GPUs and parts of a training block, or of a trial with other `keys` of it."""
    parts = training["accumulate"] * max(1, training["gpu"])
    if training["batch_size"] % parts:
        asked = f"`accumulate: {training['accumulate']}` and `gpu: {training['gpu']}`"
        trial = f" (the trial {in_short(keys)})" if keys else ""
        place = at if keys else (*at, "batch_size")
        mistakes.add(place, f"found {training['batch_size']} with {asked}{trial}, expected a multiple of {parts}")


def check_init(at: tuple, init: dict | None, mistakes: Mistakes) -> None:
    """Add weights to start from that are named twice, by `from` and by `weights`, its name of before, or not at all."""
    if init is not None and {"from", "weights"} <= init.keys():
        mistakes.add((*at, "weights"), "found beside `from`, its name now, expected `from` alone")
    elif init is not None and not {"from", "weights"} & init.keys():
        mistakes.add((*at, "from"), "missing, expected a file of weights, a model.pt, or an experiment of this config")


def start_of(config: dict, experiment: str) -> str | None:
    """Return the experiment that the training of another starts from, or None; it need not be there."""
    network = config["networks"].get(config["experiments"][experiment]["network"], {})
    start = network.get("init", {}).get("from", "")
    return start if EXPERIMENT_NAME.fullmatch(start) else None


def needed_by(config: dict, experiment: str) -> list[str]:
    """Return the experiments that another starts from, or that tells its tissues apart; they need not be there."""
    block = config["experiments"][experiment].get("preprocess")
    tissues = tissue_network(config, block)[0] if block in config.get("preprocess", {}) else ""
    return [other for other in (start_of(config, experiment), tissues) if other]


def check_start(experiment: str, whole: dict, known: dict[str, dict], mistakes: Mistakes) -> None:
    """Add an experiment to start from that there is not, that itself starts from this one, or that does not fit it."""
    experiments, start = whole["experiments"], start_of(whole, experiment)
    at = ("networks", experiments[experiment]["network"], "init", "from")
    if start is None:
        return
    if start not in known.get("experiments", [start]):
        text = f"found {start!r}, which is no experiment{instead(start, known['experiments'])}; a file is written with its "
        mistakes.add(at, f"{text}folder, ./{start}")
    chain: list[str] = [experiment]
    following: str | None = start
    while following and following in experiments and following not in chain:
        chain.append(following)
        following = start_of(whole, following)
    if following == experiment:
        text = ", which starts from ".join(repr(name) for name in [*chain, experiment])
        mistakes.add(at, f"found {text}, expected no circle: one of them needs a network block without `init`")
    elif start in experiments:
        check_start_fits(at, experiment, start, whole, mistakes)


def check_start_fits(at: tuple, experiment: str, start: str, whole: dict, mistakes: Mistakes) -> None:
    """Add an experiment to start from that has another network, or another split of the same dataset."""
    ours, theirs = (
        {kind: whole[section].get(whole["experiments"][name][kind]) for kind, section in SECTIONS.items()}
        for name in (experiment, start)
    )
    found = f"found {start!r}, which experiment {experiment!r} cannot start from"
    of_network = [layout(used["network"]) for used in (ours, theirs)]
    if theirs["network"] and of_network[0] != of_network[1]:
        mistakes.add(at, f"{found}: its network is {in_short(of_network[1])}, here it is {in_short(of_network[0])}")
    channels = [(used["preprocess"] or {}).get("channels", ["image"]) for used in (ours, theirs)]
    if channels[0] != channels[1]:
        mistakes.add(
            at, f"{found}: its scans have the channels {in_short(channels[1])}, here they have {in_short(channels[0])}"
        )
    same_dataset = whole["experiments"][experiment]["dataset"] == whole["experiments"][start]["dataset"]
    drawn = [[used["split"], used["target"] and used["target"]["column"]] for used in (ours, theirs)]
    methods = {split["method"] for split, _ in drawn if split}
    if same_dataset and "k-fold" in methods and "file" not in methods and drawn[0] != drawn[1]:
        text = "of the same dataset, with another split or target, so that it sees subjects who are tested here; expected the "
        mistakes.add(at, f"{found}: it is {text}same split for both, with `method: file` if the targets are two")


def layout(network: dict | None) -> dict:
    """Return what of a network block has to be the same for weights to be handed on."""
    arguments = (network or {}).get("arguments", {})
    kept = {key: value for key, value in arguments.items() if key != "head" and not key.startswith("drop")}
    return {"name": (network or {}).get("name"), "arguments": kept}
