"""Check the merged config and fill in its defaults, before anything runs.

The Snakefile calls `resolve` first of all, so that a mistake is shown at once; then `settings` gives each experiment its
part. What a key may hold stands in workflow/schemas/, what must fit together in checks.py, and how a mistake is put
into words in mistakes.py.
"""

import copy
import functools
from pathlib import Path
from typing import Any

import yaml

from mriflow.base.errors import UserError
from mriflow.base.files import as_path
from mriflow.config.checks import check_blocks, check_dataset_names, check_experiments
from mriflow.config.controls import share_of
from mriflow.config.external import datasets_of
from mriflow.config.label_maps import EXPERIMENT_NAME, model_folder, tissue_network
from mriflow.config.mistakes import Mistakes, Source, in_short, instead
from mriflow.config.network_checks import SECTIONS, needed_by, start_of
from mriflow.config.search import check_searches, searchable, training_of_trial
from mriflow.tables.cells import as_text
from mriflow.tables.labels import LABEL_MAP

# Keys of the training block of which a single training knows nothing.
NOT_OF_TRAINING = ("seeds", "gpu", "allow_cpu", "tta")


def resolve(config: dict, files: list[Path], folder: Path) -> dict:
    """Check a config as Snakemake merged it, and return it whole; one that is whole already stays as it is.

    Parameters
    ----------
    config
        The merged config; it is not changed.
    files
        The config files in the order in which they were merged; they only serve to name the file of a mistake.
    folder
        The repository's root, with ``workflow/schemas`` and ``config/datasets``.

    Returns
    -------
    The config with every default filled in, with the experiments of `run`, those that these start from, and the datasets that
    they use, each whole (file and config merged). Keys stand in the schema's order: to write out a default changes nothing.
    Experiments with a `model` stand in a section of their own (`set_apart`).

    Raises
    ------
    UserError
        With up to ten mistakes: of each the file and key, what was found and what is allowed.
    """
    schema, config = read_schema(folder / "workflow" / "schemas"), set_apart(config)
    published = {path.stem: path for path in sorted((folder / "config" / "datasets").glob("*.yaml"))}
    named = {
        name
        for section in ("experiments", "applied")
        for experiment in blocks_of(config, section).values()
        for name in datasets_of(experiment)
    }
    named |= blocks_of(config, "datasets").keys()
    below = {name: read_yaml(path) for name, path in published.items() if name in named}
    whole = merge({"datasets": below}, config)
    for name, dataset in blocks_of(whole, "datasets").items():
        whole["datasets"][name] = dataset = with_paths(dataset)
        if isinstance(dataset.get("bids"), str) and isinstance(dataset.get("columns"), dict):
            dataset |= {**described_bids(dataset["bids"]), **dataset}
            dataset["columns"] = {"subject": BIDS_SUBJECT, **dataset["columns"]}
        maps = dataset.get("label_maps")
        if isinstance(maps, dict) and isinstance(maps.get("bids"), str):
            dataset["label_maps"] = {**described_maps(maps["bids"]), **maps}

    for split in blocks_of(whole, "splits").values():
        if isinstance(split.get("file"), str):
            split["file"] = as_path(split["file"])

    sources = [Source(relative_to_folder(published[n], folder), {"datasets": {n: below[n]}}, f"datasets.{n}.") for n in below]
    sources += [
        Source(relative_to_folder(file, folder), set_apart(read_yaml(file))) for file in map(Path, files) if file.exists()
    ]
    mistakes = Mistakes(whole, sources)
    check_dataset_names(blocks_of(whole, "datasets"), published, mistakes)
    mistakes.add_schema_errors(schema)
    whole = filled(without_mistakes(whole, mistakes), schema)
    check_blocks(whole, mistakes)
    check_searches(whole["searches"], schema, mistakes)
    check_experiments(whole, published, mistakes)
    mistakes.raise_if_any()

    for init in (network["init"] for network in whole["networks"].values() if "init" in network):
        if "weights" in init:  # the name of `from` before, of a file alone
            file = init.pop("weights")
            init["from"] = f"./{file}" if EXPERIMENT_NAME.fullmatch(file) else file
        init["from"] = as_path(init["from"])
    for block in whole["preprocess"].values():
        block["tissues"] = as_path(block["tissues"])
    applied = {name: whole["applied"][name] for name in whole["run"] if name in whole["applied"]}
    for block in applied.values():
        block["model"] = model_folder(block["model"])
    wanted = [name for name in whole["run"] if name not in applied]
    for name in wanted:  # it grows: an experiment may start from another, or have its tissues told apart by one
        wanted += [other for other in needed_by(whole, name) if other not in wanted]
    experiments = {name: whole["experiments"][name] for name in wanted}
    keys = searchable(schema)
    for search in whole["searches"].values():
        search["keys"] = {key: filled(values, {"items": keys[key]}) for key, values in search["keys"].items()}
    used = [*experiments.values(), *applied.values()]
    datasets = {name: whole["datasets"][name] for block in used for name in datasets_of(block)}
    return {**whole, "experiments": experiments, "applied": applied, "datasets": datasets}


