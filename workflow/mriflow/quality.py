"""Show how well the scans of a dataset were preprocessed: a web page, the same as CSV, and a figure as PDF and PNG.

A scan that failed is left out by a rule, and the page says which and why. One that passed but lies far from the others is kept
and named, to be looked at; to leave it out is a matter of judgement (`exclude` of the dataset).
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import zoom

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv, write_text
from mriflow.images.nifti import BadScan, load_scan
from mriflow.images.outliers import FAR, LEAST_SCANS, MEASURES, far_from_template, far_from_usual, usual
from mriflow.images.scan import BRAIN_ML, QC_CORRELATION, TEMPLATE_RATIO
from mriflow.reporting.canvas import COLOURS, GREY, TWO_COLUMNS, page
from mriflow.reporting.html import LISTED, PAGE, paragraph, section
from mriflow.reporting.scan_figures import SHOWN, montage, volume, wrap
from mriflow.tables.labels import read_index, read_labels
from mriflow.tables.problems import count_reasons

MAPS_TITLE = "Label maps to look at"
OTHER_TITLE = "Another image of the session is used, for the first failed"
FAR_TITLE = "Kept, but far from the others or the template"


def quality(
    labels: Path,
    arrays: Sequence[Path],
    indices: Sequence[Path],
    html_page: Path,
    csv: Path,
    pdf: Path,
    png: Path,
    *,
    registration: str = "affine",
    channel: int = 0,
    title: str = "",
    simulated: bool = False,
) -> pd.DataFrame:
    """Write how well the scans were preprocessed.

    Parameters
    ----------
    labels, arrays, indices
        The dataset's labels.csv and the shards that `preprocess` made, arrays and indices in the same order.
    html_page, csv, pdf, png
        The files to write.
    registration, channel, title, simulated
        How the scans were registered; which channel is shown, if there are several; of the dataset.

    Returns
    -------
    The table written to `csv`: one row per scan of the shards with its `problem` (left out), `notes` (another image used; what
    to look at in its label map), `far` (kept, but far from the others or the template: in what) and the quality measures, the
    lowest correlation first.
    """
    tables = [read_index(index).assign(array=str(array)) for array, index in zip(arrays, indices, strict=True)]
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise UserError(f"{', '.join(map(str, indices))}: no scans. `python -m mriflow.organize` says why none was found.")
    table[["problem", "notes"]] = table[["problem", "notes"]].fillna("")
    measures = table[list(MEASURES)].where(table["index"].notna())
    far = pd.concat([far_from_template(measures, registration), far_from_others(measures)], axis=1)
    table["far"] = ["; ".join(filter(None, texts)) for texts in far.to_numpy()]
    table = table.sort_values(["correlation", "id"], na_position="first", ignore_index=True)
    kept, failed, far = table[table["index"].notna()], table[table["problem"] != ""], table[table["far"] != ""]
    other, maps = (table[table["notes"].str.contains(of)] for of in ("session: ", "label_map: "))

    counts = [
        ("scans to preprocess", len(table)),
        ("left out by a rule", len(failed)),
        ("preprocessed", len(kept)),
        ("of these, far from the others or the template", len(far)),
    ]
    low, high = TEMPLATE_RATIO[registration]
    quantiles = kept[list(MEASURES)].quantile([0, 0.05, 0.5, 0.95, 1])
    numbers = [[name, *(f"{value:.4g}" for value in quantiles[key])] for key, name in MEASURES.items()]
    body = [
        paragraph("Simulated data: none of these is a real scan." if simulated else ""),
        section("", ["", "scans"], counts),
        section("Of the scans that were preprocessed", ["", "lowest", "5 %", "median", "95 %", "highest"], numbers),
        section("Why scans were left out", ["reason", "scans"], count_reasons(failed["problem"])) if len(failed) else "",
        section("Scans left out", ["id", "problem"], failed[["id", "problem"]].head(LISTED).to_numpy()) if len(failed) else "",
        section(OTHER_TITLE, ["id", "note"], other[["id", "notes"]].head(LISTED).to_numpy()) if len(other) else "",
        section(MAPS_TITLE, ["id", "note"], maps[["id", "notes"]].head(LISTED).to_numpy()) if len(maps) else "",
        section(FAR_TITLE, ["id", "in"], far[["id", "far"]].head(LISTED).to_numpy()) if len(far) else "",
        paragraph(
            f"A scan is left out if its correlation with the template is {QC_CORRELATION[registration]} or less (registration: "
            f"{registration}), its brain has less than {BRAIN_ML[0]} or more than {BRAIN_ML[1]} ml, or it cannot be read. Far "
            f"from the others: more than {FAR:g} robust standard deviations from the median ({LEAST_SCANS} scans are needed). "
            f"Far from the template: the brain has not {low:g} to {high:g} times the volume that template and scale let "
            "expect, so that its mask may be wrong. "
            "Look at these, and leave out by hand (`exclude` of the dataset) what is spoilt; old age and disease lie far from "
            f"the others, too. All measures stand in {csv.name}."
        ),
    ]
    write_text(PAGE.format(title=html.escape(f"Quality of preprocessing: {title}"), body="\n".join(body)), html_page)
    result = table[["id", "problem", "notes", "far", *MEASURES]]
    write_csv(result, csv)
    draw(table, labels, pdf, png, registration, channel, simulated)
    return result


def far_from_others(measures: pd.DataFrame) -> pd.Series:
    """Return in which measures each scan lies far from the others, as text; a high correlation is not far."""
    of_others = {str(name): usual(values) for name, values in measures.items()}
    return pd.Series([far_from_usual(row, of_others) for row in measures.to_dict("records")], index=measures.index, dtype=str)


def draw(table: pd.DataFrame, labels: Path, pdf: Path, png: Path, registration: str, channel: int, simulated: bool) -> None:
    """Draw the distribution of each measure, and under it the scans that were left out or are far from the others."""
    shown = table[(table["problem"] != "") | (table["far"] != "")].head(SHOWN).to_dict("records")
    kept, failed = table[table["index"].notna()], table[table["problem"] != ""]
    footer = f"n = {len(kept)} scans, {len(failed)} left out"
    footer += f" · pictures: {len(shown)} left out or far from the others, patient's right is left" if shown else ""
    paths = read_labels(labels).set_index("id")["path"]
    pictures = [picture(scan, labels.parent / paths.get(scan["id"], ""), channel) for scan in shown]
    height = 2.2 + (2.6 if shown else 0)
    with page(pdf, png, TWO_COLUMNS, height, footer, simulated) as (figure, axes):
        axes[0, 0].remove()
        rows: Any = figure.subfigures(2, 1, height_ratios=[2.2, 2.6]) if shown else [figure]
        for ax, (key, name) in zip(rows[0].subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
            everything = table[key].dropna()
            edges = np.histogram_bin_edges(everything, bins=int(np.clip(2 * np.sqrt(len(everything)), 10, 40))).tolist()
            colours = [COLOURS["network"], COLOURS["classical"]]
            ax.hist([kept[key].dropna(), failed[key].dropna()], bins=edges, stacked=True, color=colours)
            ax.set(xlabel=name[0].upper() + name[1:], ylabel="Scans" if key == "correlation" else "")
            if key == "correlation":
                ax.axvline(QC_CORRELATION[registration], color=GREY, ls="--", lw=0.8)
        for ax, scan, image in zip(rows[-1].subplots(1, SHOWN) if shown else [], shown, pictures, strict=False):
            ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            why = "left out" if scan["problem"] else "far"
            ax.set_xlabel(f"{why}\n{wrap(scan['id'])}", fontsize=6)
        for ax in rows[-1].axes if shown else []:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)


def picture(scan: dict[str, Any], path: Path, channel: int = 0) -> np.ndarray:
    """Return the middle slices of a scan as one image, as preprocessed or, if left out, as scanned; grey if unreadable."""
    if pd.notna(scan["index"]):
        return montage(volume(scan["array"], scan["index"], channel))[0]
    try:
        loaded = load_scan(path)
        sizes = np.linalg.norm(loaded.affine[:3, :3], axis=0)
        # Cubes of 3 mm or more, for the voxels may be none; at least 16 along each axis.
        shrink = np.clip(sizes / max(3, sizes.max()), 16 / np.array(loaded.data.shape), 1)
        data = zoom(loaded.data, shrink, order=1)
    except (BadScan, MemoryError):
        return np.full((120, 48), 128, np.uint8)
    low, high = np.percentile(data, (1, 99.5))
    return montage((255 * np.clip((data - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8))[0]


def main(argv: list[str] | None = None) -> None:
    """Read the command line and show the quality."""
    parser = stage_parser(__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="labels.csv of the dataset")
    parser.add_argument("--arrays", type=Path, nargs="+", required=True, help="shards of the dataset, .npy")
    parser.add_argument("--indices", type=Path, nargs="+", required=True, help="their indices, .csv, in that order")
    parser.add_argument("--page", dest="html_page", type=Path, required=True, help="web page to write, .html")
    parser.add_argument("--csv", type=Path, required=True, help="table of all scans to write, .csv")
    parser.add_argument("--pdf", type=Path, required=True, help="figure to write, for a paper")
    parser.add_argument("--png", type=Path, required=True, help="the same figure to write, for the report")
    parser.add_argument("--registration", choices=list(QC_CORRELATION), default="affine", help="(default: affine)")
    parser.add_argument("--channel", type=int, default=0, help="which is shown, if there are several, from 0 (default: 0)")
    parser.add_argument("--title", default="", help="of the dataset")
    parser.add_argument("--simulated", action="store_true", help="say that the scans are simulated")
    quality(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
