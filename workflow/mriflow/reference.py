"""Write the reference pages anew from what they describe, or check that they are in step with it.

config/README.md is made from the schemas, docs/reference/commands.md from the commands themselves. After an edit of either:
``mriflow reference``, in the repository.
"""

from pathlib import Path

from mriflow.base.cli import run_stage, stage_parser
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
        If `check` finds a page that is not in step.
    """
    manual = folder / "config" / "README.md"
    pages = {
        manual: document(manual.read_text(encoding="utf-8"), folder / "workflow" / "schemas"),
        folder / "docs" / "reference" / "commands.md": command_page(),
    }
    for page, text in pages.items():
        if not check:
            write_text(text, page)
        elif not page.is_file() or page.read_text(encoding="utf-8") != text:
            raise UserError(f"{page}: out of date; run python -m mriflow.reference")
    return list(pages)


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the pages, or only check them."""
    parser = stage_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not in step")
    parser.add_argument("--folder", type=Path, default=Path(), help="the repository (default: the current folder)")
    reference(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
