"""What a long run will cost, in words, before it begins: hours, memory and disk.

What was measured by earlier jobs of the same kind here (benchmarks/) goes before rules of thumb. These come from two cores
and one H200 (tests/benchmarks/README.md), and are right to a factor of about three.
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from mriflow.config.controls import altered
from mriflow.config.external import datasets_of
from mriflow.config.label_maps import tissue_network
from mriflow.config.resolve import settings, weights_to_start_from
from mriflow.config.search import training_of_trial, trial_runs
from mriflow.tables.split_file import folds_of

LONG = 600  # seconds of one core from which on a run is told of
CORE = 10e9  # multiply-adds of a forward pass that a core makes in a second of training: forward, backward and update
CARD = 5e12  # that an H200 makes, in bf16: 4e12 with DenseNet121, 8e12 with SFCN
CARD_STEP = 0.006  # seconds that a step takes there at least, as its work has to be handed over
SCAN = {"reading and registration": 3.5, "brain mask": 2.5, "N4": 1.5, "tissues": 1.5}  # seconds of a core, for a head of 1 mm
STEP = 3  # a step of training costs as much as so many predictions
AGAIN = 1.0  # in another block, for masks, transforms and bias fields are kept
SIMULATED_SCAN = 0.5
SCAN_GB = 1.3  # memory of preprocessing one scan
AT_ONCE = 2  # scans in a job of preprocessing
UNKNOWN_SCANS = 1000


class Size(NamedTuple):
    """Of a network: multiply-adds and stored numbers for each voxel of a scan, and millions of parameters."""

    work: float
    numbers: float
    parameters: float


# Of other networks that of DenseNet121 is taken.
SIZES = {
    "DenseNet121": Size(20_000, 135, 11),
    "DenseNet169": Size(20_000, 140, 19),
    "resnet10": Size(69_000, 270, 14),
    "resnet18": Size(122_000, 330, 33),
    "resnet50": Size(158_000, 980, 46),
    "SEResNet50": Size(22_000, 135, 49),
    "EfficientNetBN": Size(1_100, 160, 5),
}


def cost(config: Mapping[str, Any], folder: Path, datasets: Iterable[str]) -> list[str]:
    """Return what is left to do of a run, and what it will cost, in lines; none if it is short.

    Parameters
    ----------
    config
        Resolved (`mriflow.config.resolve.resolve`).
    folder
        Where it runs: what is there already costs nothing.
    datasets
        Those that can be preprocessed.
    """
    paths = {name: folder / path for name, path in config["pathvars"].items()}
    models = models_of(config, [name for name in config["run"] if of_run(config, name) in set(datasets)])
    experiments = [settings(dict(config), name) for name in models]
    named = {used["experiment"]: datasets_of(config["experiments"][used["experiment"]]) for used in experiments}
    of_each = {
        name: {"dataset": config["datasets"][name], "names": {"dataset": name}} for one in named.values() for name in one
    }
    scans = {name: count_scans(used, paths, folder) for name, used in of_each.items()}
    lines, memory, disk = [], {}, {"downloaded": 0.0, "preprocessed": 0.0, "models and checkpoints": 0.0}
    seconds = 0.0
    for name, (count, source) in scans.items():
        described = config["datasets"][name]
        if not (paths["data"] / name / "scans.csv").exists():
            disk["downloaded"] += described.get("published", {}).get("gb", 0)
        blocks = sorted({used["names"]["preprocess"] for used in experiments if name in named[used["experiment"]]})
        for number, block in enumerate(blocks):
            each = AGAIN if number else seconds_of_scan(described, config["preprocess"][block])
            left, of_core, how = preprocessing(described, each, count, paths, name, block)
            if not left:
                continue
            seconds += of_core
            memory["preprocessing"] = AT_ONCE * SCAN_GB
            voxels = volume(config["preprocess"][block])
            disk["preprocessed"] += left * voxels * channels(config["preprocess"][block]) / 1e9
            lines.append(f"  preprocessing  {name}, {block}: {left:,} scans ({source}), {hours(of_core)} of one core ({how})")
    for used in experiments:
        count = scans[used["names"]["dataset"]][0]
        text, of_core = searched(used, count, paths)
        lines += [text] if text else []
        seconds += of_core
        text, of_core, gb, of_models = training(used, models[used["experiment"]], count, paths)
        if text:
            lines.append(text)
            seconds += of_core
            disk["models and checkpoints"] += of_models
            memory["training"] = max(memory.get("training", 0), gb)
    if seconds < LONG:
        return []
    needed = ", ".join(f"{gb:.1f} GB for {kind}" for kind, gb in memory.items())
    kept = ", ".join(f"{gb:.1f} GB {kind}" for kind, gb in disk.items() if gb >= 0.05)
    return [
        "This is a long run. About what is left of it will cost (rules of thumb are right to a factor of three):",
        *lines,
        f"  memory         {needed} (a job)",
        f"  disk           {kept or 'less than 0.1 GB'}",
    ]


def of_run(config: Mapping[str, Any], name: str) -> str | None:
    """Return the dataset of an experiment that is trained; None of one that uses a model that there is."""
    return config["experiments"].get(name, {}).get("dataset")


def preprocessing(
    described: Mapping[str, Any], each: float, count: int, paths: Mapping[str, Path], name: str, block: str
) -> tuple[int, float, str]:
    """Return how many scans are left to preprocess, for how many seconds of one core, and from where that is known.

    Parameters
    ----------
    each
        Seconds of a scan by the rule of thumb.
    """
    made = paths["preprocessed"] / name / block
    left = sum(not (made / f"shard-{shard:03d}.npy").exists() for shard in range(described["shards"]))
    scans = round(count * left / described["shards"])
    measured = benchmarks(paths["benchmarks"] / "preprocess", f"{name}_{block}_shard-*.tsv", "cpu_time")
    if measured:
        return scans, left * fmean(measured), "measured by earlier jobs"
    return scans, scans * each, f"{each:g} s a scan"


def seconds_of_scan(described: Mapping[str, Any], block: Mapping[str, Any]) -> float:
    """Return how many seconds of one core a scan takes in the first preprocess block."""
    if "simulate" in described:
        return SIMULATED_SCAN
    wanted = {
        "reading and registration": True,
        "brain mask": not described["stripped"],
        "N4": block["n4"],
        "tissues": channels(block) > 1,
    }
    return sum(SCAN[part] for part, is_wanted in wanted.items() if is_wanted)


def cpu_minutes(config: Mapping[str, Any], experiment: str, times: float = 1, dataset: str = "") -> float:
    """Return how many minutes of one core the networks of a fold take to predict a dataset, by the rule of thumb.

    Parameters
    ----------
    times
        How often each scan is predicted by a network of each seed.
    dataset
        Whose scans; the experiment's own if it is not given.
    """
    used, paths = settings(dict(config), experiment), {name: Path(path) for name, path in config["pathvars"].items()}
    of_scans = {"dataset": config["datasets"][dataset], "names": {"dataset": dataset}} if dataset else used
    scans, _ = count_scans(of_scans, paths, Path())
    times *= len(used["training"]["seeds"]) * (2 if used["training"]["tta"] == "mirror" else 1)
    forward = volume(used["preprocess"]) * size_of(used).work / CORE / STEP
    return scans * times * forward / 60


def models_of(config: Mapping[str, Any], experiments: Iterable[str]) -> dict[str, set[str]]:
    """Return, for each of some experiments and those they need, which models are wanted, as their files below it."""
    models: dict[str, set[str]] = {}
    wanted = [model for name in experiments for model in all_of(config, name)]
    for name, fold, seed in wanted:  # it grows
        file = f"fold-{fold}_seed-{seed}/model.pt"
        if file in models.setdefault(name, set()):
            continue
        models[name].add(file)
        start = str(weights_to_start_from(dict(config), name, fold, seed))
        if found := re.fullmatch(r"<results>/(.+)/fold-(\d+)_seed-(\d+)/model.pt", start):
            wanted.append((found[1], int(found[2]), int(found[3])))
        tissues, _ = tissue_network(config, config["experiments"][name]["preprocess"])
        wanted += all_of(config, tissues) if tissues and tissues not in models else []
    for name, fold, seed in wanted:
        block = config["experiments"][name]
        if name in config["run"] and seed == config["training"][block["training"]]["seeds"][0]:
            models[name] |= {f"controls/{one}/fold-{fold}_seed-{seed}/model.pt" for one in altered(block["controls"])}
    return models


def all_of(config: Mapping[str, Any], name: str) -> list[tuple[str, int, int]]:
    """Return name, fold and seed of every model of an experiment."""
    seeds = config["training"][config["experiments"][name]["training"]]["seeds"]
    return [(name, fold, seed) for fold in range(folds_of(settings(dict(config), name))) for seed in seeds]


def training(
    used: Mapping[str, Any], models: Iterable[str], count: int, paths: Mapping[str, Path]
) -> tuple[str, float, float, float]:
    """Return what is left to train of an experiment, in words, the seconds of one core, and GB of memory and of disk."""
    block, name = used["training"], used["experiment"]
    folds = folds_of(used)
    left = sum(not (paths["results"] / name / model).exists() for model in models)
    if not left:
        return "", 0.0, 0.0, 0.0
    size = size_of(used)
    trained, voxels = trained_on(used, count, folds), voxels_at_once(used)
    of_core = left * block["epochs"] * seconds_of_epoch(used, count, folds)
    where = f"about {hours(of_core)} of one core"
    if block["gpu"]:
        steps = left * block["epochs"] * trained / block["batch_size"]
        where += f", or {hours(max(of_core * CORE / CARD, steps * CARD_STEP))} of an H200"
    measured = benchmarks(paths["benchmarks"] / "train", f"{name}_fold-*_seed-*.tsv", "s")
    # What an earlier try with fewer epochs or another network took says nothing of these.
    if measured and had_settings(paths["results"] / name / "settings.json", used):
        of_core = left * fmean(measured)
        where = f"{hours(of_core)} (measured by earlier jobs)"
    gb = 1 + block["batch_size"] / block["accumulate"] * voxels * size.numbers * 4 * 1.5 / 1e9
    disk = left * size.parameters * 4e6 * 8 / 1e9  # a model, and two checkpoints with the optimiser's two moments and the best
    grid = "x".join(map(str, used["preprocess"]["shape"]))
    networks = f"{left} networks" if left > 1 else "a network"
    text = f"{name}: {networks}, {block['epochs']} epochs of {trained:,} scans, {used['network']['name']} at {grid}: {where}"
    return f"  training       {text}", of_core, gb, disk


def had_settings(path: Path, used: Mapping[str, Any]) -> bool:
    """Return whether an experiment was trained with the same blocks before."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(before.get(key) == json.loads(json.dumps(used[key])) for key in ("preprocess", "network", "training", "split"))


