"""Check a dataset before hours are spent on it: every header and every row of labels.csv, and what is wrong with them.

python -m mriflow.check --dataset ixi [--configfile overlay.yaml]

The voxels are not read: what only shows in the image itself is found when it is preprocessed.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.check_findings import (
    HEADER,
    LEVELS,
    Finding,
    findings_of_files,
    findings_of_rows,
    findings_of_sites,
    known_of,
    with_site,
)
from mriflow.check_page import as_page, as_text, parts_of
from mriflow.cli import run_stage, stage_parser
from mriflow.config import merge, read_yaml, resolve
from mriflow.config_errors import instead
from mriflow.errors import UserError
from mriflow.files import write_csv, write_text
from mriflow.headers import read_headers
from mriflow.images import NIFTI
from mriflow.labels import read_labels, usable
from mriflow.site_alone import site_alone


def check(
    labels: Path,
    *,
    targets: Mapping[str, Sequence[str]],
    title: str = "",
    simulated: bool = False,
    page: Path | None = None,
    csv: Path | None = None,
    threads: int = 8,
) -> list[Finding]:
    """Print what is wrong with a dataset, and write it as a web page, and every scan's header as CSV.

    Parameters
    ----------
    labels
        The dataset's labels.csv.
    targets
        Columns of `labels` that are to be predicted and, of a classification, their classes.
    title, simulated
        Of the dataset.
    page, csv
        The files to write.
    threads
        Headers to read at once.

    Returns
    -------
    The findings, the gravest first.
    """
    if not labels.is_file():
        raise UserError(f"{labels}: no such file. `python -m mriflow.organize` makes it.")
    table = read_labels(labels, [column for column, classes in targets.items() if classes])
    for column, classes in targets.items():
        if column not in table:
            usable(table, column)  # says what there is
        if classes:
            continue
        numbers = pd.to_numeric(table[column], errors="coerce")
        for row in table.index[table[column].notna() & numbers.isna()]:
            problem = f"{column}: not a number ({table.loc[row, column]!r})"
            table.loc[row, "problem"] = "; ".join(filter(None, (table.loc[row, "problem"], problem)))
        table[column] = numbers
    readable = table["path"].str.endswith(NIFTI) & ~table["problem"].str.contains("scan: no file", regex=False)
    headers = read_headers([labels.parent / path for path in table.loc[readable, "path"]], threads)
    headers = headers.set_index(table.index[readable]).reindex(index=table.index, columns=HEADER)
    whole_numbers = dict.fromkeys(["bytes", "qform_code", "sform_code"], "Int64")
    table = table.join(headers.astype(whole_numbers).assign(fault=headers["fault"].fillna("")))

    alone = {name: site_alone(with_site(known_of(table, name, classes)), name, classes) for name, classes in targets.items()}
    findings = [*findings_of_files(table), *findings_of_rows(table, targets), *findings_of_sites(table, targets, alone)]
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    parts = parts_of(table, readable, findings, targets, alone)
    print(as_text(title, parts))
    if page:
        write_text(as_page(title, parts, simulated), page)
    if csv:
        columns = ["id", "subject", "session", "site", "path", *HEADER, "problem", "notes"]
        write_csv(table[columns], csv)
    return findings


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
    ours: list[Path] = []
    if not experiments_of(config, name):
        files = sorted((folder / "config" / "experiments").glob("*.yaml"))
        ours = [file for file in files if experiments_of(read_yaml(file), name)]
        config = functools.reduce(merge, map(read_yaml, ours), config)
    run = experiments_of(config, name)
    if not run:
        if name not in known:
            raise UserError(f"--dataset: there is no dataset {name!r}{instead(name, known)}")
        raise UserError(f"--dataset: no experiment uses {name!r}. Write one, as in config/experiments/my-data.yaml.")
    asked = config["run"]
    config = resolve({**config, "run": run}, [base, *overlays, *ours], folder)
    labels = Path(config["pathvars"]["data"]) / name / "labels.csv"
    if not labels.is_file():
        command, given = f"snakemake --cores 1 {labels}", [*overlays, *ours[:1]]
        command += f" --configfile {' '.join(map(str, given))}" if given else ""
        command += "" if set(run) & set(asked) else f" --config 'run=[{run[0]}]'"
        raise UserError(f"{labels}: not made yet. Make it first, with: {command}")
    used = [config["targets"][experiment["target"]] for experiment in config["experiments"].values()]
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
    return [name for name, block in blocks.items() if isinstance(block, dict) and block.get("dataset") == dataset]


def main(argv: list[str] | None = None) -> None:
    """Read the command line and check a dataset."""
    parser = stage_parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--dataset", help="name of a dataset of the config")
    which.add_argument("--labels", type=Path, help="or its labels.csv")
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="overlays, as for snakemake, with --dataset")
    parser.add_argument("--targets", type=json.loads, default={}, help="with --labels: columns and their classes, as JSON")
    parser.add_argument("--title", default="", help="with --labels: name of the dataset")
    parser.add_argument("--simulated", action="store_true", help="with --labels: say that the scans are simulated")
    parser.add_argument("--page", type=Path, help="web page to write, .html")
    parser.add_argument("--csv", type=Path, help="what every scan's header says, to write, .csv")
    parser.add_argument("--threads", type=int, default=8, help="headers to read at once (default: 8)")
    arguments = vars(parser.parse_args(argv))
    dataset, overlays = arguments.pop("dataset"), arguments.pop("configfile")
    check(**arguments | (of_dataset(dataset, overlays, Path()) if dataset else {}))


if __name__ == "__main__":
    run_stage(main)
