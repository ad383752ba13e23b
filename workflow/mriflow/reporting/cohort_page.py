"""The page of a cohort: who is in a dataset, and why every other scan is not."""

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mriflow.base.files import write_csv, write_text
from mriflow.reporting.html import LISTED, PAGE, paragraph, section
from mriflow.tables.cohort import PREPROCESSED, count_subjects, exclusions, read_cohort
from mriflow.tables.labels import usable
from mriflow.tables.problems import count_reasons, join_problems


def page_cohort(
    labels: Path,
    page: Path,
    csv: Path,
    *,
    indices: Sequence[Path],
    targets: Mapping[str, Sequence[str]],
    title: str,
    licence: str,
    citation: str,
    simulated: bool = False,
) -> pd.DataFrame:
    """Write who is in a dataset and who is not, as a web page and the excluded scans as CSV.

    Parameters
    ----------
    labels, indices
        The dataset's labels.csv and the indices of its shards (none if it is not preprocessed).
    page, csv
        The files to write.
    targets
        Columns of `labels` that are to be predicted and, of a classification, their classes.
    title, licence, citation, simulated
        Of the dataset.

    Returns
    -------
    The excluded scans as written to `csv`: ``excluded_from`` is `everything` or the columns that cannot be predicted.
    """
    table, is_usable = read_cohort(labels, indices, [column for column, classes in targets.items() if classes])
    for column, classes in targets.items():
        known = table.get(column, pd.Series(dtype=object)).dropna().astype(str)
        for row in known.index[~known.isin(classes)] if classes else []:
            problem = f"{column}: not one of the target's classes ({known[row]})"
            table.loc[row, "problem"] = join_problems(table.loc[row, "problem"], problem)
    excluded = exclusions(table)
    steps = {"scans and rows known": table, "with an image": table[table["path"] != ""]}
    if indices:
        steps["preprocessed"] = table[table[PREPROCESSED]]
    steps["usable"] = table[is_usable]
    for column in targets:
        others = table["problem"].str.contains(rf"(?:^|; ){re.escape(column)}: not one of", regex=True)
        steps[f"usable for {column}"] = table[is_usable & usable(table, column) & ~others]
    counts = [(step, len(part), count_subjects(part)) for step, part in steps.items()]

    body = [
        paragraph("Simulated data: none of these is a real scan." if simulated else ""),
        paragraph(f"Licence: {licence}" if licence else ""),
        paragraph(f"Cite as: {citation}" if citation else ""),
        section("From the table to the network", ["", "scans", "subjects"], counts),
        section("Usable scans by site", *by_site(table[is_usable])),
    ]
    if excluded.empty:
        body.append(paragraph("No scan is left out."))
    else:
        shown = excluded.head(LISTED)[["id", "site", "excluded_from", "problem"]]
        more = len(excluded) - len(shown)
        body += [
            section("Why scans are left out", ["reason", "scans"], count_reasons(excluded["problem"])),
            paragraph(
                f"{len(excluded)} scans have a problem; one with several counts under each. A reason that begins with "
                "'scan' rules a scan out for everything, one that begins with a column only for predicting that column."
            ),
            section("Scans left out", ["id", "site", "left out of", "problem"], shown.to_numpy().tolist()),
            paragraph(f"… and {more} more; all {len(excluded)} stand in {csv.name}." if more else ""),
        ]
    if notes := count_reasons(table["notes"]):
        body.append(section("Notes on rows that can be used: what was left empty, or merged", ["note", "rows"], notes))
    write_text(PAGE.format(title=html.escape(title), body="\n".join(body)), page)
    write_csv(excluded, csv)
    return excluded


def by_site(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return names and rows of a table of scans, age and sex by site; what `table` lacks is left away."""
    sexes = sorted(table["sex"].dropna().astype(str).unique()) if "sex" in table else []
    has_age = "age" in table and pd.api.types.is_numeric_dtype(table["age"]) and table["age"].notna().any()
    names = ["site", "scans", "subjects", *(["age, mean ± SD"] if has_age else []), *(f"sex {sex}" for sex in sexes)]
    groups = [(site or "not known", part) for site, part in table.groupby("site")]
    rows = []
    for name, group in [*(groups if len(groups) > 1 else []), ("all", table)]:
        row = [name, str(len(group)), str(count_subjects(group))]
        if has_age:
            row.append(f"{group['age'].mean():.1f} ± {group['age'].std():.1f}" if group["age"].count() > 1 else "–")
        known = group["sex"].dropna().astype(str) if sexes else []
        row += [f"{100 * (known == sex).mean():.0f} %" if len(known) else "–" for sex in sexes]
        rows.append(row)
    return names, rows
