"""What no schema can check of a config: whether the names in it exist, and whether its parts fit together.

Every function adds the mistakes that it finds to `mistakes`. All but the first look at blocks that are right by the
schema and have their defaults.
"""

import re
from pathlib import Path

from mriflow.config.controls import thinned
from mriflow.config.label_maps import MIXTURE
from mriflow.config.map_checks import check_label_maps, check_segmentation, check_tissues
from mriflow.config.mistakes import Mistakes, hint, in_short, instead
from mriflow.config.network_checks import (
    SECTIONS,
    check_augmentation,
    check_batch,
    check_grid,
    check_init,
    check_network,
    check_start,
)
from mriflow.config.search import trials, with_keys
from mriflow.tables.labels import HEAD_SIZE, LABEL_MAP, OF_PREDICTIONS, RESERVED, TEXT_COLUMNS

LOSSES = {
    "regression": ("auto", "l1", "l2", "soft-label"),
    "classification": ("auto", "cross-entropy"),
    "segmentation": ("auto", "dice-ce"),
}


def check_dataset_names(datasets: dict, published: dict, mistakes: Mistakes) -> None:
    """Add changes to a dataset that there is not; a block with columns is a dataset of one's own."""
    for name, dataset in datasets.items():
        if name not in published and "columns" not in dataset:
            text = f"there is no config/datasets/{name}.yaml to change{instead(name, published)}"
            mistakes.add(("datasets", name), text)


def check_folders(whole: dict, mistakes: Mistakes) -> None:
    """Add names whose folders would be one: an experiment's beside one of ours, and two that differ in capitals alone."""
    for section in ("datasets", "experiments", "preprocess"):
        seen: dict[str, str] = {"cohorts": "the folder of the datasets' pages"} if section == "experiments" else {}
        for name in [*whole[section], *(whole["applied"] if section == "experiments" else [])]:
            if name.lower() in seen:
                other = seen[name.lower()]
                mistakes.add(
                    (section, name),
                    f"found beside {other}, expected another name: folders are called by it, and on "
                    "many disks capitals make no difference",
                )
            seen.setdefault(name.lower(), repr(name))


def check_blocks(whole: dict, mistakes: Mistakes) -> None:
    """Add what does not fit within one block."""
    for name, target in whole["targets"].items():
        check_classes(("targets", name, "classes"), target, mistakes)
    for name, block in whole["preprocess"].items():
        check_ascending(("preprocess", name, "percentiles"), block["percentiles"], mistakes)
    for name, block in whole["training"].items():
        (low, high), width = block["bins"], block["bin_width"]
        check_ascending(("training", name, "bins"), block["bins"], mistakes)
        if low < high < low + width:
            text = f"found {width}, expected at most {high - low}, for the bins go from {low} to {high}"
            mistakes.add(("training", name, "bin_width"), text)
        if block["early_stopping"] and block["select"] != "best":
            text = f"found {block['early_stopping']} with `select: {block['select']}`, expected 0, or `select: best`: a "
            text += "training that stops early is not brought to the end of its schedule"
            mistakes.add(("training", name, "early_stopping"), text)
        check_batch(("training", name), block, mistakes)
    for name, block in whole["networks"].items():
        check_init(("networks", name, "init"), block.get("init"), mistakes)
        check_network(("networks", name), block, mistakes)
    check_folders(whole, mistakes)
    check_pathvars(whole, mistakes)
    results = "" if mistakes.touch("pathvars") else whole["pathvars"]["results"]
    for name, block in whole["splits"].items():
        check_split_file(("splits", name, "file"), block, results, mistakes)
    for name, dataset in whole["datasets"].items():
        check_images(("datasets", name), dataset, mistakes)
        check_columns(("datasets", name, "columns"), dataset["columns"], mistakes)
        check_label_maps(("datasets", name, "label_maps"), dataset, mistakes)


