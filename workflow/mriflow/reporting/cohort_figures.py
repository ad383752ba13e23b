"""The figures of a dataset: some of its preprocessed scans, and who is in it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mriflow.base.errors import UserError
from mriflow.base.files import whole_file
from mriflow.reporting.canvas import DPI, ONE_COLUMN, TWO_COLUMNS, count, legend_above, page
from mriflow.tables.cohort import read_cohort
from mriflow.tables.labels import read_index
from mriflow.tables.problems import reasons_of

SHOWN = 8  # scans in a row


def scans(
    arrays: Sequence[Path], indices: Sequence[Path], pdf: Path, png: Path, *, channel: int = 0, simulated: bool = False
) -> None:
    """Draw eight preprocessed scans, from the worst to the best correlation with the template, evenly in between.

    `arrays` and `indices` are the shards that `preprocess` made, in the same order. Of several channels, `channel` is shown.
    """
    tables = [read_index(index).assign(array=array) for array, index in zip(arrays, indices, strict=True)]
    table = pd.concat(tables, ignore_index=True)
    good = table[table["index"].notna()].sort_values(["correlation", "id"], na_position="first")
    if good.empty:
        problems = table["problem"].dropna().map(lambda text: reasons_of(text)[0])
        common = f"; the commonest problem is {problems.mode()[0]!r}" if len(problems) else ""
        raise UserError(
            f"{', '.join(map(str, indices))}: none of {count(len(table), 'scan')} was preprocessed{common}. "
            "See the column `problem`, put it right, and run `python -m mriflow.preprocess` again."
        )
    picked = good.iloc[np.linspace(0, len(good) - 1, min(SHOWN, len(good))).round().astype(int)].to_dict("records")
    montages = [montage(volume(scan["array"], scan["index"], channel)) for scan in picked]
    image, middles = montages[0]
    height = 0.78 * image.shape[0] / image.shape[1] + 0.65
    footer = f"{len(picked)} of n = {len(good)} scans by rank of correlation (r)"
    footer += " · radiological: patient's right is left"
    with page(pdf, png, TWO_COLUMNS, height, footer, simulated, ncols=SHOWN) as (_, axes):
        first = axes[0, 0]
        for ax, scan, (image, _) in zip(axes[0], picked, montages, strict=False):
            ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            ax.set_xlabel(f"r = {scan['correlation']:.2f}\n{wrap(scan['id'])}", fontsize=6.5)
            ax.set_yticks(middles, ["axial", "coronal", "sagittal"], rotation=90, va="center")
            ax.tick_params(length=0, labelleft=ax is first)
            ax.set_xticks([])
            ax.spines[:].set_visible(False)
        look: dict[str, Any] = {"color": "white", "fontsize": 6, "va": "center"}
        look["transform"] = first.get_yaxis_transform()
        for row, sides in zip(middles, ("RL", "RL", "AP"), strict=True):
            first.text(0.03, row, sides[0], ha="left", **look)
            first.text(0.97, row, sides[1], ha="right", **look)
        for ax in axes[0, len(picked) :]:
            ax.axis("off")


def volume(array: str | Path, row: int, channel: int) -> np.ndarray:
    """Return a scan of a shard, shape (x, y, z): of several channels this one."""
    whole: np.ndarray = np.load(array, mmap_mode="r")[row]
    return whole[channel] if whole.ndim == 4 else whole


def montage(volume: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Return the middle axial, coronal and sagittal slice of a RAS volume one above the other, and their middle rows.

    Rows run from anterior or superior, columns from the patient's right (radiological) or from anterior.
    """
    x, y, z = (size // 2 for size in volume.shape)
    slices = [piece[::-1, ::-1].T for piece in (volume[:, :, z], volume[:, y], volume[x])]
    width = max(piece.shape[1] for piece in slices)
    padded = []
    for piece in slices:
        left = (width - piece.shape[1]) // 2
        padded.append(np.pad(piece, ((0, 0), (left, width - piece.shape[1] - left))))
    heights = np.array([len(piece) for piece in slices])
    return np.concatenate(padded), (np.cumsum(heights) - heights / 2).tolist()


def one_scan(volume: np.ndarray, title: str, png: Path) -> None:
    """Draw one preprocessed scan, shape (x, y, z), its patient's right on the left."""
    image = montage(volume)[0]
    figure = Figure(figsize=(2, 2 * image.shape[0] / image.shape[1] + 0.5), layout="constrained")
    ax = figure.add_subplot()
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_title(title, fontsize=6)
    ax.axis("off")
    with whole_file(png) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def wrap(scan_id: str, width: int = 13) -> str:
    """Break a long id where it has a hyphen or underscore, else anywhere."""
    lines = [""]
    for piece in re.findall(rf"[^-_]{{1,{width}}}[-_]?|[-_]", scan_id):
        if len(lines[-1] + piece) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
    return "\n".join(filter(None, lines))


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