def set_apart(config: dict) -> dict:
    """Return a config whose experiments that use a model that there is (`model`) stand in a section of their own, `applied`.

    They have no target, split, network or training, which all that is asked of an experiment would ask for.

    >>> set_apart({"experiments": {"new": {"dataset": "mine", "model": "a/model"}}})
    {'experiments': {}, 'applied': {'new': {'dataset': 'mine', 'model': 'a/model'}}}
    """
    moved = {name: block for name, block in blocks_of(config, "experiments").items() if "model" in block}
    if not moved:
        return config
    kept = {name: block for name, block in config["experiments"].items() if name not in moved}
    return {**config, "experiments": kept, "applied": {**config.get("applied", {}), **moved}}


def settings(config: dict, experiment: str) -> dict:
    """Return everything that one experiment of a resolved config uses.

    Returns
    -------
    ``{experiment, names, dataset, target, preprocess, split, network, training, auxiliary, covariates, impute}``: whole
    blocks (of `auxiliary` a list), and under `names` the name of each; `subgroups` and `search` if it has them,
    and `tissues_of`, the experiment on the same dataset whose networks tell its tissues apart.
    """
    if experiment not in config["experiments"]:
        raise UserError(f"run: has no experiment {experiment!r}{instead(experiment, config['run'])}")
    names = config["experiments"][experiment]
    blocks = {kind: config[section][names[kind]] for kind, section in SECTIONS.items()}
    auxiliary = [config["targets"][name] for name in names["auxiliary"]]
    others = {"auxiliary": auxiliary, "covariates": names["covariates"], "impute": names["impute"]}
    if "subgroups" in names:
        others["subgroups"] = names["subgroups"]
    if "search" in names:
        others["search"] = config["searches"][names["search"]]
    teller = tissue_network(config, names["preprocess"])[0]
    if teller in config["experiments"] and config["experiments"][teller]["dataset"] == names["dataset"]:
        others["tissues_of"] = teller
    return {"experiment": experiment, "names": {kind: names[kind] for kind in SECTIONS}, **blocks, **others}


def training_part(settings: dict, part: str, trial: str | None = None, control: str | None = None) -> dict:
    """Return what training has to know of an experiment's target, inputs, network or training block, or of a trial's.

    The training of a `control` with a share of the people has as many more epochs: as many steps as that with all of them.

    What it need not know (a unit, a folder's name, one more seed, another card) trains nothing again.
    """
    targets = [
        {"column": one["column"], "type": one["type"], "classes": list(one.get("classes", []))}
        for one in (settings["target"], *settings["auxiliary"])
    ]
    preprocess, training = settings["preprocess"], settings["training"]
    channels, stored = [channel for channel in preprocess["channels"] if channel != LABEL_MAP], {}
    if LABEL_MAP in preprocess["channels"]:
        targets[0]["classes"] = list(settings["dataset"]["label_maps"]["classes"])
        stored = {LABEL_MAP: preprocess["channels"].index(LABEL_MAP)}
    if trial:
        training = training_of_trial(training, settings["search"], trial)
    share = share_of(control or "")
    longer = {key: round(training[key] / share) for key in ("epochs", "early_stopping") if key in training}
    training = {**training, **longer}
    parts: dict[str, dict] = {
        "target": {**targets[0], "auxiliary": targets[1:]},
        "inputs": {
            "channels": channels,
            "voxel_mm": preprocess["voxel_mm"],
            "covariates": settings["covariates"],
            "impute": settings["impute"],
            **stored,
        },
        "network": {key: value for key, value in settings["network"].items() if key != "init"},
        "training": {key: value for key, value in training.items() if key not in NOT_OF_TRAINING},
    }
    return parts[part]


