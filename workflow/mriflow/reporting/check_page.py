"""The page of a dataset's check: its findings, what the headers say, and how the labels are spread over the sites."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from mriflow.evaluation.site_baseline import SiteMetric
from mriflow.images.fingerprint import voxels_of
from mriflow.reporting.findings import METRIC_NAMES, Finding, interval, known_of, label_columns, level_of_fault, states
from mriflow.reporting.html import PAGE, Markup, paragraph, section
from mriflow.tables.cohort import count_subjects
from mriflow.tables.labels import usable
from mriflow.tables.problems import count_reasons, reasons_of

COLOURS = {"error": "#b00020", "warning": "#a05a00", "note": "#555"}
SHOWN = 10  # rows of a table of groups
NOT_KNOWN = "not known"


class Table(NamedTuple):
    """A table of the page."""

    title: str
    names: Sequence[str]
    rows: Sequence[Sequence[object]]
    remark: str = ""


def tables_of(
    table: pd.DataFrame,
    readable: pd.Series,
    findings: Sequence[Finding],
    targets: Mapping[str, Sequence[str]],
    alone: Mapping[str, Sequence[SiteMetric]],
) -> list[Table]:
    """Return the tables of the page.

    Parameters
    ----------
    table
        labels.csv with what the headers say.
    readable
        Which of its rows have a file to read.
    targets, alone
        The columns to be predicted with their classes, and how well the site alone predicts each.
    """
    return [
        counts_of(table, readable),
        Table(
            "Findings",
            ["", "scans", "what", "first"],
            [(f.level, f.scans, f.what, f.first) for f in findings],
            "" if findings else "Nothing was found.",
        ),
        Table("Why scans are left out", ["reason", "scans or rows"], count_reasons(table["problem"])),
        *tables_of_images(table[table["header.matrix"].notna()]),
        table_of_labels(table),
        *tables_of_sites(table, targets, alone),
    ]


def counts_of(table: pd.DataFrame, readable: pd.Series) -> Table:
    """Return how many scans and people there are at each step."""
    whole = readable & ~table["header.fault"].map(lambda fault: any(level_of_fault(r) == "error" for r in reasons_of(fault)))
    images = table[table["fingerprint"] != ""]
    steps = {
        "scans and rows known": table,
        "with an image": table[table["path"] != ""],
        "with a header and a file that fit": table[whole],
        "of these without a problem that rules them out": table[whole & usable(table)],
        "with the same voxels as another": images[images["fingerprint"].map(voxels_of).duplicated(keep=False)],
    }
    return Table("Counts", ["", "scans", "subjects"], [(s, len(part), count_subjects(part)) for s, part in steps.items()])


def tables_of_images(images: pd.DataFrame) -> list[Table]:
    """Return what the headers say, in groups."""
    if images.empty:
        return []
    sizes = images[["header.spacing_1", "header.spacing_2", "header.spacing_3"]]
    rows = [
        (name.removeprefix("header.spacing_"), *(f"{value:.4g}" for value in (column.median(), column.min(), column.max())))
        for name, column in sizes.items()
    ]
    codes = "qform " + images["header.qform_code"].astype(str) + ", sform " + images["header.sform_code"].astype(str)
    apart = images["header.qform_sform_mm"].dropna()
    remark = "0 unknown, 1 scanner, 2 aligned, 3 Talairach, 4 MNI."
    remark += f" Where both are set they place a corner at most {apart.max():.3g} mm apart." if len(apart) else ""
    return [
        grouped("Orientation", images["header.orientation"], images["site"], "Where the three axes of the file lead to."),
        Table("Voxel size along the axes of the file (mm)", ["axis", "median", "smallest", "largest"], rows),
        grouped("Voxel sizes (mm)", images["header.spacing"], images["site"]),
        grouped("Matrix", images["header.matrix"], images["site"]),
        grouped("Voxels stored as", images["header.dtype"], images["site"]),
        grouped("qform and sform codes", codes, images["site"], remark),
    ]


def grouped(title: str, values: pd.Series, sites: pd.Series, remark: str = "") -> Table:
    """Return how many scans, and of which sites, have each value."""
    rows = []
    for value, count in values.value_counts().head(SHOWN).items():
        of_value = sites[values == value].replace("", NOT_KNOWN).value_counts()
        more = [f"{len(of_value) - 6} more"] if len(of_value) > 6 else []
        rows.append((value, count, ", ".join([f"{site} {n}" for site, n in of_value.head(6).items()] + more)))
    others = values.nunique() - len(rows)
    more_values = f"… and {others} more." if others > 0 else ""
    return Table(title, ["", "scans", "of site"], rows, " ".join(filter(None, (more_values, remark))))


def table_of_labels(table: pd.DataFrame) -> Table:
    """Return what is known of each label."""
    scans = table[usable(table) & (table["path"] != "")]
    rows = []
    for column in label_columns(table):
        count = states(scans, column).value_counts()
        known = scans[column].dropna()
        if known.empty:
            values = "–"
        elif pd.api.types.is_numeric_dtype(known):
            values = f"{known.min():.4g} to {known.max():.4g}, median {known.median():.4g}"
        else:
            common = known.value_counts()
            values = ", ".join(f"{value} {n}" for value, n in common.head(6).items()) + (", …" if len(common) > 6 else "")
        rows.append((column, *(int(count.get(s, 0)) for s in ("known", "missing", "contradictory", "refused")), values))
    remark = "Of scans with an image and no problem that rules them out. Refused: out of range, or an unknown code."
    return Table("Labels", ["column", "known", "missing", "contradictory", "refused", "values"], rows, remark)


def tables_of_sites(
    table: pd.DataFrame, targets: Mapping[str, Sequence[str]], alone: Mapping[str, Sequence[SiteMetric]]
) -> Iterable[Table]:
    """Return of each target how it is spread over the sites, and how well these predict it."""
    for target, classes in targets.items():
        scans = known_of(table, target, classes)
        numbers = pd.api.types.is_numeric_dtype(scans[target]) and not classes
        names = ["site", "scans", "subjects", *(["mean ± SD", "range"] if numbers else classes)]
        rows = []
        for site, part in [*scans.groupby(scans["site"].replace("", NOT_KNOWN)), ("all", scans)]:
            row = [site, len(part), count_subjects(part)]
            values = part[target]
            if numbers:
                spread = f"{values.mean():.1f} ± {values.std():.1f}" if len(values) > 1 else "–"
                row += [spread, f"{values.min():.4g} to {values.max():.4g}" if len(values) else "–"]
            else:
                row += [f"{(values == name).sum()} ({100 * (values == name).mean():.0f} %)" for name in classes if len(values)]
            rows.append(row + ["–"] * (len(names) - len(row)))
        yield Table(f"{target} by site", names, rows)
        if alone[target]:
            lines = [(METRIC_NAMES[m.name], interval(m), f"{m.trivial:.3g}") for m in alone[target]]
            yield Table(
                f"{target} guessed from the site alone",
                ["", "the site's", "without the site"],
                lines,
                "The mean or the commonest class of a site's other subjects, cross-validated by subject; in brackets the 95 % "
                "confidence interval (bootstrap over subjects).",
            )
        else:
            yield Table(
                f"{target} guessed from the site alone",
                [],
                [],
                "Not asked: that takes two sites, ten subjects, and values that differ.",
            )


def to_html(title: str, tables: Sequence[Table], simulated: bool) -> str:
    """Return the page."""
    body = [
        paragraph("Simulated data: none of these is a real scan." if simulated else ""),
        paragraph(
            "Every header and every row of labels.csv was read, not the voxels: what only shows in an image itself is found "
            "when it is preprocessed."
        ),
    ]
    for table in tables:
        rows = [list(row) for row in table.rows]
        for row in rows:
            if table.title == "Findings":
                row[0] = Markup(f'<span style="color: {COLOURS[str(row[0])]}; font-weight: bold">{row[0]}</span>')
        if rows:
            body.append(section(table.title, table.names, rows))
        elif table.remark:
            body.append(f"<h2>{html.escape(table.title)}</h2>")
        body.append(paragraph(table.remark))
    name = f"Check of {title}" if title else "Check"
    return PAGE.format(title=html.escape(name), body="\n".join(filter(None, body)))


def to_text(title: str, tables: Sequence[Table]) -> str:
    """Return the same for a terminal."""
    lines = [f"Check of {title}"] if title else []
    for table in tables:
        if not table.rows and not table.remark:
            continue
        lines += ["", table.title]
        cells = [[str(cell) for cell in row] for row in [table.names, *table.rows]] if table.rows else []
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        lines += [f"  {table.remark}"] if table.remark else []
    return "\n".join(lines)
