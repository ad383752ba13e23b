"""What no schema can check of label maps, and of experiments that segment."""

import json
import re
from collections.abc import Iterable
from math import prod
from pathlib import Path

from mriflow.config.label_maps import MIXTURE, NETWORK, TISSUE_CHANNELS, seen_and_map, tissue_network
from mriflow.config.mistakes import Mistakes, in_short, instead
from mriflow.config.network_checks import needed_by
from mriflow.tables.labels import LABEL_MAP

WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")  # of hip_lt, left-hippocampus and HippL
NO_SIDE = {"bright", "upright", "cleft", "leftover", "leftovers"}


def check_label_maps(at: tuple, dataset: dict, mistakes: Mistakes) -> None:
    """Add label maps that come from two places or from none, and numbers that stand for two classes."""
    maps = dataset.get("label_maps")
    if maps is None:
        return
    of_table, of_names = LABEL_MAP in dataset["columns"], "images" in maps
    if "ukbfetch" in dataset:
        mistakes.add(at, "found beside `ukbfetch`, whose zips have no label maps, expected none")
    elif of_table == of_names:
        text = "found beside the column `label_map`" if of_table else "missing"
        text += f", expected one of three: a column `{LABEL_MAP}` in `columns`, `images` with a `pattern`, or `bids`"
        mistakes.add((*at, "images"), text)
    pattern = maps.get("pattern", "")
    try:
        groups = re.compile(pattern).groupindex.keys()
        fits = "subject" in groups and not groups - {"subject", "session"}
    except re.error:
        fits = False
    if of_names and not fits:
        text = f"found {in_short(pattern)}, expected a regular expression with the named group (?P<subject>...) and, where "
        mistakes.add((*at, "pattern"), f"{text}names tell it, (?P<session>...), of the file name of a label map")
    for name in set(maps.get("may_lack", ())) - maps["classes"].keys():
        mistakes.add((*at, "may_lack"), f"found {name!r}, expected one of `classes`{instead(name, maps['classes'])}")
    owner: dict[int, str] = {}
    for name, labels in {"background": maps["background"], **maps["classes"]}.items():
        for label in labels:
            if owner.setdefault(label, name) != name:
                mistakes.add(
                    (*at, "classes"), f"found the label {label} in {owner[label]!r} and in {name!r}, expected it in one"
                )


def check_segmentation(experiment: str, names: dict, blocks: dict, search: dict, mistakes: Mistakes) -> None:
    """Add what a segmentation lacks or cannot have, and what it alone can have; `search` is its search, if it has one."""
    segments, channels = blocks["target"]["type"] == "segmentation", blocks["preprocess"]["channels"]
    at_channels, at_synthesis = ("preprocess", names["preprocess"], "channels"), ("training", names["training"], "synthesis")
    synthesis, maps = blocks["training"].get("synthesis"), blocks["dataset"].get("label_maps")
    if not segments:
        if LABEL_MAP in channels:
            text = f"found {LABEL_MAP!r}, expected a block without it: experiment {experiment!r} segments nothing"
            mistakes.add(at_channels, text)
        for key in ("synthesis", "patch"):
            if key in blocks["training"]:
                text = f"found in the training of experiment {experiment!r}, which segments nothing, expected none"
                mistakes.add(("training", names["training"], key), text)
        return
    patch, shape = blocks["training"].get("patch"), blocks["preprocess"]["shape"]
    if patch and any(part > whole for part, whole in zip(patch, shape, strict=True)):
        text = f"found {patch}, expected no more than {list(shape)}, the grid of {names['preprocess']!r}"
        mistakes.add(("training", names["training"], "patch"), text)
    arguments = blocks["network"]["arguments"] if "network" in blocks else {}
    halved = prod(one for one in arguments.get("strides", ()) if isinstance(one, int))
    if patch and any(part % halved for part in patch):
        text = f"found {patch}, expected multiples of {halved}, by which {names['network']!r} makes the grid coarser"
        mistakes.add(("training", names["training"], "patch"), text)
    if LABEL_MAP not in channels or len(channels) < 2:
        text = f"found [{', '.join(channels)}], expected [image, {LABEL_MAP}], for experiment {experiment!r} is a segmentation"
        mistakes.add(at_channels, text)
    if synthesis is not None and sorted(channels) != sorted(["image", LABEL_MAP]):
        mistakes.add(
            at_channels, f"found [{', '.join(channels)}], expected [image, {LABEL_MAP}]: `synthesis` makes images alone"
        )
    for name in {one for group in (synthesis or {}).get("order", ()) for one in group} - (maps or {"classes": {}})[
        "classes"
    ].keys():
        text = f"found {name!r}, which is no class of dataset {names['dataset']!r}"
        mistakes.add((*at_synthesis, "order"), text + instead(name, (maps or {"classes": {}})["classes"]))
    check_sides(names, blocks, search, (maps or {"classes": {}})["classes"], mistakes)
    for key in ("covariates", "auxiliary"):
        if names[key]:
            mistakes.add(("experiments", experiment, key), f"found {in_short(names[key])}, expected none of a segmentation")
    for key in (key for key in ("permutation", "fractions") if names["controls"][key]):
        text = "found in a segmentation, which has robustness alone, expected none"
        mistakes.add(("experiments", experiment, "controls", key), text)


