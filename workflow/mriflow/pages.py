"""Write a page of tables for the report: self-contained HTML.

``cohort`` says who is in a dataset and why every other scan is not; ``balance`` how evenly a split is spread; ``results`` sets
the metrics of all experiments beside their baselines. The first and the last write the same as CSV, too.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv, write_text
from mriflow.evaluation.metrics import METHODS
from mriflow.reporting.html import LISTED, PAGE, Markup, paragraph, section
from mriflow.reporting.results import ABOUT, LESS_IS_BETTER, METRICS, read_metrics, with_interval
from mriflow.tables.balance import ALL, LARGE
from mriflow.tables.cohort import count_subjects, exclusions, read_cohort
from mriflow.tables.labels import usable
from mriflow.tables.problems import count_reasons, join_problems

NO_BEST = {"slope", "sensitivity", "specificity"}  # alone they rank nothing: naming one class always gives 1 and 0


MOST_VALUES = 12  # of a category, in columns of its table
BALANCE_REMARK = (
    "Every part beside all subjects of its fold; subjects are counted, by their first scan. Difference: {difference}. "
)
DIFFERENCE = {
    "number": "(mean of the part − mean of all) / standard deviation of all",
    "category": "half the sum of the differences of the shares, which is the share of the part that would have to be exchanged",
}
CHANCE = "Chance: how often as many subjects, drawn at random, differ as much or more. Bold: a difference above {large}."


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
        steps["preprocessed"] = table[table["preprocessed"]]
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


def page_balance(balance: Path, page: Path, title: str = "") -> None:
    """Write `page` from a balance.csv that `mriflow.split` made; `title` is the name of the experiment."""
    table = pd.read_csv(balance)
    if not {"fold", "part", "scans", "subjects"} <= set(table.columns):
        raise UserError(f"{balance}: not a table of how a split is balanced. `python -m mriflow.split` makes it.")
    body = []
    for column in (name.removesuffix("_difference") for name in table if name.endswith("_difference")):
        kind = "number" if f"{column}_mean" in table else "category"
        names = [name for name in table if name.startswith(f"{column}=")]
        if kind == "category":
            shown = names[:MOST_VALUES]
            head = [name.removeprefix(f"{column}=") for name in shown]
            values = table[shown].map(percent).to_numpy().tolist()
        else:
            head = ["mean ± SD"]
            values = [[spread(*pair)] for pair in table[[f"{column}_mean", f"{column}_sd"]].to_numpy()]
        rows = []
        for row, cells in zip(table.to_dict("records"), values, strict=True):
            difference = row[f"{column}_difference"]
            size = f"{difference:.2f}".replace("-", "−") if pd.notna(difference) else ""
            size = Markup(f"<b>{size}</b>") if size and abs(difference) > LARGE[kind] else size
            chance = percent(row[f"{column}_chance"])
            about = [row["fold"] if row["part"] != ALL else "", row["part"], row["scans"], row["subjects"]]
            rows.append([*about, *cells, size, chance])
        body.append(section(column, ["fold", "part", "scans", "subjects", *head, "difference", "chance"], rows))
        more = f"{len(names) - MOST_VALUES} more values stand in balance.csv. " if len(names) > MOST_VALUES else ""
        body.append(paragraph(more + BALANCE_REMARK.format(difference=DIFFERENCE[kind]) + CHANCE.format(large=LARGE[kind])))
    name = f"Balance of the parts of {title}" if title else "Balance of the parts"
    write_text(PAGE.format(title=html.escape(name), body="\n".join(body)), page)


def percent(share: float) -> str:
    """Return a share as text, '' if there is none."""
    return f"{100 * share:.0f} %" if pd.notna(share) else ""


def spread(mean: float, sd: float) -> str:
    """Return mean and standard deviation as text, as far as they are defined."""
    return "–" if pd.isna(mean) else f"{mean:.1f}" + (f" ± {sd:.1f}" if pd.notna(sd) else "")


def page_results(metrics: Sequence[Path], page: Path, csv: Path) -> pd.DataFrame:
    """Write the metrics of several experiments, beside their baselines, as a web page and a CSV.

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


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write a page."""
    parser = stage_parser(__doc__)
    pages = parser.add_subparsers(required=True, metavar="page")
    cohort = pages.add_parser("cohort", help="who is in a dataset, and why every other scan is not", allow_abbrev=False)
    cohort.set_defaults(write=page_cohort)
    cohort.add_argument("--labels", type=Path, required=True, help="labels.csv of the dataset")
    cohort.add_argument("--indices", type=Path, nargs="*", default=[], help="indices of its shards, .csv")
    cohort.add_argument("--targets", type=json.loads, default={}, help="columns to be predicted and their classes, as JSON")
    cohort.add_argument("--title", default="", help="of the dataset")
    cohort.add_argument("--licence", default="", help="of the dataset")
    cohort.add_argument("--citation", default="", help="of the dataset")
    cohort.add_argument("--simulated", action="store_true", help="say that the scans are simulated")
    balance = pages.add_parser("balance", help="how evenly a split is spread", allow_abbrev=False)
    balance.set_defaults(write=page_balance)
    balance.add_argument("--balance", type=Path, required=True, help="balance.csv of an experiment")
    balance.add_argument("--title", default="", help="name of the experiment")
    results = pages.add_parser("results", help="the metrics of all experiments", allow_abbrev=False)
    results.set_defaults(write=page_results)
    results.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of every experiment")
    for page in (cohort, balance, results):
        page.add_argument("--page", type=Path, required=True, help="web page to write, .html")
    for page in (cohort, results):
        page.add_argument("--csv", type=Path, required=True, help="the same as a table to write, .csv")
    arguments = vars(parser.parse_args(argv))
    arguments.pop("write")(**arguments)


if __name__ == "__main__":
    run_stage(main)
