"""Check the merged config, fill in its defaults, and keep config/README.md in step with the schemas.

The Snakefile calls `resolve` before anything else, so that a mistake is told at once, in the user's words.
After an edit of a schema: ``python -m mriflow.config --write-docs``.
"""

import contextlib
import copy
import difflib
import functools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonschema import Draft202012Validator, validators

from mriflow.cli import run_stage, stage_parser
from mriflow.errors import UserError
from mriflow.files import write_text
from mriflow.labels import TEXT_COLUMNS

# What an experiment names, and the section of the config in which it is looked up.
SECTIONS = {
    "dataset": "datasets",
    "target": "targets",
    "preprocess": "preprocess",
    "split": "splits",
    "network": "networks",
    "training": "training",
}
LOSSES = {"regression": ("auto", "l1", "l2", "soft-label"), "classification": ("auto", "cross-entropy")}
OUR_COLUMNS = set(TEXT_COLUMNS) - {"subject", "session", "site", "path"}
MOST_ERRORS = 10
MARKS = (
    "<!-- from the schemas, by python -m mriflow.config --write-docs -->",
    "<!-- end of what is from the schemas -->",
)

# Every pattern of the schemas, in words that finish "text ...".
PATTERNS = {
    "^[A-Za-z0-9][A-Za-z0-9_-]*$": "of letters, digits, _ and -, beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": "of letters, digits, dots, _ and -, beginning with a letter or digit",
    "^[a-z][a-z0-9_]*$": "of small letters, digits and _, beginning with a letter",
    "^https?://": "beginning with http:// or https://",
    "^[0-9a-f]{32}$": "of 32 hexadecimal digits (0-9, a-f)",
}
NOUNS = {
    "string": ("text", "texts"),
    "integer": ("a whole number", "whole numbers"),
    "number": ("a number", "numbers"),
    "boolean": ("true or false", "true or false"),
    "array": ("a list", "lists"),
    "object": ("a block of keys", "blocks of keys"),
}


def is_finite_number(_: Any, value: Any) -> bool:
    """Tell whether a value is a number; YAML's .nan and .inf are not, for they would pass any range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


Validator = validators.extend(
    Draft202012Validator, type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", is_finite_number)
)


# ---------------------------------------------------------------------------------------------------- for the Snakefile


def resolve(config: dict, files: list[Path], folder: Path) -> dict:
    """Check a config as Snakemake merged it, and return it whole.

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
    The config with every default filled in. Its `datasets` holds the whole datasets, file and config merged, that the
    experiments of `run` use. Keys stand in the schema's order, so that to write out a default changes nothing.

    Raises
    ------
    UserError
        With up to ten mistakes: of each the file and key, what was found and what is allowed.
    """
    schema, dataset_schema = read_schema(folder, "config"), read_schema(folder, "dataset")
    sources = [Source(shown(file, folder), read_yaml(file)) for file in map(Path, files) if file.exists()]
    published = {path.stem: path for path in sorted((folder / "config" / "datasets").glob("*.yaml"))}
    changes = blocks_of(config, "datasets")
    named = [str(experiment.get("dataset")) for experiment in blocks_of(config, "experiments").values()]
    datasets = {}
    for name in dict.fromkeys([*(name for name in named if name in published), *changes]):
        if name in published:
            below = read_yaml(published[name])
            sources.insert(0, Source(shown(published[name], folder), {"datasets": {name: below}}, hidden=2))
            datasets[name] = merge(below, changes.get(name, {}))
        else:
            datasets[name] = changes[name]

    findings = Findings({**config, "datasets": datasets}, sources)
    findings.check_schema(config, schema)
    for name, dataset in datasets.items():
        lacking = [key for key in dataset_schema["required"] if key not in dataset]
        if lacking and name not in published:
            text = f"there is no config/datasets/{name}.yaml to change{instead(name, published)}"
            findings.add(("datasets", name), f"{text}. A dataset of your own needs {', '.join(lacking)} too")
        else:
            findings.check_schema(dataset, dataset_schema, ("datasets", name))

    whole: dict[str, Any] = {
        "run": [] if findings.touch("run") else config["run"],
        "pathvars": config.get("pathvars", {}),
    }
    for kind in ("experiments", *SECTIONS.values()):
        of_block = dataset_schema if kind == "datasets" else schema["properties"][kind]["additionalProperties"]
        blocks = blocks_of(findings.config, kind)
        whole[kind] = {
            name: filled(block, of_block) for name, block in blocks.items() if not findings.touch(kind, name)
        }
    check_blocks(whole, findings)
    check_experiments(whole, findings, {*published, *changes})
    findings.tell()

    used = dict.fromkeys(whole["experiments"][name]["dataset"] for name in whole["run"])
    return filled({**whole, "datasets": {name: whole["datasets"][name] for name in used}}, schema)


def settings(config: dict, experiment: str) -> dict:
    """Return everything that one experiment of a resolved config uses.

    Returns
    -------
    ``{experiment, names, dataset, target, preprocess, split, network, training}``: whole blocks, and under `names` the
    name of each.
    """
    if experiment not in config["run"]:
        raise UserError(f"run: has no experiment {experiment!r}{instead(experiment, config['run'])}")
    names = config["experiments"][experiment]
    blocks = {kind: config[section][names[kind]] for kind, section in SECTIONS.items()}
    return {"experiment": experiment, "names": dict(names), **blocks}


# -------------------------------------------------------------------------------------------------- reading and filling


def read_yaml(path: Path) -> dict:
    """Return the block that a YAML file holds; an empty file is an empty one."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict | None):
        raise UserError(f"{path}: found {found(tree)}, expected a block of keys")
    return tree or {}


