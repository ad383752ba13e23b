"""What the user sees when something goes wrong: the one exception that is meant for them, and any other on a line."""

import re


class UserError(Exception):
    """Something in the data, the config or the machine that the user can put right.

    Its text names the file or key, what was found, what was expected and what to do. Commands print it alone,
    without a traceback (`mriflow.base.cli.run_stage`); any other exception is a bug of ours and keeps its traceback.
    """


def one_line(error: Exception) -> str:
    """Return an error's kind and text on one line, without the signs that separate problems and details: ``;()``."""
    return re.sub(r"[\s;()]+", " ", f"{type(error).__name__}: {error}").strip()