def searched(used: Mapping[str, Any], count: int, paths: Mapping[str, Path]) -> tuple[str, float]:
    """Return what is left of the search of an experiment, in words, and the seconds of one core."""
    if "search" not in used:
        return "", 0.0
    place, folds, name = paths["results"] / used["experiment"] / "search", folds_of(used), used["experiment"]
    left = [run for run in trial_runs(dict(used), folds) if not (place / run / "history.csv").exists()]
    epochs = [training_of_trial(used["training"], used["search"], run.split("/")[0])["epochs"] for run in left]
    of_core = sum(epochs) * seconds_of_epoch(used, count, folds)
    text = f"  search         {name}: {len(left)} trainings of {fmean(epochs):.0f} epochs: " if left else ""
    return text and f"{text}about {hours(of_core)} of one core", of_core


def seconds_of_epoch(used: Mapping[str, Any], count: int, folds: int) -> float:
    """Return how many seconds of one core an epoch takes by the rule of thumb."""
    return trained_on(used, count, folds) * voxels_at_once(used) * size_of(used).work / CORE


def voxels_at_once(used: Mapping[str, Any]) -> int:
    """Return how many voxels of a scan a network is trained on at once: all, or a patch."""
    patch = used["training"].get("patch")
    return prod(patch) if patch else volume(used["preprocess"])