@functools.cache
def read_schema(folder: Path, name: str) -> dict:
    """Return the schema of the config or of a dataset."""
    return read_yaml(folder / "workflow" / "schemas" / f"{name}.schema.yaml")


def shown(path: Path, folder: Path) -> str:
    """Return the path as one writes it in `folder`."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def blocks_of(config: dict, section: str) -> dict:
    """Return a section's blocks; what is no block is left out, for the schema tells of it."""
    blocks = config.get(section)
    return {name: b for name, b in blocks.items() if isinstance(b, dict)} if isinstance(blocks, dict) else {}


def merge(below: dict, above: dict) -> dict:
    """Return `below` with `above` laid over it: blocks key by key, lists and all else replaced."""
    merged = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def filled(value: Any, schema: dict) -> Any:
    """Return a copy of a valid value with the schema's defaults, its keys in the schema's order."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties") or {}
        given = {
            key: value.get(key, sub.get("default")) for key, sub in known.items() if key in value or "default" in sub
        }
        whole = {key: filled(part, known[key]) for key, part in given.items()}
        return whole | {key: filled(part, others) for key, part in value.items() if key not in known}
    if isinstance(value, list):
        return [filled(item, schema.get("items", {})) for item in value]
    # 40.0 is a whole number to JSON Schema, but not to argparse.
    return int(value) if schema.get("type") == "integer" else copy.deepcopy(value)


# ----------------------------------------------------------------------------------------------------- telling mistakes


class Source(NamedTuple):
    """A file that sets keys: its name, its tree from the config's root, how many keys of a path it does not write."""

    name: str
    tree: dict
    hidden: int = 0


COMMAND_LINE = Source("--config on the command line", {})


