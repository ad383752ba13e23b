"""The tables of a split: how evenly each column is spread over the parts."""

from pathlib import Path

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.reporting.html import Markup
from mriflow.reporting.parts import Part, Table, Text
from mriflow.tables.balance import ALL, LARGE

MOST_VALUES = 12  # of a category, in columns of its table
BALANCE_REMARK = (
    "Every part beside all subjects of its fold; subjects are counted, by their first scan. Difference: {difference}. "
)
DIFFERENCE = {
    "number": "(mean of the part − mean of all) / standard deviation of all",
    "category": "half the sum of the differences of the shares, which is the share of the part that would have to be exchanged",
}
CHANCE = "Chance: how often as many subjects, drawn at random, differ as much or more. Bold: a difference above {large}."


def balance_tables(balance: Path) -> list[Part]:
    """Return a table for each column of a balance.csv that `mriflow.split` made."""
    table = pd.read_csv(balance)
    if not {"fold", "part", "scans", "subjects"} <= set(table.columns):
        raise UserError(f"{balance}: not a table of how a split is balanced. `python -m mriflow.split` makes it.")
    made: list[Part] = []
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
        rows, large, parts = [], 0, int((table["part"] != ALL).sum())
        for row, cells in zip(table.to_dict("records"), values, strict=True):
            difference = row[f"{column}_difference"]
            size = f"{difference:.2f}".replace("-", "−") if pd.notna(difference) else ""
            if size and abs(difference) > LARGE[kind]:
                size, large = Markup(f"<b>{size}</b>"), large + 1
            about = [row["fold"] if row["part"] != ALL else "", row["part"], row["scans"], row["subjects"]]
            rows.append([*map(str, about), *cells, size, percent(row[f"{column}_chance"])])
        folded = f"{column}: {large} of {parts} parts differ much from all" if large else f"{column}: no part differs much"
        made.append(Table(["fold", "part", "scans", "subjects", *head, "difference", "chance"], rows, column, folded))
        more = f"{len(names) - MOST_VALUES} more values stand in balance.csv. " if len(names) > MOST_VALUES else ""
        made += [Text(f"{column}: {more}", "small")] if more else []
    remarks = [BALANCE_REMARK.format(difference=f"of a number {DIFFERENCE['number']}; else {DIFFERENCE['category']}")]
    remarks.append(CHANCE.format(large=f"{LARGE['number']} of a number, {LARGE['category']} else"))
    return [*made, Text("".join(remarks), "small")] if made else []


def percent(share: float) -> str:
    """Return a share as text, '' if there is none."""
    return f"{100 * share:.0f} %" if pd.notna(share) else ""


def spread(mean: float, sd: float) -> str:
    """Return mean and standard deviation as text, as far as they are defined."""
    return "–" if pd.isna(mean) else f"{mean:.1f}" + (f" ± {sd:.1f}" if pd.notna(sd) else "")
