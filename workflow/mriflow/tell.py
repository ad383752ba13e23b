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
from mriflow.errors import UserError
from mriflow.files import write_csv, write_text
from mriflow.labels import TEXT_COLUMNS, read_labels, usable

METHODS = ("network", "classical", "trivial")
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
NOT_PREPROCESSED = "scan: not preprocessed (in none of the shards)"
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
    """Text that is HTML already; any other is escaped."""


def tell_cohort(
    labels: Path,
    page: Path,
    csv: Path,
    *,
    indices: Sequence[Path] = (),
    targets: Sequence[str] = (),
    title: str = "",
    licence: str = "",
    citation: str = "",
    simulated: bool = False,
) -> pd.DataFrame:
    """Write who is in a dataset and who is not, as a web page and the excluded scans as CSV.

    Parameters
    ----------
    labels
        The table that `organize` made.
    page, csv
        The files to write.
    indices
        The shards' indices that `preprocess` made; none for a dataset that is not preprocessed.
    targets
        Columns of `labels` that are to be predicted.
    title, licence, citation
        Of the dataset.
    simulated
        Whether its scans are.

    Returns
    -------
    The excluded scans as written to `csv`: ``excluded_from`` is `everything` or the columns that cannot be predicted.
    """
    table, fit = read_cohort(labels, indices)
    excluded = exclusions(table)
    reasons = count_reasons(excluded["problem"])
    notes = count_reasons(table["notes"])
    counts = [
        ("scans and rows known", len(table), count_subjects(table)),
        ("with an image", (table["path"] != "").sum(), count_subjects(table[table["path"] != ""])),
    ]
    if indices:
        counts.append(("preprocessed", table["preprocessed"].sum(), count_subjects(table[table["preprocessed"]])))
    counts.append(("usable", fit.sum(), count_subjects(table[fit])))
    for target in targets:
        mine = fit & usable(table, target)
        counts.append((f"usable for {target}", mine.sum(), count_subjects(table[mine])))

    body = [paragraph("Simulated data: none of these is a real scan." if simulated else "")]
    body += [paragraph(f"{name}: {text}") for name, text in (("Licence", licence), ("Cite as", citation)) if text]
    body += [heading("From the table to the network"), html_table(["", "scans", "subjects"], counts)]
    body += [heading("Usable scans by site"), html_table(*by_site(table[fit]))]
    if reasons:
        body += [heading("Why scans are left out"), html_table(["reason", "scans"], reasons)]
        body += [
            paragraph(
                f"{len(excluded)} scans have a problem; one with several counts under each. A reason that begins with "
                "'scan' rules a scan out for everything, one that begins with a column only for predicting that column."
            )
        ]
        shown = excluded.head(LISTED)[["id", "site", "excluded_from", "problem"]]
        body += [
            heading("Scans left out"),
            html_table(["id", "site", "left out of", "problem"], shown.to_numpy().tolist()),
        ]
        more = len(excluded) - len(shown)
        body += [paragraph(f"… and {more} more; all {len(excluded)} stand in {csv.name}." if more else "")]
    else:
        body += [paragraph("No scan is left out.")]
    if notes:
        body += [heading("Notes: what was left empty in rows that can be used"), html_table(["note", "rows"], notes)]
    write_text(PAGE.format(title=escape(title or "Cohort"), body="\n".join(body)), page)
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
        known = {name: label for name, label in METRICS[result["type"]].items() if name in result["network"]}
        for metric, label in known.items():
            cells = {method: result.get(method, {}).get(metric) or {} for method in METHODS}
            best = best_method(metric, cells)
            about = {
                key: result.get(key) for key in ("experiment", "dataset", "target", "unit", "n", "n_excluded", "folds")
            }
            numbers = {
                f"{method}{suffix}": cell.get(key)
                for method, cell in cells.items()
                for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high"))
            }
            rows.append({**about, "simulated": is_simulated(result), "metric": metric, **numbers, "best": best})
            unit = f" ({result['unit']})" if metric in LESS_IS_BETTER and result.get("unit") else ""
            first = metric == next(iter(known))
            texts = [Markup(f"<b>{with_interval(c)}</b>") if m == best else with_interval(c) for m, c in cells.items()]
            lines.append([*(about_cells(result) if first else [""] * 4), label + unit, *texts])
    names = ["experiment", "dataset", "target", "scans (left out)", "metric", *METHODS]
    body = [html_table(names, lines)]
    body += [
        paragraph(
            "Value [95 % confidence interval, bootstrap over subjects], on scans that were neither trained on nor used "
            "to choose a model; all folds together. Bold: best, and its interval overlaps with neither of the others. "
            "Trivial: the median, or the share of each class. Classical: principal components with ridge or logistic "
            "regression. Slope of the residual: of predicted minus true on the true value; 0 is "
            "unbiased, −1 a constant guess."
        )
    ]
    simulated = [str(result["experiment"]) for result in results if is_simulated(result)]
    if simulated:
        body.insert(0, paragraph(f"Simulated data, not real scans: {', '.join(simulated)}."))
    write_text(PAGE.format(title="Results", body="\n".join(body)), page)
    table = pd.DataFrame(rows)
    write_csv(table, csv)
    return table