class Findings:
    """The mistakes found in `config`, each told with the source that set the key (the later sources win)."""

    def __init__(self, config: dict, sources: list[Source]):
        self.config, self.sources = config, sources
        self.paths: list[tuple] = []
        self.texts: list[str] = []

    def add(self, path: tuple, text: str) -> None:
        """Add what is wrong with the key at `path`."""
        source, dotted = self.source(path), ""
        for depth in range(source.hidden, len(path)):
            in_list = isinstance(value_at(self.config, path[:depth]), list)
            dotted += f"[{path[depth]}]" if in_list else f".{path[depth]}"
        self.paths.append(path)
        self.texts.append(": ".join(filter(None, [source.name, dotted.lstrip("."), text])))

    def source(self, path: tuple) -> Source:
        """Return the source of the value at `path`; of a key that is not there, that of the block it should be in."""
        while path and value_at(self.config, path) is MISSING:
            path = path[:-1]
        value = value_at(self.config, path)
        for source in reversed(self.sources):
            theirs = value_at(source.tree, path)
            if theirs is not MISSING:
                same = (isinstance(value, dict) and isinstance(theirs, dict)) or repr(value) == repr(theirs)
                return source if same else COMMAND_LINE
        return COMMAND_LINE

    def touch(self, *path: Any) -> bool:
        """Tell whether something at, in or around `path` is wrong."""
        return any(path[: len(other)] == other[: len(path)] for other in self.paths)

    def tell(self) -> None:
        """Raise a UserError with all that was added, if anything was."""
        texts = list(dict.fromkeys(self.texts))
        if len(texts) > MOST_ERRORS:
            texts[MOST_ERRORS:] = [f"... and {len(texts) - MOST_ERRORS} more"]
        if texts:
            raise UserError("\n".join(texts))

    def check_schema(self, value: Any, schema: dict, at: tuple = ()) -> None:
        """Add what in `value`, which stands at the path `at`, is not as the schema says."""
        for error in Validator(schema).iter_errors(value):
            path = at + tuple(error.absolute_path)
            if "propertyNames" in error.absolute_schema_path:
                text = f"found the name {found(error.instance)}, expected {allowed({'type': 'string', **error.schema})}"
                self.add((*path, error.instance), text + hint(error.instance, {"type": "string"}))
            elif error.validator == "additionalProperties":
                known = error.schema["properties"]
                for key in (key for key in error.instance if key not in known):
                    self.add((*path, key), f"unknown key{instead(key, known)}")
            elif error.validator == "required":
                for key in (key for key in error.validator_value if key not in error.instance):
                    of_key = error.schema.get("properties", {}).get(key) or error.schema["additionalProperties"]
                    self.add((*path, key), f"missing, expected {allowed(of_key)}{example(of_key)}")
            elif error.validator == "uniqueItems":
                twice = next(item for item in error.instance if error.instance.count(item) > 1)
                self.add(path, f"found {found(twice)} more than once, expected each once")
            else:
                kind = kind_of(error.instance) if error.validator == "type" else ""
                text = f"found {found(error.instance)}{kind}, expected {allowed(error.schema)}"
                self.add(path, text + hint(error.instance, error.schema))


MISSING = object()


def value_at(tree: Any, path: tuple) -> Any:
    """Return the value at a path of keys and list positions, or `MISSING`."""
    for key in path:
        try:
            tree = tree[key] if isinstance(tree, dict | list) else MISSING
        except (KeyError, IndexError, TypeError):
            return MISSING
    return tree


# ---------------------------------------------------------------------------------------------------------------- words


