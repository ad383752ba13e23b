"""Who came from the table to the test: counts with the reasons, and their drawing."""

import textwrap
from collections import Counter
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from mriflow.reporting.html import Markup
from mriflow.tables.cohort import count_subjects, read_cohort
from mriflow.tables.labels import usable
from mriflow.tables.problems import reasons_of

WIDTH, BOX, SIDE, LINE = 380, 158, 197, 13  # of the drawing, in its own units
LETTERS = 32  # in a line of the reasons
MOST = 8  # reasons at a step


class Step(NamedTuple):
    """What is left after a step, and why the others are not: each scan counts under one reason, so that the counts add up."""

    name: str
    scans: int
    subjects: int
    reasons: list[tuple[str, int]]


def steps_of(
    labels: Path, indices: Sequence[Path], column: str, classes: Collection[str], tested: Collection[str]
) -> list[Step]:
    """Return the steps from all rows that are known to the scans that were tested.

    Parameters
    ----------
    labels, indices
        The dataset's labels.csv, and the indices of its shards.
    column, classes
        What is predicted and, of a classification, its classes.
    tested
        The ids of the scans with a prediction; none if there is no result.
    """
    table, is_usable = read_cohort(labels, indices, [column] if classes else [])
    known = table.get(column, pd.Series("", table.index))
    labelled = usable(table, column) & known.notna()
    if classes:
        labelled &= known.astype(str).isin(list(classes))
    masks = {"with an image": table["path"] != "", "usable after preprocessing" if indices else "usable": is_usable}
    masks[f"{column} known"] = labelled
    if tested:
        masks["tested"] = table["id"].isin(list(tested))
    left = pd.Series(True, table.index)
    steps = [Step("rows and scans known", len(table), count_subjects(table), [])]
    for name, mask in masks.items():
        kept = left & mask
        missing = table.loc[left & ~mask, "problem"]
        fallback = {"tested": "in no test part", f"{column} known": f"{column}: not known"}.get(name, "no image")
        about = column if name == f"{column} known" else "scan" if name != "tested" else None
        counts = Counter(reason_for(problem, about, fallback) for problem in missing)
        left = kept
        part = table[kept]
        steps.append(Step(name, len(part), count_subjects(part), sorted(counts.items(), key=lambda one: (-one[1], one[0]))))
    return steps


def reason_for(problem: str, about: str | None, fallback: str) -> str:
    """Return the first reason in a cell that is about a column, or the `fallback`."""
    reasons = [reason for reason in reasons_of(problem) if about and reason.startswith(f"{about}:")]
    return reasons[0].removeprefix("scan: ") if reasons else fallback


def drawing_of(steps: Sequence[Step]) -> Markup:
    """Return the steps as SVG: boxes below each other and, between them, who left and why."""
    parts, y = [], 4.0
    for number, step in enumerate(steps):
        if number:
            texts = [f"{count} left out: {reason}" for reason, count in step.reasons[:MOST]]
            more = sum(count for _, count in step.reasons[MOST:])
            texts += [f"{more} left out for other reasons"] if more else []
            lines = [line for text in texts for line in textwrap.wrap(text, LETTERS, subsequent_indent="   ")]
            height = max(18, len(lines) * LINE + (10 if lines else 0))
            middle = BOX / 2
            end = y + height + 3
            parts.append(f'<path d="M{middle} {y} V{end - 7}" stroke="#666"/>')
            parts.append(f'<path d="M{middle} {end} l-4 -8 h8 z" fill="#666"/>')
            if lines:
                centre = y + height / 2 - 2
                parts.append(f'<path d="M{middle} {centre} H{WIDTH - SIDE - 4}" stroke="#666"/>')
                top = centre - len(lines) * LINE / 2
                parts += [
                    f'<text x="{WIDTH - SIDE}" y="{top + LINE * (i + 0.8):.1f}" font-size="11.5">{escape(line)}</text>'
                    for i, line in enumerate(lines)
                ]
            y += height + 4
        parts.append(f'<rect x="1" y="{y}" width="{BOX}" height="42" rx="4" fill="#eef3f8" stroke="#666"/>')
        people = f"{step.scans} scans, {step.subjects} people"
        for text, down, size in ((step.name, 17, 12), (people, 33, 11.5)):
            parts.append(f'<text x="{BOX / 2}" y="{y + down}" font-size="{size}" text-anchor="middle">{escape(text)}</text>')
        y += 42
    words = "; ".join(f"{step.name}: {step.scans} scans of {step.subjects} people" for step in steps)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {y + 4:.0f}" role="img" aria-label="{escape(words)}" fill="#222" '
        f'font-family="sans-serif">{"".join(parts)}</svg>'
    )