PATHS = ("table", "bids")


def with_paths(dataset: dict) -> dict:
    """Return a dataset with its paths as this machine takes them (`mriflow.base.files.as_path`)."""
    changed = {key: as_path(dataset[key]) for key in PATHS if isinstance(dataset.get(key), str)}
    if isinstance(dataset.get("images"), list):
        changed["images"] = [as_path(one) if isinstance(one, str) else one for one in dataset["images"]]
    if isinstance(maps := dataset.get("label_maps"), dict):
        changed["label_maps"] = maps | {key: value for key, value in with_paths(maps).items() if key in maps}
    if isinstance(fetch := dataset.get("ukbfetch"), dict):
        changed["ukbfetch"] = {key: as_path(text) if isinstance(text, str) else text for key, text in fetch.items()}
    return dataset | changed


def columns_to_read(config: dict, dataset: str) -> dict:
    """Return the columns of a dataset of a resolved config as `organize` reads them.

    A class of a target, or a site, that would be read as a value that is not known (None, NA) is one of its `values`.
    """
    described = config["datasets"][dataset]
    declared: dict[str, list[str]] = {"site": [*described["sites"]]}
    for names in config["experiments"].values():
        if dataset in datasets_of(names):
            for target in (config["targets"][name] for name in (names["target"], *names["auxiliary"])):
                declared.setdefault(target["column"], []).extend(map(str, target.get("classes", [])))
    columns = {}
    for name, column in described["columns"].items():
        values = list(dict.fromkeys(value for value in declared.get(name, []) if as_text(value) == ""))
        columns[name] = {**column, "values": values} if values else column
    return columns


def weights_to_start_from(config: dict, experiment: str, fold: int, seed: int) -> str | list:
    """Return the file that a training starts from: one of weights, or the model of another experiment; [] if from none.

    Of an experiment on the same dataset it is the model of the same fold, which has seen nobody who is tested; on another one,
    that of fold 0. The seed is the same, or the first if that experiment has not this one: it says itself how many models
    are to be started from.
    """
    start = start_of(config, experiment)
    ours = config["experiments"][experiment]
    if start is None:
        return config["networks"][ours["network"]].get("init", {}).get("from", [])
    theirs = config["experiments"][start]
    seeds = config["training"][theirs["training"]]["seeds"]
    fold, seed = fold if ours["dataset"] == theirs["dataset"] else 0, seed if seed in seeds else seeds[0]
    return f"<results>/{start}/fold-{fold}_seed-{seed}/model.pt"


# The prefix is that of the folders; in participants.tsv many leave it out.
BIDS_SUBJECT = {"from": "participant_id", "pattern": "(?i:sub-)?(.+)", "format": "sub-{}"}


def described_bids(folder: str) -> dict:
    """Return how a BIDS dataset is read (https://bids-specification.readthedocs.io): its T1w images and participants.tsv."""
    # Of a complex image the magnitude alone is used.
    entities = r"(_(?P<session>ses-[A-Za-z0-9+]+))?(_(?!ses-)[a-z]+-[A-Za-z0-9+]+)*"
    return {
        "table": str(Path(folder) / "participants.tsv"),
        "images": [folder],
        "pattern": rf"(?P<subject>sub-[A-Za-z0-9+]+){entities}_T1w\.nii(\.gz)?",
        "ignore": r".*_part-(phase|real|imag)_.*|(?!.*_T1w\.nii(\.gz)?$).*",
        "scans_per_session": "first",
    }


