"""The one exception that is meant for the user's eyes."""

import re


class UserError(Exception):
    """Something in the data, the config or the machine that the user can put right.

    Its text names the file or key, what was found, what was expected and what to do. Commands print it alone,
    without a traceback (`mriflow.base.cli.run_stage`); any other exception is a bug of ours and keeps its traceback.
    """


def plain(error: Exception) -> str:
    """Return the text of an error without what separates problems and details."""
    return re.sub(r"[\s;()]+", " ", f"{type(error).__name__}: {error}").strip()