def found(value: Any) -> str:
    """Return a value as YAML would have it, short enough for a line."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return f"the block {str(dict(value))[:77]}"
    text = str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def kind_of(value: Any) -> str:
    """Return what YAML took a value for, in brackets, where `found` does not tell."""
    kinds = {str: "text", bool: "a truth value", int: "a number", float: "a number", list: "a list"}
    return f" ({kinds[type(value)]})" if type(value) in kinds else ""


def listed(options: Iterable) -> str:
    """Return the options in a line."""
    return ", ".join(sorted(map(str, options))) or "none"


def nearest(word: Any, options: Iterable) -> str:
    """Return the option that was probably meant, as a question, or ''."""
    lower = {str(option).lower(): str(option) for option in options}
    close = difflib.get_close_matches(str(word).lower(), lower, n=1)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def instead(word: Any, options: Iterable) -> str:
    """Return the option that was probably meant and all that there are."""
    options = list(options)
    return f"{nearest(word, options) or '.'} Allowed: {listed(options)}"


def allowed(schema: dict, many: bool = False) -> str:
    """Return in words what a schema allows, in the plural if `many`."""
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "type" not in schema:
        return "values" if many else "any value"
    words = NOUNS[schema["type"]][many]
    if schema["type"] == "array":
        least, most = schema.get("minItems"), schema.get("maxItems")
        items = allowed(schema["items"], many=True) if "items" in schema else "values"
        number = f"{least} " if least is not None and least == most else ""
        words += f" of {number}{items}" + (f" (at least {least})" if least and not number else "")
    if "pattern" in schema:
        words += f" {PATTERNS[schema['pattern']]}"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "of at most"}.items()
        if key in schema
    ]
    if "minimum" in schema and "maximum" in schema:
        bounds = [f"from {schema['minimum']} to {schema['maximum']}"]
    if "minProperties" in schema:
        words = f"a block of at least {schema['minProperties']} keys"
    return " ".join([words, " and ".join(bounds)]).strip()


def example(schema: dict) -> str:
    """Return the first example of a schema, as the end of a sentence."""
    return f", for example {in_yaml(schema['examples'][0])}" if "examples" in schema else ""


def in_yaml(value: Any) -> str:
    """Return a value in one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=math.inf).strip()[1:-1]


def hint(value: Any, schema: dict) -> str:
    """Return how a value was probably meant where YAML took it for something else, or ''."""
    options, wanted = schema.get("enum", []), schema.get("type")
    if isinstance(value, bool) and (options or wanted == "string"):
        return "; put it in quotes, for YAML takes yes, no, on and off for true and false"
    if isinstance(value, int | float) and wanted == "string":
        return "; put it in quotes"
    if isinstance(value, str) and wanted in ("integer", "number"):
        with contextlib.suppress(ValueError):
            return f"; write {float(value):g} without quotes (YAML takes 4e-3 for text)"
    if isinstance(value, str | int | float) and wanted == "array":
        return f"; write [{value}]"
    return nearest(value, options)


# --------------------------------------------------------------------------------------------- what no schema can check


def check_blocks(whole: dict, findings: Findings) -> None:
    """Add what does not fit within one block."""
    for name, target in whole["targets"].items():
        at, classes = ("targets", name, "classes"), target.get("classes")
        if target["type"] == "regression" and classes is not None:
            findings.add(at, "found the classes of a regression, expected none (or `type: classification`)")
        elif target["type"] == "classification":
            check_classes(at, classes, findings)
    for name, block in whole["preprocess"].items():
        check_ascending(("preprocess", name, "percentiles"), block["percentiles"], findings)
    for name, block in whole["training"].items():
        bins, width = block["bins"], block["bin_width"]
        check_ascending(("training", name, "bins"), bins, findings)
        if bins[0] < bins[1] < bins[0] + width:
            text = f"found {width}, expected at most {bins[1] - bins[0]}, for the bins go from {bins[0]} to {bins[1]}"
            findings.add(("training", name, "bin_width"), text)
    for name, dataset in whole["datasets"].items():
        check_dataset(("datasets", name), dataset, findings)


def check_ascending(at: tuple, pair: list, findings: Findings) -> None:
    """Add a pair of limits that is not in ascending order."""
    if not pair[0] < pair[1]:
        findings.add(at, f"found {pair}, expected the smaller number first, then the larger")


def check_classes(at: tuple, classes: dict | None, findings: Findings) -> None:
    """Add classes that are missing, are truth values or share a folder."""
    if classes is None:
        findings.add(at, "missing, expected the classes of a classification, for example {F: Females, M: Males}")
        return
    for value in classes:
        if isinstance(value, bool):
            findings.add(at, f"found the class {found(value)}{hint(value, {'type': 'string'})}")
    folders = [folder.lower() for folder in classes.values()]
    if len(set(folders)) < len(folders):
        findings.add(
            at, f"found the folders {', '.join(classes.values())}, expected a folder of its own for each class"
        )