def check_pathvars(whole: dict, mistakes: Mistakes) -> None:
    """Add a place of the results that Snakemake would not find, for it takes ~ and backslashes as they stand."""
    for name, path in {}.items() if mistakes.touch("pathvars") else whole["pathvars"].items():
        if path.startswith("~") or "\\" in path:
            text = f"found {in_short(path)}, expected a path with slashes and without ~, in full or from the Snakefile's folder"
            mistakes.add(("pathvars", name), text)


def check_ascending(at: tuple, pair: list, mistakes: Mistakes) -> None:
    """Add a pair of limits that is not in ascending order."""
    if not pair[0] < pair[1]:
        mistakes.add(at, f"found {pair}, expected the smaller number first, then the larger")


def check_split_file(at: tuple, split: dict, results: str, mistakes: Mistakes) -> None:
    """Add a split's file that is missing, not used, or one that the workflow writes itself."""
    file = split.get("file")
    if split["method"] != "file":
        if file is not None:
            mistakes.add(
                at, f"found {in_short(file)} beside `method: {split['method']}`, expected it with `method: file` alone"
            )
    elif not file:
        mistakes.add(at, "missing, expected a table with the part of each scan or subject, for example my-data/splits.csv")
    elif results and Path(file).resolve().is_relative_to(Path(results).resolve()):
        text = f"found {in_short(file)}, in the folder of the results, which a run writes anew"
        mistakes.add(at, f"{text}; copy it to a folder of your own and name that")


def check_classes(at: tuple, target: dict, mistakes: Mistakes) -> None:
    """Add the classes of a target that has them and should not, or should and has not, or that cannot be told apart."""
    classes = target.get("classes")
    if target["type"] == "segmentation":
        if classes is not None:
            mistakes.add(at, "found the classes of a segmentation, expected none: they stand in the dataset's `label_maps`")
        if target["column"] != LABEL_MAP:
            text = f"found {target['column']!r}, expected {LABEL_MAP}, the column with the label maps of a dataset"
            mistakes.add((*at[:-1], "column"), text)
    elif target["type"] == "regression":
        if classes is not None:
            mistakes.add(at, "found the classes of a regression, expected none (or `type: classification`)")
    elif classes is None:
        mistakes.add(at, "missing, expected the classes of a classification, for example {F: Females, M: Males}")
    else:
        for value in (value for value in classes if isinstance(value, bool | None)):
            mistakes.add(at, f"found the class {in_short(value)}{hint(value, {'type': 'string'})}")
        if len({folder.lower() for folder in classes.values()}) < len(classes):
            folders = ", ".join(classes.values())
            mistakes.add(at, f"found the folders {folders}, expected a folder of its own for each class")


def check_images(at: tuple, dataset: dict, mistakes: Mistakes) -> None:
    """Add it if a dataset has no images, has them from two places, or cannot read a subject from their names."""
    if "simulate" in dataset and dataset["downloads"]:
        mistakes.add((*at, "simulate"), "found beside `downloads`, expected one of the two")
    if "ukbfetch" in dataset:
        check_ukbfetch(at, dataset, mistakes)
    elif "images" not in dataset and "path" not in dataset["columns"]:
        text = "missing, expected the archive or folder of the images, or a column `path` in `columns`"
        mistakes.add((*at, "images"), text)
    if "table" not in dataset and "images" not in dataset:
        mistakes.add((*at, "table"), "missing, expected the table of the subjects or scans")
    if "images" in dataset and "path" in dataset["columns"]:
        mistakes.add((*at, "images"), "found beside the column `path`, expected one of the two")
    if "simulate" in dataset and at != ("datasets", "demo"):
        mistakes.add((*at, "simulate"), "found in another dataset than `demo`, the only one that is simulated")
    pattern = dataset.get("pattern", "")
    text = f"found {in_short(pattern)}" if pattern else "missing"
    text += ", expected a regular expression with the named group (?P<subject>...), to read the names of the `images`"
    try:
        groups = re.compile(pattern).groupindex.keys()
        others = groups - {"subject", "session", "site"} if "table" in dataset else set()
        others |= groups & (RESERVED | {"path"})
        if "images" in dataset and ("subject" not in groups or others):
            mistakes.add((*at, "pattern"), f"{text} and, with a table, no other but session and site")
    except re.error as error:
        mistakes.add((*at, "pattern"), f"{text}: {error}")


