"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something in the data, the config or the machine that the user can put right.

    Its text names the file or key, what was found, what was expected and what to do. Commands print it alone,
    without a traceback (`mriflow.cli.run_stage`); any other exception is a bug of ours and keeps its traceback.
    """
