"""The console command ``mriflow``: each stage of the pipeline as a command of its own.

``mriflow train`` is the same as ``python -m mriflow.train``.
"""

import difflib
import sys

import mriflow
from mriflow.base.cli import run_stage
from mriflow.base.commands import commands, main_of

HELP = """usage: mriflow COMMAND ...

Deep learning on brain MRI, one stage at a time. Snakemake calls these commands, in this order; each can be run by hand.

{commands}

mriflow COMMAND --help explains one of them. The whole pipeline runs with: snakemake --cores 2"""


def main(argv: list[str] | None = None) -> None:
    """Run the command that the first argument names."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {command:12}{about}" for command, about in commands().items())))
    elif name == "--version":
        print(f"mriflow {mriflow.__version__}")
    elif name not in commands():
        near = difflib.get_close_matches(name, commands(), n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        sys.exit(f"mriflow: there is no command {name!r}.{meant} There are: {', '.join(commands())}.")
    else:
        sys.argv = [f"mriflow {name}", *arguments]  # as argparse shows it, and as several processes are given it
        run_stage(main_of(name))


if __name__ == "__main__":
    main()
