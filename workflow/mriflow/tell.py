"""Put the cohort and the results into words: two small web pages for the report, and the same as CSV.

``cohort`` tells who is in a dataset and why every other scan is not; ``results`` sets the figures of all experiments
beside their baselines.
"""

import html
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.cli import run_stage, stage_parser
from mriflow.cohort import exclusions, read_cohort, reasons_of
from mriflow.errors import UserError
from mriflow.files import write_csv, write_text
from mriflow.labels import usable
from mriflow.metrics import METHODS

METRICS = {
    "regression": {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "r": "r", "slope": "slope of the residual"},
    "classification": {
        "auc": "AUC",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
    },
}
LESS_IS_BETTER = {"mae", "rmse"}
NO_BEST = {"slope", "sensitivity", "specificity"}  # alone they rank nothing: naming one class always gives 1 and 0
ABOUT = ("experiment", "dataset", "target", "unit", "n", "n_excluded", "folds", "simulated")  # of metrics.json
LISTED = 200  # rows of excluded scans on the page; the CSV has them all

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 sans-serif; color: #222; max-width: 70em; margin: 1.5em; }}
table {{ border-collapse: collapse; margin: 0.5em 0 1.5em; }}
th, td {{ text-align: left; padding: 0.25em 0.9em 0.25em 0; border-bottom: 1px solid #ddd; vertical-align: top; }}
th {{ border-bottom: 2px solid #666; }}
td.n, th.n {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
h2 {{ font-size: 1.15em; }} .small {{ font-size: 0.85em; color: #555; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


class Markup(str):
    """Text of a cell that is HTML already; any other is escaped."""


def tell_cohort(
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
    table, fit = read_cohort(labels, indices, [column for column, classes in targets.items() if classes])
    for column, classes in targets.items():
        known = table.get(column, pd.Series(dtype=object)).dropna().astype(str)
        for row in known.index[~known.isin(classes)] if classes else []:
            problem = f"{column}: not one of the target's classes ({known[row]})"
            table.loc[row, "problem"] = "; ".join(filter(None, (table.loc[row, "problem"], problem)))
    excluded = exclusions(table)
    steps = {"scans and rows known": table, "with an image": table[table["path"] != ""]}
    if indices:
        steps["preprocessed"] = table[table["preprocessed"]]
    steps["usable"] = table[fit]
    for column in targets:
        others = table["problem"].str.contains(rf"(?:^|; ){re.escape(column)}: not one of", regex=True)
        steps[f"usable for {column}"] = table[fit & usable(table, column) & ~others]
    counts = [(step, len(part), count_subjects(part)) for step, part in steps.items()]

    body = [
        paragraph("Simulated data: none of these is a real scan." if simulated else ""),
        paragraph(f"Licence: {licence}" if licence else ""),
        paragraph(f"Cite as: {citation}" if citation else ""),
        section("From the table to the network", ["", "scans", "subjects"], counts),
        section("Usable scans by site", *by_site(table[fit])),
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


def tell_results(metrics: Sequence[Path], page: Path, csv: Path) -> pd.DataFrame:
    """Write the figures of several experiments, beside their baselines, as a web page and a CSV.

    Returns
    -------
    The table written to `csv`: one row per experiment and metric, with value, low and high of every method, and the
    ``best`` method if its interval overlaps with no other's.
    """
    results = [read_metrics(path) for path in metrics]
    rows, lines = [], []
    for result in results:
        known = [name for name in METRICS[result["type"]] if name in result["network"]]
        for metric in known:
            cells = {method: result[method][metric] for method in METHODS}
            best = best_method(metric, cells)
            numbers = {
                method + suffix: cell[key]
                for method, cell in cells.items()
                for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
            }
            rows.append({**{key: result[key] for key in ABOUT}, "metric": metric, **numbers, "best": best})
            first = metric == known[0]
            left_out = f" ({result['n_excluded']})" if result["n_excluded"] else ""
            about = [*(result[key] for key in ("experiment", "dataset", "target")), f"{result['n']}{left_out}"]
            label = METRICS[result["type"]][metric]
            label += f" ({result['unit']})" if metric in LESS_IS_BETTER and result["unit"] else ""
            texts = [Markup(f"<b>{with_interval(c)}</b>") if m == best else with_interval(c) for m, c in cells.items()]
            lines.append([*(about if first else [""] * len(about)), label, *texts])
    simulated = [result["experiment"] for result in results if result["simulated"]]
    body = [
        paragraph(f"Simulated data, not real scans: {', '.join(simulated)}." if simulated else ""),
        section("", ["experiment", "dataset", "target", "scans (left out)", "metric", *METHODS], lines),
        paragraph(
            "Value [95 % confidence interval, bootstrap over subjects], on scans that were neither trained on nor used "
            "to choose a model; all folds together. Bold: best, and its interval overlaps with neither of the others. "
            "Trivial: the median, or the share of each class. Classical: principal components with ridge or logistic "
            "regression. Slope of the residual: of predicted minus true on the true value; 0 is "
            "unbiased, −1 a constant guess."
        ),
    ]
    write_text(PAGE.format(title="Results", body="\n".join(body)), page)
    table = pd.DataFrame(rows)
    write_csv(table, csv)
    return table


def best_method(metric: str, cells: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the method whose interval lies beyond those of all others that have the metric, if there is one."""
    known = {method: cell for method, cell in cells.items() if cell["low"] is not None}
    if metric in NO_BEST or len(known) < 2:
        return None

    def beats(one: str, other: str) -> bool:
        less, more = (one, other) if metric in LESS_IS_BETTER else (other, one)
        return bool(known[less]["high"] < known[more]["low"])

    return next((one for one in known if all(beats(one, other) for other in known if other != one)), None)


def with_interval(cell: Mapping[str, float | None]) -> str:
    """Return a figure as text, ``4.60 [4.00, 5.20]``: to two significant digits of the interval's half-width."""
    value, low, high = (cell[key] for key in ("value", "low", "high"))
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{value:.3g}".replace("-", "−")
    half = (high - low) / 2
    digits = min(max(1 - math.floor(math.log10(half)), 0), 6) if half > 1e-9 else 2
    return f"{value:z.{digits}f} [{low:z.{digits}f}, {high:z.{digits}f}]".replace("-", "−")


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics.json that `evaluate` made."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise not_as_made(path, f"cannot be read ({error})", "evaluate") from error
    if missing := [key for key in (*ABOUT, "type", "seeds", *METHODS) if key not in result]:
        raise not_as_made(path, f"has no {', '.join(missing)}", "evaluate")
    return result


def not_as_made(path: Path, fault: str, maker: str) -> UserError:
    """Return the error of a file that is not as the stage `maker` makes it."""
    return UserError(f"{path}: {fault}. `python -m mriflow.{maker}` makes it; delete it and run that again.")


def count_reasons(cells: Iterable[str]) -> list[tuple[str, int]]:
    """Return how many cells name each reason, the commonest first."""
    counts = Counter(reason for cell in cells for reason in reasons_of(cell))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def count_subjects(table: pd.DataFrame) -> int:
    """Return how many people are in a table."""
    return int(table.loc[table["subject"] != "", "subject"].nunique())


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


def paragraph(text: str) -> str:
    """Return a paragraph; none of no text."""
    return f'<p class="small">{html.escape(text)}</p>' if text else ""


def section(title: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a title; cells that begin with a number stand to the right, and the names above them too."""
    cells = [[cell if isinstance(cell, Markup) else html.escape(str(cell)) for cell in row] for row in rows]
    right = [bool(cells) and all(re.match(r"(<b>)?−?[\d–]|$", row[i]) for row in cells) for i in range(len(names))]
    kind = [' class="n"' if numbers else "" for numbers in right]
    head = "".join(f"<th{k}>{html.escape(name)}</th>" for k, name in zip(kind, names, strict=True))
    lines = ["".join(f"<td{k}>{cell}</td>" for k, cell in zip(kind, row, strict=True)) for row in cells]
    body = "\n".join(f"<tr>{line}</tr>" for line in [head, *lines])
    return (f"<h2>{html.escape(title)}</h2>\n" if title else "") + f"<table>{body}\n</table>"


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write a page."""
    parser = stage_parser(__doc__)
    pages = parser.add_subparsers(required=True, metavar="page")
    cohort = pages.add_parser("cohort", help="who is in a dataset, and why every other scan is not", allow_abbrev=False)
    cohort.set_defaults(tell=tell_cohort)
    cohort.add_argument("--labels", type=Path, required=True, help="labels.csv of the dataset")
    cohort.add_argument("--indices", type=Path, nargs="*", default=[], help="indices of its shards, .csv")
    cohort.add_argument("--targets", type=json.loads, default={}, help="columns to be predicted and their classes, as JSON")
    cohort.add_argument("--title", default="", help="of the dataset")
    cohort.add_argument("--licence", default="", help="of the dataset")
    cohort.add_argument("--citation", default="", help="of the dataset")
    cohort.add_argument("--simulated", action="store_true", help="say that the scans are simulated")
    results = pages.add_parser("results", help="the figures of all experiments", allow_abbrev=False)
    results.set_defaults(tell=tell_results)
    results.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of every experiment")
    for page in (cohort, results):
        page.add_argument("--page", type=Path, required=True, help="web page to write, .html")
        page.add_argument("--csv", type=Path, required=True, help="the same as a table to write, .csv")
    arguments = vars(parser.parse_args(argv))
    arguments.pop("tell")(**arguments)


if __name__ == "__main__":
    run_stage(main)
