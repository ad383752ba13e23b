"""What the user sees when something goes wrong: the one exception that is meant for them, and words for its text."""

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something in the data, the config or the machine that the user can put right.

    Its text names the file or key, what was found, what was expected and what to do. Commands print it alone,
    without a traceback (`mriflow.base.cli.run_stage`); any other exception is a bug of ours and keeps its traceback.
    """


def one_line(error: Exception) -> str:
    """Return an error's kind and text on one line, without the signs that separate problems and details: ``;()``."""
    return re.sub(r"[\s;()]+", " ", f"{type(error).__name__}: {error}").strip()


def nearest(word: object, options: Iterable[object]) -> str | None:
    """Return the option that was probably meant by a mistyped word, whatever its capitals; None if none is near.

    >>> nearest("Trian", ["split", "train"])
    'train'
    """
    lower = {str(option).lower(): str(option) for option in options}
    close = difflib.get_close_matches(str(word).lower(), lower, n=1)
    return lower[close[0]] if close else None