def check_dataset(at: tuple, dataset: dict, findings: Findings) -> None:
    """Add what does not fit within one dataset."""
    columns, pattern = dataset["columns"], dataset.get("pattern")
    if "simulate" in dataset and dataset["downloads"]:
        findings.add((*at, "simulate"), "found beside `downloads`, expected one of the two")
    if "images" in dataset and "path" in columns:
        findings.add((*at, "images"), "found beside the column `path`, expected one of the two")
    if "images" not in dataset and "path" not in columns:
        text = "missing, expected the archive or folder of the images, or a column `path` in `columns`"
        findings.add((*at, "images"), text)
    wanted = "a regular expression with the named group (?P<subject>...)"
    if "images" in dataset and pattern is None:
        findings.add((*at, "pattern"), f"missing, expected {wanted}, for there are `images`")
    if pattern is not None:
        try:
            groups = re.compile(pattern).groupindex
            problem = f", expected {wanted}" if "images" in dataset and "subject" not in groups else ""
        except re.error as error:
            problem = f", expected {wanted}: {error}"
        if problem:
            findings.add((*at, "pattern"), f"found {found(pattern)}{problem}")
    for name, column in columns.items():
        if name in OUR_COLUMNS:
            text = f"{name!r} is a column that the workflow itself writes to labels.csv, expected another name"
            findings.add((*at, "columns", name), text)
        if "range" in column:
            check_ascending((*at, "columns", name, "range"), column["range"], findings)


def columns_of(dataset: dict) -> set[str]:
    """Return the columns of labels.csv that a dataset fills: its own, and what the names of its images tell."""
    told = re.compile(dataset.get("pattern", "")).groupindex.keys() & {"subject", "session", "site"}
    return dataset["columns"].keys() - {"path"} | told


def check_experiments(whole: dict, findings: Findings, datasets: set[str]) -> None:
    """Add what `run` and the experiments name and there is not, and what does not fit together in an experiment."""
    experiments = findings.config.get("experiments")
    for name in whole["run"]:
        if isinstance(experiments, dict) and name not in experiments:
            findings.add(("run",), f"found {name!r}, which is no experiment{instead(name, experiments)}")
    for name, experiment in whole["experiments"].items():
        blocks = {}
        for kind, section in SECTIONS.items():
            known = datasets if kind == "dataset" else findings.config.get(section)
            if isinstance(known, dict | set) and experiment[kind] not in known:
                text = f"found {experiment[kind]!r}, which is not in `{section}`{instead(experiment[kind], known)}"
                findings.add(("experiments", name, kind), text)
            at = (section, experiment[kind])
            blocks[kind] = None if findings.touch(*at) else whole[section].get(experiment[kind])
        check_experiment(name, experiment, blocks, findings)


def check_experiment(name: str, names: dict, blocks: dict, findings: Findings) -> None:
    """Add what does not fit together in one experiment; a block that is wrong in itself is None and not looked at."""
    dataset, target, split, training = (blocks[kind] for kind in ("dataset", "target", "split", "training"))
    of_experiment = f"of experiment {name!r}"
    if target and training and training["loss"] not in LOSSES[target["type"]]:
        text = f"found {training['loss']!r}, expected one of {', '.join(LOSSES[target['type']])}"
        why = f"for {names['target']!r}, the target {of_experiment}, is a {target['type']}"
        findings.add(("training", names["training"], "loss"), f"{text}, {why}")
    if not dataset:
        return
    columns = columns_of(dataset)
    lacks = f"which dataset {names['dataset']!r} {of_experiment} does not have"
    if target and target["column"] not in columns:
        text = f"found {target['column']!r}, {lacks}{instead(target['column'], columns)}"
        findings.add(("targets", names["target"], "column"), text)
    elif target:
        codes = dataset["columns"].get(target["column"], {}).get("codes", {})
        if target["type"] == "regression" and any(isinstance(value, str) for value in codes.values()):
            text = f"found 'regression', but the codes of the column {target['column']!r} in dataset "
            text += f"{names['dataset']!r} are texts ({listed(codes.values())}), expected classification"
            findings.add(("targets", names["target"], "type"), text)
        for value in target.get("classes", ()):
            if codes and str(value) not in map(str, codes.values()):
                text = f"found the class {found(value)}, which no code of the column {target['column']!r} in dataset "
                text += f"{names['dataset']!r} stands for{instead(value, codes.values())}"
                findings.add(("targets", names["target"], "classes"), text)
    if split:
        # A dataset without sites has an empty column `site`, over which all is spread evenly.
        for column in split["stratify"]:
            if column not in columns | {"site"}:
                text = f"found {column!r}, {lacks}{instead(column, columns)}"
                findings.add(("splits", names["split"], "stratify"), text)
        if split["method"] == "leave-site-out":
            why = f"for {names['split']!r}, the split {of_experiment}, is leave-site-out"
            if len(dataset["sites"]) < 2:
                text = f"found {dataset['sites']}, expected at least 2 sites, {why}"
                findings.add(("datasets", names["dataset"], "sites"), text)
            if "site" not in columns:
                text = f"missing, expected the site in a column of the table or in the names of the images, {why}"
                findings.add(("datasets", names["dataset"], "columns", "site"), text)


