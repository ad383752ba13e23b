"""Show how far a run is: what is done, running, failed and waiting, and how each training goes.

Give it the config files that the run was given, and other arguments to Snakemake if they choose what is made:

  mriflow status
  mriflow status --configfile config/experiments/ixi-age.yaml

It only looks, while Snakemake runs or after it ended, on a cluster too. Exit code: 0 if all is done, 3 if something runs or
waits, 1 if something failed or was interrupted.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mriflow.base.cli import run_stage, stage_parser
from mriflow.reporting.run_state import Job, jobs_of_run

STATES = ("done", "running", "failed", "interrupted", "waiting")
BAR = re.compile(r"(?P<epoch>\d+)/\d+ \[[^<]*<(?P<left>[^,]+), +(?P<rate>[\d.]+)(?P<unit>s/epoch|epoch/s)")  # tqdm's
EPOCHS = re.compile(r'"epochs": (\d+)')
LINES = 5  # of a failed job's log
WIDTH = 80
UNDER_WAY = 3


def status(folder: Path, arguments: Sequence[str]) -> tuple[str, int]:
    """Return in words how far a run in a folder is, and the exit code that says the same.

    Raises
    ------
    UserError
        If Snakemake cannot plan the run.
    """
    jobs = jobs_of_run(folder, arguments)
    lines = by_rule(jobs)
    trainings = [job for job in jobs if job.rule.startswith("train") and job.state != "done" and (work(folder, job)).is_dir()]
    if trainings:
        lines += ["", "trainings under way", *line_up([TRAINING, *(training_line(folder, job) for job in trainings)])]
    lines += [line for job in jobs if job.state in ("failed", "interrupted") for line in what_happened(folder, job)]
    lines += warnings_of(folder, jobs)
    states = {job.state for job in jobs}
    code = 1 if states & {"failed", "interrupted"} else UNDER_WAY if states - {"done"} else 0
    return "\n".join([*lines, "", verdict(jobs)]), code


def by_rule(jobs: Sequence[Job]) -> list[str]:
    """Return a table of rules and how many of their jobs are in which state."""
    counts: dict[str, Counter[str]] = {}
    for job in jobs:
        counts.setdefault(job.rule, Counter())[job.state] += 1
    shown = [state for state in STATES if any(count[state] for count in counts.values())]
    return line_up([("rule", *shown), *((rule, *(str(count[s] or "") for s in shown)) for rule, count in counts.items())])


TRAINING = ("folder", "epoch", "train", "val", "lowest", "s/epoch", "left")


def training_line(folder: Path, job: Job) -> tuple[str, ...]:
    """Return a training's folder, epoch, losses, lowest validation loss and its epoch, speed, and time left or state."""
    name = "/".join(job.outputs[0].parent.parts[-2:])
    epochs = (EPOCHS.search(job.command) or {1: "?"})[1]
    try:
        history = pd.read_csv(work(folder, job) / "history.csv")
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return (name, f"0/{epochs}", "", "", "", "", job.state)
    last, loss = history.iloc[-1], "val_loss" if "val_loss" in history else "unchanged_loss"
    lowest = history.loc[history[loss].idxmin()] if history[loss].notna().any() else last
    speed, left = pace(tail(folder / job.log) if job.log else "")
    return (
        name,
        f"{last['epoch']:.0f}/{epochs}",
        f"{last['train_loss']:.3g}",
        f"{last['val_loss']:.3g}" if "val_loss" in history else "-",
        f"{lowest[loss]:.3g} ({lowest['epoch']:.0f})",
        speed,
        left if job.state == "running" else job.state,
    )


def pace(log: str) -> tuple[str, str]:
    """Return seconds an epoch and the time left, as the last progress bar in a log shows them.

    >>> pace("train: 10%|#   | 2/20 [00:10<01:30,  5.00s/epoch, train_loss=0.2]")
    ('5.0', '01:30')
    """
    bars = list(BAR.finditer(log))
    if not bars or not float(bars[-1]["rate"]):
        return "", ""
    rate = float(bars[-1]["rate"])
    return f"{rate if bars[-1]['unit'] == 's/epoch' else 1 / rate:.1f}", bars[-1]["left"]


def what_happened(folder: Path, job: Job) -> list[str]:
    """Return what is to be said of a job that did not end well: which, where its log is, and the log's last lines."""
    lines = ["", f"{job.state}: {job.rule}, which makes {job.outputs[0]}"]
    if job.state == "interrupted":
        return [*lines, "  Its Snakemake is gone. `snakemake --unlock`, and the same command again, which goes on."]
    said = tail(folder / job.log).replace("\r", "\n").strip().splitlines()[-LINES:] if job.log else []
    return [*lines, f"  {job.log}:", *(f"  | {line[: WIDTH - 4]}" for line in said or ["(empty)"])]


def warnings_of(folder: Path, jobs: Sequence[Job]) -> list[str]:
    """Return what is wrong with the trainings that ended, each kind once, with how often."""
    found: Counter[str] = Counter()
    for path in (path for job in jobs if job.state == "done" for path in job.outputs if path.name == "warnings.json"):
        found.update(f"{path.parts[-3]}: {one['kind']}" for one in json.loads((folder / path).read_text()))
    return (
        ["", "trainings that are not to be trusted", *(f"  {text} ({count} of them)" for text, count in found.items())]
        if found
        else []
    )


def verdict(jobs: Sequence[Job]) -> str:
    """Return the last line: how much is done."""
    counts = Counter(job.state for job in jobs)
    listed = ", ".join(f"{counts[state]} {state}" for state in STATES[1:] if counts[state])
    return f"{counts['done']} of {len(jobs)} jobs done" + (f"; {listed}" if listed else "")


def work(folder: Path, job: Job) -> Path:
    """Return the folder of a training's checkpoint and growing history."""
    return folder / job.outputs[0].parent / "work"


def tail(log: Path) -> str:
    """Return the end of a log, or nothing if there is none."""
    return log.read_text(errors="replace")[-20_000:] if log.exists() else ""


def line_up(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of cells as lines of at most 80 columns: the first cell to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * len(widths[1:]))
    return [
        "  ".join([first[-widths[0] :].ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip() for first, *rest in rows
    ]


def main(argv: list[str] | None = None) -> None:
    """Read the command line and print how far the run is."""
    parser = stage_parser(__doc__)
    parser.add_argument("--directory", type=Path, default=Path(), help="folder of the run (default: this one)")
    parser.add_argument("--configfile", type=Path, nargs="+", default=[], help="the run's config files")
    given, others = parser.parse_known_args(argv)
    overlays = ["--configfile", *map(str, given.configfile)] if given.configfile else []
    text, code = status(given.directory, [*others, *overlays])
    print(text)
    sys.exit(code)


if __name__ == "__main__":
    run_stage(main)
