"""What is wrong with a dataset: findings about its files, the rows of its table, its labels and its sites.

A finding has a level: an error spoils a scan or a result, a warning asks for a look, a note is good to know.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from mriflow.evaluation.site_baseline import SiteMetric
from mriflow.images.fingerprint import voxels_of
from mriflow.images.headers import WARNINGS
from mriflow.reporting.results import with_interval
from mriflow.tables.labels import TEXT_COLUMNS, usable
from mriflow.tables.problems import reasons_of

LEVELS = ("error", "warning", "note")  # the gravest first
OF_HEADER = "header."  # before the names of columns that are no label: no label has a dot in its name
FIELDS = ["bytes", "matrix", "spacing", "spacing_1", "spacing_2", "spacing_3", "orientation", "dtype"]
FIELDS += ["qform_code", "sform_code", "qform_sform_mm", "fault"]
HEADER = [f"{OF_HEADER}{name}" for name in FIELDS]
EXPECTED = ("no image", "left out by hand", "another of the session")  # reasons that are nobody's mistake
NAMED, SHOWN = 3, 10  # scans named with a finding; sites named in one
METRIC_NAMES = {"accuracy": "accuracy", "auc": "AUC", "r2": "R²", "mae": "MAE"}


@dataclass(frozen=True)
class Finding:
    """One thing to know of a dataset: how many scans it is about, and the first few."""

    level: str
    what: str
    scans: int
    first: str = ""


def about(level: str, what: str, ids: Sequence[str]) -> Finding:
    """Return a finding about the scans `ids`."""
    return Finding(level, what, len(ids), ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else ""))


def level_of_fault(fault: str) -> str:
    """Return how grave the fault of a header or file is."""
    return "warning" if fault.startswith(WARNINGS) else "error"


def by_reason(table: pd.DataFrame, column: str) -> dict[str, list[str]]:
    """Return the ids of the scans under each reason in a column of problems or notes."""
    ids = defaultdict(list)
    for scan, cell in zip(table["id"], table[column], strict=True):
        for reason in reasons_of(cell):
            ids[reason].append(scan)
    return dict(sorted(ids.items(), key=lambda item: -len(item[1])))


def findings_of_files(table: pd.DataFrame) -> Iterable[Finding]:
    """Return what is wrong with headers and files, which images are there twice, and in what the images differ."""
    for fault, scans in by_reason(table, "header.fault").items():
        yield about(level_of_fault(fault), fault, scans)
    images = table[table["fingerprint"] != ""]
    images = images.assign(voxels=images["fingerprint"].map(voxels_of))
    twins = images[images["voxels"].duplicated(keep=False)]
    several = twins.groupby("voxels")["subject"].transform("nunique") > 1
    for level, what, group in (
        ("error", "same image under several subjects: all but one of the names, and their labels, are wrong", twins[several]),
        ("warning", "same image twice of one subject", twins[~several]),
    ):
        if len(group):
            first = about(level, what, [equation(same) for _, same in group.groupby("voxels", sort=False)]).first
            yield Finding(level, what, len(group), first)
    kinds = {"orientations": "header.orientation", "voxel sizes": "header.spacing", "kinds of voxels": "header.dtype"}
    for name, column in kinds.items():
        sizes = table[column].value_counts()
        if len(sizes) > 1:
            others = table[table[column].notna() & (table[column] != sizes.index[0])]
            what = f"{len(sizes)} {name}: most are {sizes.index[0]} ({sizes.iloc[0]}), these are not"
            yield about("note", what, others["id"].tolist())


def equation(same: pd.DataFrame) -> str:
    """Return scans with the same voxels as text."""
    return " = ".join(same["id"]) + (" (headers differ)" if same["fingerprint"].nunique() > 1 else "")


def findings_of_rows(table: pd.DataFrame, targets: Mapping[str, Sequence[str]]) -> Iterable[Finding]:
    """Return what is wrong with the rows: of whole scans, and of the labels."""
    for field in ("problem", "notes"):
        for reason, scans in by_reason(table, field).items():
            column, _, what = reason.partition(": ")
            if what == "missing" or what.startswith("same image"):
                continue  # these are counted by column, or by image
            grave = not what.startswith(EXPECTED) if column == "scan" else field == "problem" or column in targets
            yield about("warning" if grave else "note", reason, scans)
    scans = table[usable(table) & (table["path"] != "")]
    for column in label_columns(table):
        missing = scans.loc[states(scans, column) == "missing", "id"].tolist()
        if missing:
            yield about("warning" if column in targets else "note", f"{column}: missing", missing)
    for column, classes in targets.items():
        others = scans[scans[column].notna() & ~scans[column].isin(classes)] if classes else scans[:0]
        if len(others):
            values = ", ".join(sorted(others[column].unique())[:NAMED])
            yield about("note", f"{column}: not one of the target's classes ({values})", others["id"].tolist())


def findings_of_sites(
    table: pd.DataFrame, targets: Mapping[str, Sequence[str]], alone: Mapping[str, Sequence[SiteMetric]]
) -> Iterable[Finding]:
    """Return targets that the site alone predicts, and where the sites' voxels differ."""
    for target, metrics in alone.items():
        if any(metric.beats_trivial for metric in metrics):
            values = ", ".join(f"{METRIC_NAMES[m.name]} {interval(m)} (without it {m.trivial:.3g})" for m in metrics)
            what = (
                f"site alone predicts {target}: {values}. A network can reach that by telling the scanners apart, and learn "
                "nothing of the brain: test it on whole sites left out (method: leave-site-out), and compare within sites."
            )
            yield Finding("warning", what, len(with_site(known_of(table, target, targets[target]))))
    sizes = ["header.spacing_1", "header.spacing_2", "header.spacing_3"]
    known = table[(table["site"] != "") & table[sizes].notna().all(axis=1)]
    if known["site"].nunique() > 1:
        # Sorted, so that the order of the axes makes no difference.
        usual = pd.Series([" x ".join(f"{mm:.2f}" for mm in sorted(row)) for row in known[sizes].to_numpy()], known.index)
        by_site = usual.groupby(known["site"]).agg(lambda values: values.mode()[0])
        if by_site.nunique() > 1:
            by_size = ", ".join(f"{site} {size} mm" for site, size in list(by_site.items())[:SHOWN])
            yield Finding("note", f"the usual voxel size differs by site: {by_size}", len(known))