def check_tissues(experiment: str, names: dict, whole: dict, known: dict[str, dict], mistakes: Mistakes) -> None:
    """Add a network that is to tell the tissues of an experiment's scans apart and cannot."""
    block, at = whole["preprocess"][names["preprocess"]], ("preprocess", names["preprocess"], "tissues")
    wanted = [channel for channel in block["channels"] if channel in TISSUE_CHANNELS]
    name, (segments, folder) = block["tissues"], tissue_network(whole, names["preprocess"])
    if name != MIXTURE and not wanted:
        mistakes.add(at, f"found {name!r}, but `channels` has no {', '.join(TISSUE_CHANNELS)}: expected one of these there")
    elif segments in whole["experiments"]:
        if told := misfit(experiment, segments, names, wanted, whole):
            mistakes.add(at, f"found {name!r}, {told}")
    elif segments in known.get("applied", {}):
        mistakes.add(at, f"found {name!r}, which uses a model that there is: expected the folder of that model")
    elif segments and segments not in known.get("experiments", {}):
        text = f"found {name!r}, which is no experiment{instead(name, known.get('experiments', {}))}; expected {MIXTURE}, "
        text += f"{NETWORK}, an experiment that segments, or the folder of a model, written with its path: ./{name}"
        mistakes.add(at, text)
    elif folder and not segments and not (Path(folder).expanduser() / "SHA256SUMS").is_file():
        text = f"found {name!r}, where there is no model, expected the folder of one, or the name of an experiment that is "
        mistakes.add(at, f"{text}trained first")
    elif folder and not segments and (told := misfit_of_model(folder, names, whole)):
        mistakes.add(at, f"found {name!r}, {told}")


def misfit(experiment: str, segments: str, names: dict, wanted: list[str], whole: dict) -> str:
    """Return, in words, why the networks of an experiment cannot tell the tissues of another's scans apart; '' if they can."""
    used = whole["experiments"][segments]
    target, block = whole["targets"].get(used["target"]), whole["preprocess"].get(used["preprocess"])
    dataset, training = whole["datasets"].get(used["dataset"]), whole["training"].get(used["training"])
    if not (target and block and dataset and training):
        return ""  # that is told of elsewhere
    classes = dataset.get("label_maps", {}).get("classes", {})
    seen, _ = seen_and_map(block["channels"])
    ours = whole["datasets"].get(names["dataset"], dataset)["modality"]
    if needs(segments, experiment, whole):
        return f"which itself needs experiment {experiment!r}, expected no circle"
    if target["type"] != "segmentation":
        return f"which predicts {target['column']}, expected an experiment that segments"
    if [channel for channel in wanted if channel not in classes]:
        return f"which segments {', '.join(classes)}, expected the classes {', '.join(wanted)} among others"
    if seen != ["image"]:
        return f"whose networks see {', '.join(seen)}, expected the image alone"
    return other_modality(dataset["modality"], ours, training)