def check_ukbfetch(at: tuple, dataset: dict, mistakes: Mistakes) -> None:
    """Add what cannot stand beside `ukbfetch`, and a brain that is said to be a head, or a head a brain."""
    for key in ("images", "bids", "simulate"):
        if key in dataset:
            mistakes.add((*at, key), "found beside `ukbfetch`, expected one of the two")
    for name in ("path", "session"):
        if name in dataset["columns"]:
            mistakes.add((*at, "columns", name), "found beside `ukbfetch`, which sets it, expected none")
    brain = dataset["ukbfetch"]["member"].endswith("_brain.nii.gz")
    if dataset["stripped"] != brain:
        text = f"found {in_short(dataset['stripped'])}, expected {in_short(brain)} for {dataset['ukbfetch']['member']}"
        mistakes.add((*at, "stripped"), text)


def check_columns(at: tuple, columns: dict, mistakes: Mistakes) -> None:
    """Add the columns of a dataset that are the workflow's own, and ranges the wrong way round."""
    for name, column in columns.items():
        if name in RESERVED:
            text = f"{name!r} is a column that the workflow itself writes to labels.csv, expected another name"
            mistakes.add((*at, name), text)
        if "pattern" in column:
            check_group((*at, name, "pattern"), column["pattern"], mistakes)
        if "range" in column:
            check_ascending((*at, name, "range"), column["range"], mistakes)


def check_experiments(whole: dict, published: dict, mistakes: Mistakes) -> None:
    """Add what `run` and the experiments name and there is not, and what does not fit together in an experiment."""
    known = {section: names for section, names in mistakes.config.items() if isinstance(names, dict)}
    known["datasets"] = {**published, **known.get("datasets", {})}
    for name in whole["run"]:
        experiments = [*known.get("experiments", [name]), *known.get("applied", [])]
        if name not in experiments:
            mistakes.add(("run",), f"found {name!r}, which is no experiment{instead(name, experiments)}")
    for name, block in whole["applied"].items():
        if block["dataset"] not in known["datasets"]:
            text = f"found {block['dataset']!r}, which is not in `datasets`{instead(block['dataset'], known['datasets'])}"
            mistakes.add(("applied", name, "dataset"), text)
    for experiment, names in whole["experiments"].items():
        blocks = {}
        for kind, section in SECTIONS.items():
            name = names[kind]
            if name not in known.get(section, [name]):
                text = f"found {name!r}, which is not in `{section}`{instead(name, known[section])}"
                mistakes.add(("experiments", experiment, kind), text)
            if name in whole[section] and not mistakes.touch(section, name):
                blocks[kind] = whole[section][name]
        if {"target", "training"} <= blocks.keys():
            check_loss(experiment, names, blocks["target"], blocks["training"], mistakes)
        if {"dataset", "target"} <= blocks.keys():
            check_labels(experiment, names, blocks["dataset"], blocks["target"], mistakes)
        if {"dataset", "target", "preprocess"} <= blocks.keys():
            check_covariates(experiment, names, blocks, mistakes)
            check_auxiliary(experiment, names, blocks, whole["targets"], known, mistakes)
        if "dataset" in blocks:
            check_subgroups(experiment, names, blocks["dataset"], mistakes)
        if {"split", "training"} <= blocks.keys():
            check_select(experiment, names, blocks["split"], blocks["training"], mistakes)
        check_search(experiment, names, blocks, whole["searches"], known.get("searches", {}), mistakes)
        if {"network", "preprocess"} <= blocks.keys():
            check_grid(experiment, names, blocks, mistakes)
        if "preprocess" in blocks:
            check_tissues(experiment, names, whole, known, mistakes)
        if {"preprocess", "training"} <= blocks.keys():
            check_augmentation(experiment, names, blocks, mistakes)
        if {"dataset", "preprocess"} <= blocks.keys():
            check_channels(experiment, names, blocks["dataset"], blocks["preprocess"], mistakes)
        if {"dataset", "target", "preprocess", "training"} <= blocks.keys():
            check_segmentation(experiment, names, blocks, whole["searches"].get(names.get("search"), {}), mistakes)
        if {"dataset", "split"} <= blocks.keys():
            check_split(experiment, names, blocks["dataset"], blocks["split"], mistakes)
        if "network" in blocks:
            check_start(experiment, whole, known, mistakes)
        if {"dataset", "target"} <= blocks.keys():
            check_test_on(experiment, names, blocks, whole["datasets"], known, mistakes)