def described_maps(folder: str) -> dict:
    """Return how the label maps of a BIDS derivative are read: its _dseg images on the grid of the scans, of no other space."""
    entities = r"(_(?P<session>ses-[A-Za-z0-9+]+))?(_(?!ses-)[a-z]+-[A-Za-z0-9+]+)*"
    return {
        "images": [folder],
        "pattern": rf"(?!.*_space-(?!orig|T1w))(?P<subject>sub-[A-Za-z0-9+]+){entities}_dseg\.nii(\.gz)?",
    }


class UniqueKeys(yaml.SafeLoader):
    """The safe loader, which refuses a key that stands twice in a block; YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Return the block, or raise an error that names key and line."""
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict:
    """Return the block that a YAML file holds; an empty file is an empty one."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), UniqueKeys)  # noqa: S506 - it is a safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict | None):
        raise UserError(f"{path}: found {in_short(tree)}, expected a block of keys")
    return tree or {}


@functools.cache
def read_schema(folder: Path) -> dict:
    """Return the schema of the config, with that of a dataset for each of its datasets."""
    schema, dataset = (read_yaml(folder / f"{name}.schema.yaml") for name in ("config", "dataset"))
    del dataset["$schema"]  # else the validator would take it for a document of its own
    schema["properties"]["datasets"]["additionalProperties"] = dataset
    keys = schema["properties"]["experiments"]["additionalProperties"]["properties"]
    of_applied: dict[str, Any] = {"type": "object", "additionalProperties": False, "required": ["dataset", "model"]}
    of_applied["properties"] = {key: keys[key] for key in of_applied["required"]}
    names = schema["properties"]["experiments"]["propertyNames"]
    schema["properties"]["applied"] = {
        "type": "object",
        "default": {},
        "propertyNames": names,
        "additionalProperties": of_applied,
    }
    return schema


def relative_to_folder(path: Path, folder: Path) -> str:
    """Return the path as one writes it in `folder`."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def blocks_of(config: dict, section: str) -> dict:
    """Return a section's blocks; what is no block is left out, for the schema names it."""
    blocks = config.get(section)
    return {name: b for name, b in blocks.items() if isinstance(b, dict)} if isinstance(blocks, dict) else {}


def merge(below: dict, above: dict) -> dict:
    """Return `below` with `above` laid over it: blocks key by key, lists and all else replaced.

    >>> merge({"training": {"epochs": 20, "seeds": [0, 1]}}, {"training": {"seeds": [7]}})
    {'training': {'epochs': 20, 'seeds': [7]}}
    """
    merged = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def without_mistakes(config: dict, mistakes: Mistakes) -> dict:
    """Return the sections of a config with only the blocks in which there is no mistake, for the checks that follow."""
    kept: dict[str, Any] = {"run": [] if mistakes.touch("run") else config["run"]}
    for section in ("experiments", "applied", "searches", *SECTIONS.values()):
        blocks = blocks_of(config, section)
        kept[section] = {name: blocks[name] for name in blocks if not mistakes.touch(section, name)}
    return kept | {"pathvars": config.get("pathvars", {})}


def filled(value: Any, schema: dict) -> Any:
    """Return a copy of a valid value with the schema's defaults, its keys in the schema's order."""
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties") or {}
        given = {key: sub["default"] for key, sub in known.items() if "default" in sub} | value
        order = [key for key in known if key in given] + [key for key in given if key not in known]
        return {key: filled(given[key], known.get(key, others)) for key in order}
    if isinstance(value, list):
        return [filled(item, schema.get("items", {})) for item in value]
    # 40.0 is a whole number to JSON Schema, but not to argparse.
    return int(value) if schema.get("type") == "integer" else copy.deepcopy(value)
