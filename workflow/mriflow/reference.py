"""Write the reference pages anew from what they describe, or check that they are in step with it.

config/README.md is made from the schemas, docs/reference/commands.md from the commands themselves. After an edit of either:
``mriflow reference``, in the repository.
"""

import argparse
import importlib
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.commands import COMMANDS
from mriflow.base.errors import UserError
from mriflow.base.files import write_text
from mriflow.config.docs import document
from mriflow.reporting.command_page import command_page


def reference(folder: Path, check: bool = False) -> list[Path]:
    """Write the reference pages of the repository in `folder`; with `check`, only compare them.

    Returns
    -------
    The pages.

    Raises
    ------
    UserError
        If `folder` is not the repository, or `check` finds a page that is not in step.
    """
    manual = folder / "config" / "README.md"
    if not manual.is_file():
        raise UserError(f"{manual}: no such file. Run this in the folder of the Snakefile, or give it as --folder.")
    pages = {
        manual: document(manual.read_text(encoding="utf-8"), folder / "workflow" / "schemas"),
        folder / "docs" / "reference" / "commands.md": command_page({command: parser_of(command) for command in COMMANDS}),
    }
    for page, text in pages.items():
        if not check:
            write_text(text, page)
        elif not page.is_file() or page.read_text(encoding="utf-8") != text:
            raise UserError(f"{page}: out of date; run python -m mriflow.reference")
    return list(pages)


class _Caught(BaseException):
    """Carries the parser out of a command's `main`."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command, caught where its `main` is about to read the arguments."""

    def catch(parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _Caught(parser)

    with patch.object(argparse.ArgumentParser, "parse_known_args", catch):
        try:
            importlib.import_module(f"mriflow.{command}").main([])
        except _Caught as caught:
            parser: argparse.ArgumentParser = caught.args[0]
            return parser
    raise TypeError(f"the main of {command} reads no arguments")


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the pages, or only check them."""
    parser = stage_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not in step")
    parser.add_argument("--folder", type=Path, default=Path(), help="the repository (default: the current folder)")
    reference(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
