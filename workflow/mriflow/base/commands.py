"""Which commands there are, and what flags each has; none of them is imported before it is asked for."""

import argparse
import importlib
import re
from typing import Any, NoReturn
from unittest.mock import patch

import mriflow


def commands() -> dict[str, str]:
    """Return each command, in running order, with what it makes, as the map of the package has them.

    >>> list(commands())[:3]
    ['download', 'ukbfetch', 'simulate']
    """
    listed = (mriflow.__doc__ or "").partition("The commands")[2].partition("What they share")[0]
    return dict(re.findall(r"^    (\w+) +(.+)$", listed, re.MULTILINE))


def main_of(command: str) -> Any:
    """Return the `main` of a command."""
    return importlib.import_module(f"mriflow.{command}").main


class _Caught(BaseException):
    """Carries the parser out of a `main`."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command, caught where its `main` is about to read the arguments."""

    def catch(parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _Caught(parser)

    with patch.object(argparse.ArgumentParser, "parse_args", catch):
        try:
            main_of(command)([])
        except _Caught as caught:
            parser: argparse.ArgumentParser = caught.args[0]
            return parser
    raise TypeError(f"the main of {command} reads no arguments")
