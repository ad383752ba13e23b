"""What a run cost: time and memory of its jobs by rule, from the benchmarks that Snakemake wrote."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from mriflow.reporting.parts import Part, Table, Text

OF_ALL = {"comparison", "report", "workflow-report", "archive"}  # jobs that belong to no experiment or dataset alone


def compute_used(benchmarks: Path, gpus: dict[str, int], names: Collection[str]) -> list[Part]:
    """Return a row for each rule: jobs, time of all of them and of the longest, CPU time, and the most memory of a job.

    Parameters
    ----------
    benchmarks
        Folder with a folder for each rule, and in it a .tsv for each job. A job that ran again counts as it ran last.
    gpus
        How many GPUs a training of each experiment took.
    names
        Experiments and datasets whose jobs are meant: in the same folder are those of all that was ever run there.
    """
    rows, hours = [], 0.0
    for folder in sorted(path for path in benchmarks.glob("*") if path.is_dir()):
        jobs = [(path.stem, pd.read_csv(path, sep="\t", na_values="-")) for path in sorted(folder.glob("*.tsv"))]
        jobs = [(stem, table) for stem, table in jobs if whose(stem, OF_ALL.union(names))]
        if not jobs:
            continue
        table = pd.concat([one for _, one in jobs])
        cells = [
            *(clock(one) for one in (table["s"].sum(), table["s"].max(), table["cpu_time"].sum())),
            memory(table["max_rss"].max()),
        ]
        rows.append([folder.name, str(len(jobs)), *cells])
        if folder.name.startswith("train"):
            seconds = [(gpus.get(whose(name, gpus), 0), float(one["s"].sum())) for name, one in jobs]
            hours += sum(cards * time for cards, time in seconds) / 3600
    if not rows:
        return []
    text = f"GPU hours of the trainings (cards asked for × time): {hours:.2f}." if hours else "No GPU was asked for."
    return [Table(["rule", "jobs", "time of all", "longest", "CPU time", "most memory"], rows), Text(text)]


def whose(job: str, names: Collection[str]) -> str:
    """Return which of some experiments and datasets a job is of, '' if of none; names of others may begin alike.

    >>> whose("my_age_fold-0_seed-1", ["my", "my_age"]), whose("age2_fold-0", ["age"])
    ('my_age', '')
    """
    return max((name for name in names if job == name or job.startswith(f"{name}_")), key=len, default="")


def clock(seconds: float) -> str:
    """Return a time as text.

    >>> clock(5.04), clock(75), clock(7260)
    ('5.0 s', '1 min 15 s', '2 h 1 min')
    """
    if pd.isna(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def memory(mb: float) -> str:
    """Return MB as text."""
    return "–" if pd.isna(mb) else f"{mb:.0f} MB" if mb < 1000 else f"{mb / 1000:.1f} GB"