def trained_on(used: Mapping[str, Any], count: int, folds: int) -> int:
    """Return how many scans a fold is trained on."""
    return round(count * (1 - (1 / folds if folds > 1 else 0.2)) * (1 - used["split"]["validation"]))


def size_of(used: Mapping[str, Any]) -> Size:
    """Return how large an experiment's network is.

    >>> grid = {"channels": ["image"]}
    >>> size_of({"network": {"name": "SFCN", "arguments": {"channels": [8, 16, 8]}}, "preprocess": grid})
    Size(work=650.0, numbers=20.25, parameters=0.0038)
    """
    network, arguments = used["network"]["name"], used["network"]["arguments"]
    if network != "SFCN":
        return SIZES.get(network, SIZES["DenseNet121"])
    work = numbers = parameters = 0.0
    before, share = channels(used["preprocess"]), 1.0
    widths = arguments.get("channels", [32, 64, 128, 256, 256, 64])
    for number, width in enumerate(widths):
        kernel = before * width * (1 if number == len(widths) - 1 else 27)
        work, numbers, parameters = work + share * kernel, numbers + 2 * share * width, parameters + kernel / 1e6
        before, share = width, share / 8
    return Size(work, numbers, round(parameters, 4))


def count_scans(used: Mapping[str, Any], paths: Mapping[str, Path], folder: Path) -> tuple[int, str]:
    """Return how many scans a dataset has, as far as that can be known before it is organized, and from where that is known."""
    described, name = used["dataset"], used["names"]["dataset"]
    organized = paths["data"] / name / "scans.csv"
    if organized.exists():
        return rows_of(organized), "organized"
    if "simulate" in described:
        return described["simulate"]["subjects"], "simulated"
    if "scans" in described.get("published", {}):
        return described["published"]["scans"], "as published"
    if "rows" in described["expect"]:
        return described["expect"]["rows"], "rows of its table"
    bulk = folder / described["ukbfetch"]["bulk"] if "ukbfetch" in described else None
    if bulk and bulk.exists():
        return rows_of(bulk) + 1, f"lines of {described['ukbfetch']['bulk']}"
    table = folder / str(described.get("table", ""))
    if table.suffix in (".csv", ".tsv") and table.exists():
        return rows_of(table), f"rows of {described['table']}"
    return UNKNOWN_SCANS, "how many is not known before they are organized: taken for so many"


def rows_of(table: Path) -> int:
    """Return how many lines a table has below its head."""
    with open(table, "rb") as stream:
        return max(0, sum(1 for _ in stream) - 1)


def benchmarks(folder: Path, pattern: str, column: str) -> list[float]:
    """Return a column of Snakemake's benchmarks of some jobs; what is no number is left out."""
    found = []
    for file in folder.glob(pattern):
        with open(file, newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                try:
                    found.append(float(row[column]))
                except (KeyError, TypeError, ValueError):
                    continue
    return found


def volume(block: Mapping[str, Any]) -> int:
    """Return how many voxels the grid of a preprocess block has."""
    x, y, z = block["shape"]
    return x * y * z


def channels(block: Mapping[str, Any]) -> int:
    """Return how many channels a scan has."""
    return len(block["channels"])


def hours(seconds: float) -> str:
    """Return a time in words.

    >>> hours(50), hours(120), hours(5400), hours(400000)
    ('1 minute', '2 minutes', '1.5 hours', '111 hours')
    """
    if seconds < 3600:
        minutes = max(1, round(seconds / 60))
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{seconds / 3600:.1f} hours" if seconds < 36000 else f"{seconds / 3600:.0f} hours"
