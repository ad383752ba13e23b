"""Check a dataset before hours are spent on it: every header and every row of labels.csv, and what is wrong with them.

python -m mriflow.check --dataset ixi [--configfile overlay.yaml]

Findings have a level: an error spoils a scan or a result, a warning asks for a look, a note is good to know. The voxels are
not read: what only shows in the image itself is found when it is preprocessed.
"""

import functools
import html
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mriflow.cli import run_stage, stage_parser
from mriflow.config import merge, read_yaml, resolve
from mriflow.config_errors import instead
from mriflow.errors import UserError
from mriflow.files import write_csv, write_text
from mriflow.headers import read_headers
from mriflow.images import NIFTI
from mriflow.labels import TEXT_COLUMNS, read_labels, reasons_of, usable
from mriflow.site_alone import Figure, site_alone
from mriflow.tell import PAGE, Markup, count_reasons, count_subjects, paragraph, section, with_interval

LEVELS = {"error": "#b00020", "warning": "#a05a00", "note": "#555"}  # and their colours, the gravest first
HEADER = ["bytes", "matrix", "spacing", "spacing_1", "spacing_2", "spacing_3", "orientation", "dtype"]
HEADER += ["qform_code", "sform_code", "qform_sform_mm", "fault"]
WARNINGS = ("qform", "orientation is not told", "pixdim", "implausible field")  # faults that do not make a file unusable
EXPECTED = ("no image", "left out by hand", "another of the session")  # reasons that are nobody's mistake
NAMED, SHOWN = 3, 10  # scans named with a finding; rows of a table of groups
FIGURES = {"accuracy": "accuracy", "auc": "AUC", "r2": "R²", "mae": "MAE"}
NOT_KNOWN = "not known"


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


class Part(NamedTuple):
    """A table of the page."""

    title: str
    names: Sequence[str]
    rows: Sequence[Sequence[object]]
    remark: str = ""


def check(
    labels: Path,
    *,
    targets: Mapping[str, Sequence[str]],
    title: str = "",
    simulated: bool = False,
    page: Path | None = None,
    csv: Path | None = None,
    threads: int = 8,
) -> list[Finding]:
    """Print what is wrong with a dataset, and write it as a web page, and every scan's header as CSV.

    Parameters
    ----------
    labels
        The dataset's labels.csv.
    targets
        Columns of `labels` that are to be predicted and, of a classification, their classes.
    title, simulated
        Of the dataset.
    page, csv
        The files to write.
    threads
        Headers to read at once.

    Returns
    -------
    The findings, the gravest first.
    """
    if not labels.is_file():
        raise UserError(f"{labels}: no such file. `python -m mriflow.organize` makes it.")
    table = read_labels(labels, [column for column, classes in targets.items() if classes])
    for column, classes in targets.items():
        if column not in table:
            usable(table, column)  # says what there is
        if classes:
            continue
        numbers = pd.to_numeric(table[column], errors="coerce")
        for row in table.index[table[column].notna() & numbers.isna()]:
            problem = f"{column}: not a number ({table.loc[row, column]!r})"
            table.loc[row, "problem"] = "; ".join(filter(None, (table.loc[row, "problem"], problem)))
        table[column] = numbers
    readable = table["path"].str.endswith(NIFTI) & ~table["problem"].str.contains("scan: no file", regex=False)
    headers = read_headers([labels.parent / path for path in table.loc[readable, "path"]], threads)
    headers = headers.set_index(table.index[readable]).reindex(index=table.index, columns=HEADER)
    whole_numbers = dict.fromkeys(["bytes", "qform_code", "sform_code"], "Int64")
    table = table.join(headers.astype(whole_numbers).assign(fault=headers["fault"].fillna("")))

    alone = {name: site_alone(with_site(known_of(table, name, classes)), name, classes) for name, classes in targets.items()}
    findings = [*findings_of_files(table), *findings_of_rows(table, targets), *findings_of_sites(table, targets, alone)]
    findings.sort(key=lambda finding: list(LEVELS).index(finding.level))
    parts = [
        counts_of(table, readable),
        Part(
            "Findings",
            ["", "scans", "what", "first"],
            [(f.level, f.scans, f.what, f.first) for f in findings],
            "" if findings else "Nothing was found.",
        ),
        Part("Why scans are left out", ["reason", "scans or rows"], count_reasons(table["problem"])),
        *parts_of_images(table[table["matrix"].notna()]),
        part_of_labels(table),
        *parts_of_sites(table, targets, alone),
    ]
    print(as_text(title, parts))
    if page:
        write_text(as_page(title, parts, simulated), page)
    if csv:
        columns = ["id", "subject", "session", "site", "path", *HEADER, "problem", "notes"]
        write_csv(table[columns], csv)
    return findings


