"""The figures that show preprocessed scans: some of a dataset, and those that a network is most wrong about."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mriflow.base.errors import UserError
from mriflow.base.files import whole_file
from mriflow.reporting.canvas import DPI, TWO_COLUMNS, count, page
from mriflow.reporting.result_figures import read_made
from mriflow.reporting.results import not_as_made, read_metrics
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
    texts = [f"r = {scan['correlation']:.2f}\n{wrap(scan['id'])}" for scan in picked]
    footer = f"{len(picked)} of n = {len(good)} scans by rank of correlation (r)"
    draw_row([volume(scan["array"], scan["index"], channel) for scan in picked], texts, footer, pdf, png, simulated)


def failures(
    worst: Path, metrics: Path, arrays: Sequence[Path], indices: Sequence[Path], pdf: Path, png: Path, *, channel: int = 0
) -> None:
    """Draw the eight test scans that the network is most wrong about, the worst first."""
    result = read_metrics(metrics)
    text = ["id"] if result["type"] == "regression" else ["id", "truth", "network"]
    table = read_made(worst, ["id", "truth", "network", "correlation"], "evaluate", text=text)[:SHOWN]
    tables = [read_index(index).assign(array=array) for array, index in zip(arrays, indices, strict=True)]
    places = pd.concat(tables).set_index("id")
    if missing := [name for name in table["id"] if name not in places.index]:
        raise not_as_made(worst, f"{missing[0]} is in no shard", "evaluate")
    picked = [places.loc[name] for name in table["id"]]
    texts = []
    for row in table.to_dict("records"):
        said = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in (row["truth"], row["network"])]
        texts.append(f"true {said[0]}\npredicted {said[1]}\nr = {row['correlation']:.2f}\n{wrap(row['id'])}")
    footer = f"{len(picked)} worst of n = {result['n']} test scans"
    volumes = [volume(place["array"], int(place["index"]), channel) for place in picked]
    draw_row(volumes, texts, footer, pdf, png, result["simulated"])


def draw_row(volumes: Sequence[np.ndarray], texts: Sequence[str], footer: str, pdf: Path, png: Path, simulated: bool) -> None:
    """Draw the montages of up to `SHOWN` scans beside each other, a text below each."""
    montages = [montage(one) for one in volumes]
    image, middles = montages[0]
    height = 0.78 * image.shape[0] / image.shape[1] + 0.33 + 0.11 * max(text.count("\n") + 1 for text in texts)
    footer += " · radiological: patient's right is left"
    with page(pdf, png, TWO_COLUMNS, height, footer, simulated, ncols=SHOWN) as (_, axes):
        first = axes[0, 0]
        for ax, text, (image, _) in zip(axes[0], texts, montages, strict=False):
            ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            ax.set_xlabel(text, fontsize=6.5)
            ax.set_yticks(middles, ["axial", "coronal", "sagittal"], rotation=90, va="center")
            ax.tick_params(length=0, labelleft=ax is first)
            ax.set_xticks([])
            ax.spines[:].set_visible(False)
        look: dict[str, Any] = {"color": "white", "fontsize": 6, "va": "center"}
        look["transform"] = first.get_yaxis_transform()
        for row, sides in zip(middles, ("RL", "RL", "AP"), strict=True):
            first.text(0.03, row, sides[0], ha="left", **look)
            first.text(0.97, row, sides[1], ha="right", **look)
        for ax in axes[0, len(montages) :]:
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