def label_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns with the dataset's labels."""
    return [column for column in table if column not in (*TEXT_COLUMNS, *HEADER)]


def states(table: pd.DataFrame, column: str) -> pd.Series:
    """Return of every row whether a label is `known`, `missing`, `contradictory` or `refused` (out of range, unknown code)."""

    def state(*cells: str) -> str:
        reasons = {r.removeprefix(f"{column}: ") for c in cells for r in reasons_of(c) if r.startswith(f"{column}: ")}
        return "contradictory" if "contradictory" in reasons else "refused" if reasons - {"missing"} else "missing"

    empty = table[table[column].isna()]
    state_of = pd.Series("known", index=table.index)
    state_of[empty.index] = [state(*cells) for cells in zip(empty["problem"], empty["notes"], strict=True)]
    return state_of


def known_of(table: pd.DataFrame, target: str, classes: Sequence[str]) -> pd.DataFrame:
    """Return the scans that can be used for a target."""
    scans = table[usable(table, target) & (table["path"] != "")]
    return scans[scans[target].isin(classes)] if classes else scans


def with_site(scans: pd.DataFrame) -> pd.DataFrame:
    """Return the scans whose site is known."""
    return scans[scans["site"] != ""]


def interval(metric: SiteMetric) -> str:
    """Return a metric with its interval as text."""
    return with_interval({"value": metric.value, "low": metric.low, "high": metric.high})
