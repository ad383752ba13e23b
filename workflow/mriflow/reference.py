"""Write the reference pages anew from what they describe, or check that they are in step with it.

After an edit of a schema: ``python -m mriflow.reference``, in the repository.
"""

from pathlib import Path

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_text
from mriflow.config.docs import document


def main(arguments: list[str] | None = None) -> None:
    """Write the tables anew, or only check them."""
    parser = stage_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the tables are not those of the schemas")
    parser.add_argument("--folder", type=Path, default=Path(), help="the repository (default: the current folder)")
    options = parser.parse_args(arguments)
    manual = options.folder / "config" / "README.md"
    text = manual.read_text(encoding="utf-8")
    new = document(text, options.folder / "workflow" / "schemas")
    if not options.check:
        write_text(new, manual)
    elif text != new:
        raise UserError(f"{manual}: out of date; run python -m mriflow.reference")


if __name__ == "__main__":
    run_stage(main)
