"""The figure of a dataset: who is in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mriflow.base.errors import UserError
from mriflow.reporting.canvas import ONE_COLUMN, TWO_COLUMNS, count, legend_above, page
from mriflow.tables.cohort import read_cohort


def cohort(labels: Path, indices: Sequence[Path], pdf: Path, png: Path, *, simulated: bool = False) -> None:
    """Draw the ages of the usable scans by sex and by site; where no age is known, how many scans each site has."""
    table, is_usable = read_cohort(labels, indices)
    table = table[is_usable].reset_index(drop=True)
    if table.empty:
        raise UserError(f"{labels}: no scan is usable. See its column `problem` and that of the shards' indices.")
    site = table["site"].replace("", "not known")
    age = pd.to_numeric(table["age"], errors="coerce").dropna() if "age" in table else pd.Series(dtype=float)
    footer = f"n = {len(table)} usable scans of {count(table['subject'].nunique(), 'subject')}"
    footer += f", {len(table) - len(age)} without age" if len(age) < len(table) else ""
    if age.empty:
        sizes = site.value_counts().sort_index()
        with page(pdf, png, ONE_COLUMN, 1.0 + 0.25 * len(sizes), footer, simulated) as (_, axes):
            axes[0, 0].barh(sizes.index, sizes, height=0.6)
            axes[0, 0].set(xlabel="Scans", ylabel="Site")
        return
    sex = table.loc[age.index, "sex"].fillna("not known").astype(str) if "sex" in table else None
    by_site = {f"{name}\nn = {len(ages)}": ages for name, ages in age.groupby(site[age.index])}
    several = 2 <= len(by_site) <= 12
    width, panels = (TWO_COLUMNS, 2) if several else (ONE_COLUMN, 1)
    with page(pdf, png, width, 2.6, footer, simulated, ncols=panels) as (figure, axes):
        draw_ages(axes[0, 0], age, sex)
        legend_above(figure, axes[0, 0])
        if several:
            look: dict[str, Any] = {"widths": 0.5, "medianprops": {"color": "black"}, "flierprops": {"ms": 2.5}}
            axes[0, 1].boxplot(list(by_site.values()), tick_labels=list(by_site), orientation="horizontal", **look)
            axes[0, 1].invert_yaxis()
            axes[0, 1].set(xlabel="Age (years)")


def draw_ages(ax: Axes, ages: pd.Series, sex: pd.Series | None) -> None:
    """Draw a histogram of ages, divided by sex if that is known."""
    edges = np.histogram_bin_edges(ages, bins=int(np.clip(np.sqrt(len(ages)), 5, 20)))
    groups = {"": ages} if sex is None else {f"sex {name} (n = {len(part)})": part for name, part in ages.groupby(sex)}
    ax.hist(list(groups.values()), bins=list(edges), stacked=True, label=list(groups))
    ax.set(xlabel="Age (years)", ylabel="Scans")