def counts_of(table: pd.DataFrame, readable: pd.Series) -> Part:
    """Return how many scans and people there are at each step."""
    whole = readable & ~table["fault"].map(lambda fault: any(level_of_fault(r) == "error" for r in reasons_of(fault)))
    steps = {
        "scans and rows known": table,
        "with an image": table[table["path"] != ""],
        "with a header and a file that fit": table[whole],
        "of these without a problem that rules them out": table[whole & usable(table)],
    }
    return Part("Counts", ["", "scans", "subjects"], [(s, len(part), count_subjects(part)) for s, part in steps.items()])


def level_of_fault(fault: str) -> str:
    """Return how grave the fault of a header or file is."""
    if fault.startswith("file is longer"):
        return "note"
    return "warning" if fault.startswith(WARNINGS) else "error"


def by_reason(table: pd.DataFrame, column: str) -> dict[str, list[str]]:
    """Return the ids of the scans under each reason in a column of problems or notes."""
    ids = defaultdict(list)
    for scan, cell in zip(table["id"], table[column], strict=True):
        for reason in reasons_of(cell):
            ids[reason].append(scan)
    return dict(sorted(ids.items(), key=lambda item: -len(item[1])))


def findings_of_files(table: pd.DataFrame) -> Iterable[Finding]:
    """Tell what is wrong with headers and files, which images are there twice, and in what the images differ."""
    for fault, scans in by_reason(table, "fault").items():
        yield about(level_of_fault(fault), fault, scans)
    images = table[table["fingerprint"] != ""]
    twins = images[images["fingerprint"].duplicated(keep=False)]
    several = twins.groupby("fingerprint")["subject"].transform("nunique") > 1
    for level, what, group in (
        ("error", "same image under several subjects: all but one of the names, and their labels, are wrong", twins[several]),
        ("warning", "same image twice of one subject", twins[~several]),
    ):
        if len(group):
            first = about(level, what, [" = ".join(ids) for _, ids in group.groupby("fingerprint", sort=False)["id"]]).first
            yield Finding(level, what, len(group), first)
    for name, column in (("orientations", "orientation"), ("voxel sizes", "spacing"), ("kinds of voxels", "dtype")):
        sizes = table[column].value_counts()
        if len(sizes) > 1:
            others = table[table[column].notna() & (table[column] != sizes.index[0])]
            what = f"{len(sizes)} {name}: most are {sizes.index[0]} ({sizes.iloc[0]}), these are not"
            yield about("note", what, others["id"].tolist())


def findings_of_rows(table: pd.DataFrame, targets: Mapping[str, Sequence[str]]) -> Iterable[Finding]:
    """Tell what is wrong with the rows: of whole scans, and of the labels."""
    told = {field: by_reason(table, field) for field in ("problem", "notes")}
    for field, reasons in told.items():
        for reason, scans in reasons.items():
            column, _, what = reason.partition(": ")
            if what == "missing" or what.startswith("same image"):
                continue  # these are told by column, or by image
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
    table: pd.DataFrame, targets: Mapping[str, Sequence[str]], alone: Mapping[str, Sequence[Figure]]
) -> Iterable[Finding]:
    """Warn of targets that the site alone predicts, and tell where the sites' voxels differ."""
    for target, figures in alone.items():
        if any(figure.beats_trivial for figure in figures):
            told = ", ".join(f"{FIGURES[f.name]} {interval(f)} (without it {f.trivial:.3g})" for f in figures)
            what = (
                f"site alone predicts {target}: {told}. A network can reach that by telling the scanners apart, and learn "
                "nothing of the brain: test it on whole sites left out (method: leave-site-out), and compare within sites."
            )
            yield Finding("warning", what, len(with_site(known_of(table, target, targets[target]))))
    sizes = ["spacing_1", "spacing_2", "spacing_3"]
    known = table[(table["site"] != "") & table[sizes].notna().all(axis=1)]
    if known["site"].nunique() > 1:
        # Sorted, so that the order of the axes makes no difference.
        usual = pd.Series([" x ".join(f"{mm:.2f}" for mm in sorted(row)) for row in known[sizes].to_numpy()], known.index)
        by_site = usual.groupby(known["site"]).agg(lambda values: values.mode()[0])
        if by_site.nunique() > 1:
            told = ", ".join(f"{site} {size} mm" for site, size in list(by_site.items())[:SHOWN])
            yield Finding("note", f"the usual voxel size differs by site: {told}", len(known))