def about_cells(result: Mapping[str, Any]) -> list[str]:
    """Return what stands before an experiment's first figure: its name, dataset, target and number of scans."""
    left_out = f" ({result['n_excluded']})" if result.get("n_excluded") else ""
    return [
        str(result["experiment"]),
        str(result.get("dataset", "")),
        str(result["target"]),
        f"{result['n']}{left_out}",
    ]


def best_method(metric: str, cells: Mapping[str, Mapping[str, float | None]]) -> str | None:
    """Return the method whose interval lies beyond those of all others that have the metric, if there is one."""
    known = {m: c for m, c in cells.items() if None not in (c.get("value"), c.get("low"), c.get("high"))}
    if metric in NO_BEST or len(known) < 2:
        return None
    for method, cell in known.items():
        others = [c for m, c in known.items() if m != method]
        if metric in LESS_IS_BETTER and all(cell["high"] < other["low"] for other in others):  # type: ignore[operator]
            return method
        if metric not in LESS_IS_BETTER and all(cell["low"] > other["high"] for other in others):  # type: ignore[operator]
            return method
    return None


def with_interval(cell: Mapping[str, float | None] | None) -> str:
    """Return a figure as text, ``4.60 [4.00, 5.20]``: to two significant digits of the interval's half-width."""
    value, low, high = ((cell or {}).get(key) for key in ("value", "low", "high"))
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{value:.3g}".replace("-", "−")
    half = (high - low) / 2
    digits = min(max(1 - math.floor(math.log10(half)), 0), 6) if half > 1e-9 else 2
    return f"{value:z.{digits}f} [{low:z.{digits}f}, {high:z.{digits}f}]".replace("-", "−")


def is_simulated(result: Mapping[str, Any]) -> bool:
    """Tell whether the figures come from simulated scans: the dataset's title says so."""
    return "simulated" in str(result.get("dataset", "")).lower()


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics.json that `evaluate` made."""
    again = "Delete it and run `python -m mriflow.evaluate` again."
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; `python -m mriflow.evaluate` makes it.") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}). {again}") from error
    missing = {"experiment", "target", "type", "n", "network"} - set(result)
    if missing:
        raise UserError(f"{path}: has no {', '.join(sorted(missing))}. {again}")
    if result["type"] not in METRICS:
        raise UserError(f"{path}: type is {result['type']!r}, expected {' or '.join(METRICS)}. {again}")
    return result


def read_made(path: Path, columns: Iterable[str], maker: str, *, text: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table that the stage `maker` made; `text` columns stay text (subject 002 is not 2)."""
    again = f"Delete it and run `python -m mriflow.{maker}` again."
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; `python -m mriflow.{maker}` makes it.") from error
    except (ValueError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path}: cannot be read as a table ({error}). {again}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"{path}: has no column {', '.join(missing)}; it has {', '.join(table.columns)}. {again}")
    return table


def read_index(path: Path) -> pd.DataFrame:
    """Read the index of a shard; a scan with a problem has no number (NA) there."""
    columns = ["id", "index", "problem", "correlation"]
    return read_made(path, columns, "preprocess", text=["id", "problem"]).astype({"index": "Int64"})


