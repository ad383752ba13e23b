"""Check a dataset before hours are spent on it: every header and every row of labels.csv, and what is wrong with them.

python -m mriflow.check --dataset ixi [--configfile overlay.yaml]

The voxels are not read: what only shows in the image itself is found when it is preprocessed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv, write_text
from mriflow.config.lookup import of_dataset
from mriflow.evaluation.site_baseline import site_baseline
from mriflow.images.headers import read_headers
from mriflow.images.kinds import is_nifti
from mriflow.reporting.check_page import tables_of, to_html, to_text
from mriflow.reporting.findings import (
    FIELDS,
    HEADER,
    LEVELS,
    OF_HEADER,
    Finding,
    findings_of_files,
    findings_of_rows,
    findings_of_sites,
    known_of,
    with_site,
)
from mriflow.tables.labels import read_labels, require_column
from mriflow.tables.problems import join_problems


def check(
    labels: Path,
    *,
    targets: Mapping[str, Sequence[str]],
    title: str = "",
    simulated: bool = False,
    page: Path | None = None,
    csv: Path | None = None,
    headers: Path | None = None,
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
    headers
        What was written as `csv` of the same `labels` before: no header is read then.
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
        require_column(table, column)
        if classes:
            continue
        numbers = pd.to_numeric(table[column], errors="coerce")
        for row in table.index[table[column].notna() & numbers.isna()]:
            problem = f"{column}: not a number ({table.loc[row, column]!r})"
            table.loc[row, "problem"] = join_problems(table.loc[row, "problem"], problem)
        table[column] = numbers
    readable = table["path"].map(is_nifti) & ~table["problem"].str.contains("scan: no file", regex=False)
    table = table.join(header_table(labels, table, readable, headers, threads).add_prefix(OF_HEADER))

    alone = {name: site_baseline(with_site(known_of(table, name, classes)), name, classes) for name, classes in targets.items()}
    findings = [*findings_of_files(table), *findings_of_rows(table, targets), *findings_of_sites(table, targets, alone)]
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    tables = tables_of(table, readable, findings, targets, alone)
    print(to_text(title, tables))
    if page:
        write_text(to_html(title, tables, simulated), page)
    if csv:
        columns = ["id", "subject", "session", "site", "path", *HEADER, "problem", "notes"]
        write_csv(table[columns].rename(columns=lambda name: name.removeprefix(OF_HEADER)), csv)
    return findings


def header_table(labels: Path, table: pd.DataFrame, readable: pd.Series, headers: Path | None, threads: int) -> pd.DataFrame:
    """Return what the header of every `readable` scan of a table says, read from its file, or from `headers` if that is given.

    Raises
    ------
    UserError
        If `headers` is of other scans.
    """
    if headers:
        texts = dict.fromkeys(["id", "matrix", "spacing", "orientation", "dtype", "fault"], str)
        known = pd.read_csv(headers, dtype=texts, keep_default_na=False, na_values=[""])
        if not known["id"].equals(table["id"]):
            raise UserError(f"{headers}: found other scans than in {labels}. Make it anew, with `--csv`.")
        known = known.set_index(table.index)[FIELDS]
    else:
        known = read_headers([labels.parent / path for path in table.loc[readable, "path"]], threads)
        known = known.set_index(table.index[readable]).reindex(index=table.index, columns=FIELDS)
    known = known.astype(dict.fromkeys(["bytes", "qform_code", "sform_code"], "Int64"))
    return known.assign(fault=known["fault"].fillna(""))


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
    parser.add_argument("--headers", type=Path, help="what --csv wrote before, to read instead of the images")
    parser.add_argument("--threads", type=int, default=8, help="headers to read at once (default: 8)")
    arguments = vars(parser.parse_args(argv))
    dataset, overlays = arguments.pop("dataset"), arguments.pop("configfile")
    check(**arguments | (of_dataset(dataset, overlays, Path()) if dataset else {}))


if __name__ == "__main__":
    run_stage(main)