def label_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns with the dataset's labels."""
    return [column for column in table if column not in (*TEXT_COLUMNS, *HEADER)]


def states(table: pd.DataFrame, column: str) -> pd.Series:
    """Return of every row whether a label is `known`, `missing`, `contradictory` or `refused` (out of range, unknown code)."""

    def state(*cells: str) -> str:
        reasons = {r.removeprefix(f"{column}: ") for c in cells for r in reasons_of(c) if r.startswith(f"{column}: ")}
        return "contradictory" if "contradictory" in reasons else "refused" if reasons - {"missing"} else "missing"

    empty = table[table[column].isna()]
    found = pd.Series("known", index=table.index)
    found[empty.index] = [state(*cells) for cells in zip(empty["problem"], empty["notes"], strict=True)]
    return found


def known_of(table: pd.DataFrame, target: str, classes: Sequence[str]) -> pd.DataFrame:
    """Return the scans that can be used for a target."""
    scans = table[usable(table, target) & (table["path"] != "")]
    return scans[scans[target].isin(classes)] if classes else scans


def with_site(scans: pd.DataFrame) -> pd.DataFrame:
    """Return the scans whose site is known."""
    return scans[scans["site"] != ""]


def parts_of_images(images: pd.DataFrame) -> list[Part]:
    """Return what the headers say, in groups."""
    if images.empty:
        return []
    sizes = images[["spacing_1", "spacing_2", "spacing_3"]]
    rows = [
        (name.removeprefix("spacing_"), *(f"{value:.4g}" for value in (column.median(), column.min(), column.max())))
        for name, column in sizes.items()
    ]
    codes = "qform " + images["qform_code"].astype(str) + ", sform " + images["sform_code"].astype(str)
    apart = images["qform_sform_mm"].dropna()
    said = "0 unknown, 1 scanner, 2 aligned, 3 Talairach, 4 MNI."
    said += f" Where both are set they place a corner at most {apart.max():.3g} mm apart." if len(apart) else ""
    return [
        grouped("Orientation", images["orientation"], images["site"], "Where the three axes of the file lead to."),
        Part("Voxel size along the axes of the file (mm)", ["axis", "median", "smallest", "largest"], rows),
        grouped("Voxel sizes (mm)", images["spacing"], images["site"]),
        grouped("Matrix", images["matrix"], images["site"]),
        grouped("Voxels stored as", images["dtype"], images["site"]),
        grouped("qform and sform codes", codes, images["site"], said),
    ]


def grouped(title: str, values: pd.Series, sites: pd.Series, remark: str = "") -> Part:
    """Return how many scans, and of which sites, have each value."""
    rows = []
    for value, count in values.value_counts().head(SHOWN).items():
        here = sites[values == value].replace("", NOT_KNOWN).value_counts()
        more = [f"{len(here) - 6} more"] if len(here) > 6 else []
        rows.append((value, count, ", ".join([f"{site} {n}" for site, n in here.head(6).items()] + more)))
    others = values.nunique() - len(rows)
    return Part(title, ["", "scans", "of site"], rows, " ".join(filter(None, (f"… and {others} more." * (others > 0), remark))))


def part_of_labels(table: pd.DataFrame) -> Part:
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
    return Part("Labels", ["column", "known", "missing", "contradictory", "refused", "values"], rows, remark)


def parts_of_sites(
    table: pd.DataFrame, targets: Mapping[str, Sequence[str]], alone: Mapping[str, Sequence[Figure]]
) -> Iterable[Part]:
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
        yield Part(f"{target} by site", names, rows)
        if alone[target]:
            lines = [(FIGURES[f.name], interval(f), f"{f.trivial:.3g}") for f in alone[target]]
            yield Part(
                f"{target} guessed from the site alone",
                ["", "the site's", "without the site"],
                lines,
                "The mean or the commonest class of a site's other subjects, cross-validated by subject; in brackets the 95 % "
                "confidence interval (bootstrap over subjects).",
            )
        else:
            yield Part(
                f"{target} guessed from the site alone",
                [],
                [],
                "Not asked: that takes two sites, ten subjects, and values that differ.",
            )


def interval(figure: Figure) -> str:
    """Return a figure with its interval as text."""
    return with_interval({"value": figure.value, "low": figure.low, "high": figure.high})


