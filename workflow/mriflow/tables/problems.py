"""The grammar of the column `problem`."""

import re
from collections import Counter
from collections.abc import Iterable


def append_problem(text: str, problem: str) -> str:
    """Append a problem to those already told."""
    return "; ".join(filter(None, (text, problem)))


def count_reasons(cells: Iterable[str]) -> list[tuple[str, int]]:
    """Return how many cells name each reason, the commonest first."""
    counts = Counter(reason for cell in cells for reason in reasons_of(cell))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def reasons_of(problems: str) -> list[str]:
    """Return the reasons in a cell of problems or notes, without the details in parentheses."""
    while (shorter := re.sub(r"\s*\([^()]*\)", "", problems)) != problems:
        problems = shorter
    return list(dict.fromkeys(reason.strip() for reason in problems.split("; ") if reason.strip()))