def check_test_on(
    experiment: str, names: dict, blocks: dict, datasets: dict, known: dict[str, dict], mistakes: Mistakes
) -> None:
    """Add datasets of an external test that there are not, that are the experiment's own, or that do not fit it."""
    at, ours = ("experiments", experiment, "test_on"), blocks["dataset"]
    for name in names["test_on"]:
        if name not in known.get("datasets", [name]):
            mistakes.add(at, f"found {name!r}, which is not in `datasets`{instead(name, known['datasets'])}")
        elif name == names["dataset"]:
            mistakes.add(at, f"found {name!r}, the dataset that is learned from, expected others")
        elif name in datasets and not mistakes.touch("datasets", name):
            other, of_other = datasets[name], {**names, "dataset": name}
            if other["modality"] != ours["modality"]:
                text = f"found {name!r}, whose scans are {other['modality']}, expected {ours['modality']} as in "
                mistakes.add(at, f"{text}{names['dataset']!r}, which is learned from")
            for column in (one for one in names["covariates"] if one != HEAD_SIZE and one not in columns_of(other)):
                mistakes.add(at, f"{lacking(column, experiment, of_other, other)}: it is a covariate")
            if blocks["target"]["column"] in columns_of(other):
                check_labels(experiment, of_other, other, blocks["target"], mistakes)


def check_loss(experiment: str, names: dict, target: dict, training: dict, mistakes: Mistakes) -> None:
    """Add a loss that does not suit the target."""
    losses = LOSSES[target["type"]]
    if training["loss"] not in losses:
        text = f"found {training['loss']!r}, expected one of {', '.join(losses)}, for {names['target']!r}, the target "
        text += f"of experiment {experiment!r}, is a {target['type']}"
        mistakes.add(("training", names["training"], "loss"), text)


def check_channels(experiment: str, names: dict, dataset: dict, block: dict, mistakes: Mistakes) -> None:
    """Add maps of tissues of scans in which other tissues are bright than in T1-weighted ones."""
    tissues = [channel for channel in block["channels"] if channel not in ("image", LABEL_MAP)]
    if tissues and dataset["modality"] != "T1" and block["tissues"] == MIXTURE:
        text = f"found {', '.join(tissues)}, expected [image], for tissues are told apart in T1-weighted scans alone; those of "
        text += f"dataset {names['dataset']!r} of experiment {experiment!r} are {dataset['modality']}"
        mistakes.add(("preprocess", names["preprocess"], "channels"), text)


