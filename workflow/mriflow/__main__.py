"""The console command ``mriflow``: each stage of the pipeline as a command of its own.

``mriflow train`` is the same as ``python -m mriflow.train``.
"""

import importlib
import sys

import mriflow
from mriflow.base.commands import COMMANDS
from mriflow.base.errors import nearest

HELP = """usage: mriflow COMMAND ...

Deep learning on brain MRI, one stage at a time. In running order, as Snakemake calls them:

{commands}

mriflow COMMAND --help explains one of them. The whole pipeline runs with: snakemake --cores 2"""


def main(argv: list[str] | None = None) -> None:
    """Run the command that the first argument names."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {command:12}{about}" for command, about in COMMANDS.items())))
    elif name == "--version":
        print(f"mriflow {mriflow.__version__}")
    elif name not in COMMANDS:
        meant = nearest(name, COMMANDS)
        hint = f" Did you mean {meant!r}?" if meant else ""
        sys.exit(f"mriflow: there is no command {name!r}.{hint} There are: {', '.join(COMMANDS)}.")
    else:
        from mriflow.base.cli import run_stage

        sys.argv = [f"mriflow {name}", *arguments]  # as argparse shows it, and as several processes are given it
        run_stage(importlib.import_module(f"mriflow.{name}").main)


if __name__ == "__main__":
    main()