# ----------------------------------------------------------------------------------------------------------- the manual


def document(text: str, folder: Path) -> str:
    """Return the manual `text` with its tables, those between the two marks, made anew from the schemas."""
    if not all(mark in text for mark in MARKS):
        raise UserError(f"config/README.md: found no lines {MARKS[0]} and {MARKS[1]}, between which the tables stand")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    head = "| key | meaning | allowed | unit | default | example |\n|---|---|---|---|---|---|"
    config, dataset = read_schema(folder, "config"), read_schema(folder, "dataset")
    parts = [MARKS[0], "## The keys of the config"]
    for key, schema in config["properties"].items():
        rows = key_rows({"properties": {key: schema}, "required": config["required"]})
        parts += [f"### `{key}`", "\n".join([head, *rows])]
    parts += ["## The keys of a dataset", dataset["description"], "\n".join([head, *key_rows(dataset)])]
    return before + "\n\n".join([*parts, MARKS[1]]) + after


def key_rows(schema: dict, above: str = "") -> Iterator[str]:
    """Yield a row of the table for each key under a schema; `above` is what stands before a deeper one."""
    for key, sub in schema.get("properties", {}).items():
        default = "needed" if key in schema.get("required", []) else ""
        if "default" in sub:
            default = f"`{in_yaml(sub['default'])}`"
        # Markdown takes a bare <name> for HTML and hides it; between backticks it is safe.
        meaning = re.sub(r"<(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\<", sub["description"])
        cells = [
            f"`{above}{key}`",
            meaning,
            allowed(sub),
            sub.get("unit", ""),
            default,
            f"`{in_yaml(sub['examples'][0])}`",
        ]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield from key_rows(sub, f"{above}{key}.")
        yield from key_rows(sub.get("additionalProperties") or {}, f"{above}{key}.<name>.")
        yield from key_rows(sub.get("items") or {}, f"{above}{key}[].")


def main(arguments: list[str] | None = None) -> None:
    """Write the tables of config/README.md, or check that they are those of the schemas."""
    parser = stage_parser(__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write-docs", action="store_true", help="write the tables of config/README.md anew")
    action.add_argument("--check", action="store_true", help="fail if they are not those of the schemas")
    parser.add_argument("--folder", type=Path, default=Path(), help="the repository (default: the current folder)")
    options = parser.parse_args(arguments)
    manual = options.folder / "config" / "README.md"
    if not manual.exists():
        raise UserError(f"{manual}: no such file; run this in the repository, or name it with --folder")
    text = manual.read_text(encoding="utf-8")
    if options.write_docs:
        write_text(document(text, options.folder), manual)
    elif text != document(text, options.folder):
        raise UserError(f"{manual}: out of date; run python -m mriflow.config --write-docs")


if __name__ == "__main__":
    run_stage(main)