def check_labels(experiment: str, names: dict, dataset: dict, target: dict, mistakes: Mistakes) -> None:
    """Add a target that the dataset does not have, or has with other values."""
    at, column = ("targets", names["target"]), target["column"]
    if column not in columns_of(dataset):
        mistakes.add((*at, "column"), lacking(column, experiment, names, dataset))
    codes = dataset["columns"].get(column, {}).get("codes", {})
    meanings, of_column = list(map(str, codes.values())), f"the column {column!r} in dataset {names['dataset']!r}"
    if target["type"] == "regression" and any(isinstance(value, str) for value in codes.values()):
        text = f"found 'regression', but the codes of {of_column} are texts ({', '.join(meanings)})"
        mistakes.add((*at, "type"), f"{text}, expected classification")
    described = dataset["columns"].get(column)
    if target["type"] == "regression" and described and not {"range", "codes"} & described.keys():
        at_range = ("datasets", names["dataset"], "columns", column, "range")
        text = f"missing, expected the smallest and largest plausible value of {column!r}, which {names['target']!r} takes "
        mistakes.add(at_range, f"{text}for a number, for example [0, 110]")
    for value in target.get("classes", ()):
        if codes and str(value) not in meanings:
            text = f"found the class {in_short(value)}, which no code of {of_column} stands for{instead(value, meanings)}"
            mistakes.add((*at, "classes"), text)


def check_covariates(experiment: str, names: dict, blocks: dict, mistakes: Mistakes) -> None:
    """Add covariates that the dataset does not have, that say nothing, or that are the target itself."""
    at, registration = ("experiments", experiment, "covariates"), blocks["preprocess"]["registration"]
    for name in names["covariates"]:
        if name == HEAD_SIZE:
            if registration != "affine":
                text = f"found {HEAD_SIZE!r} with `registration: {registration}`, expected none: the scan shows its size"
                mistakes.add(at, text)
        elif name not in columns_of(blocks["dataset"]):
            mistakes.add(at, lacking(name, experiment, names, blocks["dataset"]))
        elif name == blocks["target"]["column"]:
            mistakes.add(at, f"found {name!r}, the target itself, expected other columns")
        elif name in set(TEXT_COLUMNS) - {"site"}:
            mistakes.add(at, f"found {name!r}, which is no measure of a person, expected other columns")
        elif name == "site" and blocks.get("split", {}).get("method") == "leave-site-out":
            text = f"found 'site', but by {names['split']!r} people of a site are tested that was not trained on"
            mistakes.add(at, f"{text}: nothing is known of it. Expected other columns")


def check_auxiliary(
    experiment: str, names: dict, blocks: dict, targets: dict, known: dict[str, dict], mistakes: Mistakes
) -> None:
    """Add auxiliary targets that there are not, that the dataset does not have, or that the network is given or predicts."""
    at, dataset, target = ("experiments", experiment, "auxiliary"), blocks["dataset"], blocks["target"]
    for name in names["auxiliary"]:
        if name not in known.get("targets", [name]):
            mistakes.add(at, f"found {name!r}, which is not in `targets`{instead(name, known['targets'])}")
        elif name in targets and not mistakes.touch("targets", name):
            column = targets[name]["column"]
            if targets[name]["type"] == "segmentation":
                mistakes.add(at, f"found {name!r}, a segmentation, expected a number or classes")
            elif column not in columns_of(dataset):
                mistakes.add(at, lacking(column, experiment, names, dataset))
            itself = target["column"] == column
            if column in names["covariates"] or itself:
                what = "the target itself" if itself else "a covariate, too"
                mistakes.add(at, f"found {name!r}, {what}, expected another target")


def check_subgroups(experiment: str, names: dict, dataset: dict, mistakes: Mistakes) -> None:
    """Add columns for subgroups that the dataset does not have, or that the table of predictions has of its own."""
    at, columns = ("experiments", experiment, "subgroups"), columns_of(dataset)
    for name in names.get("subgroups", ()):
        if name in OF_PREDICTIONS:
            mistakes.add(at, f"found {name!r}, a column that predictions.csv has itself, expected the same under another name")
        elif name not in columns | {"site"}:
            mistakes.add(at, lacking(name, experiment, names, dataset))