def read_cohort(labels: Path, indices: Sequence[Path]) -> tuple[pd.DataFrame, pd.Series]:
    """Return labels.csv with the problems found by `preprocess` added to its own, and which scans are usable.

    The table has a column `preprocessed`: whether the scan is in a shard. With no `indices`, that is not asked for.
    """
    read_made(labels, TEXT_COLUMNS, "organize")
    table = read_labels(labels)
    if not indices:
        return table, usable(table)
    index = pd.concat([read_index(path) for path in indices])
    problem_of = index.drop_duplicates("id").set_index("id")["problem"].fillna("").to_dict()
    found = [
        problem_of.get(scan, NOT_PREPROCESSED if fit else "")
        for scan, fit in zip(table["id"], usable(table), strict=True)
    ]
    table["problem"] = ["; ".join(filter(None, pair)) for pair in zip(table["problem"], found, strict=True)]
    table["preprocessed"] = table["id"].isin(index.loc[index["index"].notna(), "id"])
    return table, usable(table) & table["preprocessed"]


def exclusions(table: pd.DataFrame) -> pd.DataFrame:
    """Return the scans with a problem, and what each is left out of."""
    excluded = table[table["problem"] != ""]
    out_of_all = ~usable(excluded)
    columns = [
        ", ".join(dict.fromkeys(reason.split(":")[0] for reason in reasons_of(problem)))
        for problem in excluded["problem"]
    ]
    left_out_of = ["everything" if everything else names for everything, names in zip(out_of_all, columns, strict=True)]
    return excluded[["id", "subject", "session", "site", "path"]].assign(
        excluded_from=left_out_of, problem=excluded["problem"]
    )


def reasons_of(problems: str) -> list[str]:
    """Return the reasons in a cell of problems or notes, without the details in parentheses."""
    while (shorter := re.sub(r"\s*\([^()]*\)", "", problems)) != problems:
        problems = shorter
    return list(dict.fromkeys(reason.strip() for reason in problems.split("; ") if reason.strip()))


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
    sites = sorted(set(table["site"]))
    groups = [("all", table)]
    if len(sites) > 1:
        groups = [(site or "not known", table[table["site"] == site]) for site in sites] + groups
    rows = []
    for name, group in groups:
        row = [name, str(len(group)), str(count_subjects(group))]
        if has_age:
            row.append(f"{group['age'].mean():.1f} ± {group['age'].std():.1f}" if group["age"].count() > 1 else "–")
        known = group["sex"].dropna().astype(str) if sexes else []
        row += [f"{100 * (known == sex).mean():.0f} %" if len(known) else "–" for sex in sexes]
        rows.append(row)
    return names, rows


def escape(text: object) -> str:
    """Return `text` safe to stand in a web page."""
    return text if isinstance(text, Markup) else html.escape(str(text))


def heading(text: str) -> str:
    """Return a heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Return a paragraph; none of no text."""
    return f'<p class="small">{escape(text)}</p>' if text else ""


def html_table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; cells that begin with a number stand to the right, and the names above them too."""
    cells = [[escape(cell) for cell in row] for row in rows]
    right = [bool(cells) and all(re.match(r"(<b>)?−?[\d–]|$", row[i]) for row in cells) for i in range(len(names))]
    kind = [' class="n"' if numbers else "" for numbers in right]
    head = "".join(f"<th{k}>{escape(name)}</th>" for k, name in zip(kind, names, strict=True))
    lines = ["".join(f"<td{k}>{cell}</td>" for k, cell in zip(kind, row, strict=True)) for row in cells]
    return f"<table><tr>{head}</tr>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write a page."""
    parser = stage_parser(__doc__ or "")
    pages = parser.add_subparsers(required=True, metavar="page")
    cohort = pages.add_parser("cohort", help="who is in a dataset, and why every other scan is not", allow_abbrev=False)
    cohort.set_defaults(function=tell_cohort)
    cohort.add_argument("--labels", type=Path, required=True, help="labels.csv of the dataset")
    cohort.add_argument("--indices", type=Path, nargs="*", default=[], help="indices of its shards, .csv")
    cohort.add_argument("--targets", nargs="*", default=[], help="columns that are to be predicted")
    cohort.add_argument("--title", default="", help="of the dataset")
    cohort.add_argument("--licence", default="", help="of the dataset")
    cohort.add_argument("--citation", default="", help="of the dataset")
    cohort.add_argument("--simulated", action="store_true", help="the scans are simulated")
    results = pages.add_parser("results", help="the figures of all experiments", allow_abbrev=False)
    results.set_defaults(function=tell_results)
    results.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of every experiment")
    for page in (cohort, results):
        page.add_argument("--page", type=Path, required=True, help="web page to write, .html")
        page.add_argument("--csv", type=Path, required=True, help="the same as a table to write, .csv")
    arguments = vars(parser.parse_args(argv))
    arguments.pop("function")(**arguments)


if __name__ == "__main__":
    run_stage(main)
