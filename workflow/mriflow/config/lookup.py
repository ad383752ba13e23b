"""Look a dataset up in the config by its name, for a command that is run by hand."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mriflow.base.errors import UserError
from mriflow.config.mistakes import instead
from mriflow.config.resolve import merge, read_yaml, resolve


def of_dataset(name: str, overlays: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Return what `check` has to know of a dataset by its name: labels, targets, title, simulated.

    Parameters
    ----------
    overlays
        Config files as they are given to Snakemake. If the dataset is in none of their experiments, all files of
        config/experiments/ that use it are taken.
    folder
        That of the Snakefile.

    Raises
    ------
    UserError
        If there is no such dataset, nothing uses it, or its labels.csv is not made yet.
    """
    base = folder / "config" / "config.yaml"
    for file in (base, *overlays):
        if not file.is_file():
            raise UserError(f"{file}: no such config file. Run this in the folder of the Snakefile.")
    config = functools.reduce(merge, map(read_yaml, (base, *overlays)))
    known = {path.stem for path in (folder / "config" / "datasets").glob("*.yaml")} | set(config.get("datasets") or {})
    added: list[Path] = []
    if not experiments_of(config, name):
        files = sorted((folder / "config" / "experiments").glob("*.yaml"))
        added = [file for file in files if experiments_of(read_yaml(file), name)]
        config = functools.reduce(merge, map(read_yaml, added), config)
    run = experiments_of(config, name)
    if not run:
        if name not in known:
            raise UserError(f"--dataset: there is no dataset {name!r}{instead(name, known)}")
        raise UserError(f"--dataset: no experiment uses {name!r}. Write one, as in config/experiments/my-data.yaml.")
    asked = config["run"]
    config = resolve({**config, "run": run}, [base, *overlays, *added], folder)
    labels = Path(config["pathvars"]["data"]) / name / "labels.csv"
    if not labels.is_file():
        command, given = f"snakemake --cores 1 {labels}", [*overlays, *added[:1]]
        command += f" --configfile {' '.join(map(str, given))}" if given else ""
        command += "" if set(run) & set(asked) else f" --config 'run=[{run[0]}]'"
        raise UserError(f"{labels}: not made yet. Make it first, with: {command}")
    used = [config["targets"][config["experiments"][experiment]["target"]] for experiment in run]
    described = config["datasets"][name]
    return {
        "labels": labels,
        "targets": {target["column"]: list(target.get("classes", [])) for target in used},
        "title": described["title"],
        "simulated": "simulate" in described,
    }


def experiments_of(config: Mapping[str, Any], dataset: str) -> list[str]:
    """Return the names of the experiments on a dataset."""
    blocks = config.get("experiments") or {}
    return [name for name, block in blocks.items() if trains_on(block, dataset)]


def trains_on(block: Any, dataset: str) -> bool:
    """Return whether a block of an experiment is one of a dataset that learns from it."""
    return isinstance(block, dict) and block.get("dataset") == dataset and "model" not in block