def check_select(experiment: str, names: dict, split: dict, training: dict, mistakes: Mistakes) -> None:
    """Add it if the best epoch is to be chosen without a validation part."""
    if training["select"] == "best" and split["method"] != "file" and not split["validation"]:
        text = f"found 'best', but {names['split']!r}, the split of experiment {experiment!r}, has `validation: 0`; expected "
        text += "last or average, or a share for validation"
        mistakes.add(("training", names["training"], "select"), text)


def check_search(
    experiment: str, names: dict, blocks: dict, whole: dict, searches: dict[str, dict], mistakes: Mistakes
) -> None:
    """Add a search that there is not, that has no validation scans to choose by, or a trial whose batch cannot be shared."""
    at, search, split = ("experiments", experiment, "search"), names.get("search"), blocks.get("split")
    if search is None:
        return
    if search not in searches:
        mistakes.add(at, f"found {search!r}, which is not in `searches`{instead(search, searches)}")
    elif split and split["method"] != "file" and not split["validation"]:
        text = (
            f"found {search!r}, but {names['split']!r}, the split of the experiment, has `validation: 0`; expected a share for "
        )
        mistakes.add(at, f"{text}validation, for the trial with the lowest validation loss is chosen")
    elif search in whole and "epochs" in whole[search]["keys"] and thinned(names["controls"]):
        text = (
            f"found {search!r}, which chooses `epochs`; expected no `controls.fractions` beside it, or a search of other keys: "
        )
        mistakes.add(at, f"{text}with fewer people more epochs are trained, so that all learn in as many steps")
    elif search in whole and "training" in blocks and not mistakes.touch("searches", search):
        for keys in trials(whole[search]).values():
            check_batch(("searches", search, "keys"), with_keys(blocks["training"], keys), mistakes, keys)
            if "preprocess" in blocks:
                check_augmentation(experiment, names, blocks, mistakes, keys, search)


def check_split(experiment: str, names: dict, dataset: dict, split: dict, mistakes: Mistakes) -> None:
    """Add columns to spread that the dataset does not have, and leave-site-out without sites."""
    columns = columns_of(dataset)
    # A dataset without sites has an empty column `site`, over which all is spread evenly. A split from a file spreads nothing.
    spread = [] if split["method"] == "file" else split["stratify"]
    for column in (column for column in spread if column not in columns | {"site"}):
        mistakes.add(("splits", names["split"], "stratify"), lacking(column, experiment, names, dataset))
    if split["method"] == "leave-site-out":
        at = ("datasets", names["dataset"])
        why = f"for {names['split']!r}, the split of experiment {experiment!r}, is leave-site-out"
        if len(dataset["sites"]) < 2:
            mistakes.add((*at, "sites"), f"found {dataset['sites']}, expected at least 2 sites, {why}")
        if "site" not in columns:
            text = "missing, expected the site in a column of the table or in the names of the images"
            mistakes.add((*at, "columns", "site"), f"{text}, {why}")


def lacking(column: str, experiment: str, names: dict, dataset: dict) -> str:
    """Return in words that the dataset of an experiment does not have a column."""
    text = f"found {column!r}, which dataset {names['dataset']!r} of experiment {experiment!r} does not have"
    return text + instead(column, columns_of(dataset))


def check_group(at: tuple, pattern: str, mistakes: Mistakes) -> None:
    """Add a regular expression that has not exactly one group."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        mistakes.add(at, f"found {in_short(pattern)}, expected a regular expression: {error}")
    else:
        if groups != 1:
            mistakes.add(at, f"found {in_short(pattern)} with {groups} groups, expected one, (...), that is the value")


def columns_of(dataset: dict) -> set[str]:
    """Return the columns of labels.csv that a dataset fills: its own, and what is read from the names of its images."""
    of_names = re.compile(dataset.get("pattern", "")).groupindex.keys() & {"subject", "session", "site"}
    others = {"session"} if "ukbfetch" in dataset else set()
    others |= {LABEL_MAP} if "label_maps" in dataset else set()
    return dataset["columns"].keys() - {"path"} | of_names | others