def as_page(title: str, parts: Sequence[Part], simulated: bool) -> str:
    """Return the page."""
    body = [
        paragraph("Simulated data: none of these is a real scan." if simulated else ""),
        paragraph(
            "Every header and every row of labels.csv was read, not the voxels: what only shows in an image itself is found "
            "when it is preprocessed."
        ),
    ]
    for part in parts:
        rows = [list(row) for row in part.rows]
        for row in rows:
            if part.title == "Findings":
                row[0] = Markup(f'<span style="color: {LEVELS[str(row[0])]}; font-weight: bold">{row[0]}</span>')
        if rows:
            body.append(section(part.title, part.names, rows))
        elif part.remark:
            body.append(f"<h2>{html.escape(part.title)}</h2>")
        body.append(paragraph(part.remark))
    name = f"Check of {title}" if title else "Check"
    return PAGE.format(title=html.escape(name), body="\n".join(filter(None, body)))


def as_text(title: str, parts: Sequence[Part]) -> str:
    """Return the same for a terminal."""
    lines = [f"Check of {title}"] if title else []
    for part in parts:
        if not part.rows and not part.remark:
            continue
        lines += ["", part.title]
        cells = [[str(cell) for cell in row] for row in [part.names, *part.rows]] if part.rows else []
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        lines += [f"  {part.remark}"] if part.remark else []
    return "\n".join(lines)


def of_dataset(name: str, overlays: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Return what `check` has to know of a dataset by its name: labels, targets, title, simulated.

    Parameters
    ----------
    overlays
        Config files as they are given to Snakemake. If the dataset is in none of their experiments, all files of
        config/experiments/ that use it are taken.
    folder
        That of the Snakefile.

    Raises
    ------
    UserError
        If there is no such dataset, nothing uses it, or its labels.csv is not made yet.
    """
    base = folder / "config" / "config.yaml"
    for file in (base, *overlays):
        if not file.is_file():
            raise UserError(f"{file}: no such config file. Run this in the folder of the Snakefile.")
    config = functools.reduce(merge, map(read_yaml, (base, *overlays)))
    known = {path.stem for path in (folder / "config" / "datasets").glob("*.yaml")} | set(config.get("datasets") or {})
    ours: list[Path] = []
    if not experiments_of(config, name):
        files = sorted((folder / "config" / "experiments").glob("*.yaml"))
        ours = [file for file in files if experiments_of(read_yaml(file), name)]
        config = functools.reduce(merge, map(read_yaml, ours), config)
    run = experiments_of(config, name)
    if not run:
        if name not in known:
            raise UserError(f"--dataset: there is no dataset {name!r}{instead(name, known)}")
        raise UserError(f"--dataset: no experiment uses {name!r}. Write one, as in config/experiments/my-data.yaml.")
    asked = config["run"]
    config = resolve({**config, "run": run}, [base, *overlays, *ours], folder)
    labels = Path(config["pathvars"]["data"]) / name / "labels.csv"
    if not labels.is_file():
        command, given = f"snakemake --cores 1 {labels}", [*overlays, *ours[:1]]
        command += f" --configfile {' '.join(map(str, given))}" if given else ""
        command += "" if set(run) & set(asked) else f" --config 'run=[{run[0]}]'"
        raise UserError(f"{labels}: not made yet. Make it first, with: {command}")
    used = [config["targets"][experiment["target"]] for experiment in config["experiments"].values()]
    described = config["datasets"][name]
    return {
        "labels": labels,
        "targets": {target["column"]: list(target.get("classes", [])) for target in used},
        "title": described["title"],
        "simulated": "simulate" in described,
    }


def experiments_of(config: Mapping[str, Any], dataset: str) -> list[str]:
    """Return the names of the experiments on a dataset."""
    blocks = config.get("experiments") or {}
    return [name for name, block in blocks.items() if isinstance(block, dict) and block.get("dataset") == dataset]


def main(argv: list[str] | None = None) -> None:
    """Read the command line and check a dataset."""
    parser = stage_parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--dataset", help="name of a dataset of the config")
    which.add_argument("--labels", type=Path, help="or its labels.csv")
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="overlays, as for snakemake, with --dataset")
    parser.add_argument("--targets", type=json.loads, default={}, help="with --labels: columns and their classes, as JSON")
    parser.add_argument("--title", default="", help="with --labels: name of the dataset")
    parser.add_argument("--simulated", action="store_true", help="with --labels: say that the scans are simulated")
    parser.add_argument("--page", type=Path, help="web page to write, .html")
    parser.add_argument("--csv", type=Path, help="what every scan's header says, to write, .csv")
    parser.add_argument("--threads", type=int, default=8, help="headers to read at once (default: 8)")
    arguments = vars(parser.parse_args(argv))
    dataset, overlays = arguments.pop("dataset"), arguments.pop("configfile")
    check(**arguments | (of_dataset(dataset, overlays, Path()) if dataset else {}))


if __name__ == "__main__":
    run_stage(main)