def misfit_of_model(folder: str, names: dict, whole: dict) -> str:
    """Return, in words, why a model cannot tell the tissues of an experiment's scans apart; '' if it can, or does not say."""
    try:
        facts = json.loads((Path(folder).expanduser() / "configs/metadata.json").read_text(encoding="utf-8"))["mriflow"]
        theirs, training = facts["dataset"]["modality"], facts["provenance"]["settings"]["training"]
    except (OSError, ValueError, KeyError, TypeError):  # one of before does not say it; `preprocess` tells what is wrong
        return ""
    return other_modality(theirs, whole["datasets"].get(names["dataset"], {"modality": theirs})["modality"], training)


def other_modality(theirs: str, ours: str, training: dict) -> str:
    """Return, in words, that networks learn from scans of another modality, unless they learn from generated images."""
    if theirs == ours or "synthesis" in training:
        return ""
    return f"which learns from {theirs} scans, and these are {ours}: expected {ours}, or `synthesis`"


def needs(experiment: str, other: str, whole: dict) -> bool:
    """Return whether an experiment is another, or has to wait for it: starts from it, or has its tissues told apart by it."""
    waiting, reached = [experiment], set[str]()
    for name in waiting:  # it grows
        if name not in reached and name in whole["experiments"]:
            reached.add(name)
            waiting += needed_by(whole, name)
    return other in reached


def check_sides(names: dict, blocks: dict, search: dict, classes: Iterable[str], mistakes: Mistakes) -> None:
    """Add mirror images where a class is of one side: the left one of a mirrored scan would be called right."""
    training, at, found = blocks["training"], ("training", names["training"]), sided(classes)
    if not found:
        return
    why = f"for {' and '.join(map(repr, found[:2]))} {'are' if len(found) > 1 else 'is'} of one side by name"
    if training["augmentation"]["mirror"]:
        mistakes.add((*at, "augmentation", "mirror"), f"found {training['augmentation']['mirror']:g}, expected 0, {why}")
    if training["tta"] == "mirror":
        mistakes.add((*at, "tta"), f"found 'mirror', expected none, {why}")
    if any(tried := search.get("keys", {}).get("augmentation.mirror", ())):
        mistakes.add(
            ("searches", names["search"], "keys", "augmentation.mirror"),
            f"found {in_short(tried)}, expected no value but 0, {why}",
        )


def sided(classes: Iterable[str]) -> list[str]:
    """Return the classes that are of the left or of the right, by their names: alone, or beside that of the other side.

    >>> sided(["left_hippocampus", "HippR", "hip_lt", "lh_gm", "r_thalamus", "wm", "bright_spots", "layer_l1"])
    ['left_hippocampus', 'HippR', 'hip_lt', 'lh_gm', 'r_thalamus']
    >>> sided(["glial", "hippl", "hippr"])
    ['hippl', 'hippr']
    >>> sided(["left_and_right_hippocampus", "WM_R_and_L"])
    []
    """
    whole = list(classes)
    lower = {name.lower(): name for name in whole}
    pairs = {of for one in lower for other in right_of(one) if other in lower for of in (lower[one], lower[other])}
    return [name for name in whole if name in pairs or len({side_of(word) for word in WORD.findall(name)} - {""}) == 1]


def side_of(word: str) -> str:
    """Return l or r if a word of a class's name is a side, else ''."""
    word = word.lower()
    begins_or_ends = word.startswith(("left", "right")) or word.endswith(("left", "right"))
    if word in ("l", "r", "lh", "rh", "lt", "rt"):
        return word[0]
    return ("l" if "left" in word else "r") if begins_or_ends and word not in NO_SIDE else ""


def right_of(name: str) -> list[str]:
    """Return the names that the same structure may have on the right, if a name in small letters is of the left."""
    swapped = (("left", "right"), ("^l", "r"), ("l$", "r"))
    return [other for one, right in swapped if (other := re.sub(one, right, name)) != name]
