"""The reference page of all commands, in Markdown, made from the commands themselves."""

import argparse
import re
from collections.abc import Iterator, Mapping

LONG = 40  # letters of choices, which would make the column of flags too wide
HEAD = """# Commands

<!-- made by `mriflow reference` -->

The stages of the pipeline, in running order, as Snakemake calls them; each can be run by hand, too. (The last,
`reference`, is for those who change mriflow.) `mriflow train` is the same as `python -m mriflow.train`. A flag in
**bold** is needed. `snakemake -np` prints the command of every job, ready to be pasted.
"""


def command_page(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """Return the page: of every command what it does, and its flags."""
    sections = [HEAD.rstrip()]
    for name, parser in parsers.items():
        sections += [f"## `mriflow {name}`", in_markdown(parser.description or ""), *tables(parser)]
    return "\n\n".join(sections) + "\n"


def tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the table of a parser's flags, and those of its sub-commands below headings of their own."""
    flags = [action for action in parser._actions if action.option_strings and action.option_strings[0] != "-h"]
    if flags:
        rows = [f"| {flag(action)} | {in_cell(action)} |" for action in flags]
        yield "\n".join(["| flag | meaning |", "|---|---|", *rows])
    for name, command in subcommands(parser).items():
        yield f"**`{name}`**: {in_markdown(command.description or '')}"
        yield from tables(command)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the sub-commands of a parser by their names."""
    actions = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: command for action in actions for name, command in action.choices.items()}


def flag(action: argparse.Action) -> str:
    """Return a flag with what follows it, in bold if it is needed."""
    choices = "{" + ",".join(map(str, action.choices or ())) + "}"
    value = action.metavar or (choices if action.choices and len(choices) < LONG else action.dest.upper())
    if isinstance(value, tuple):
        value = " ".join(value)
    several = " ..." if action.nargs in ("+", "*") else ""
    text = action.option_strings[-1] + ("" if action.nargs == 0 else f" {value}{several}")
    return f"**`{text}`**" if action.required else f"`{text}`"


def in_cell(action: argparse.Action) -> str:
    """Return what a flag means, with its choices where the flag itself has no room for them, for a cell of a table."""
    choices = ", ".join(f"`{choice}`" for choice in action.choices or ())
    text = (action.help or "") + (f"; one of {choices}" if len(choices) >= LONG else "")
    return in_markdown(text).replace("|", "\\|").replace("\n", " ")


def in_markdown(text: str) -> str:
    """Return a docstring as Markdown: code between single backticks, and what is indented as code."""
    text = re.sub(r"``(.+?)``", r"`\1`", text.strip())
    return re.sub(r"(?m)^(  .*(?:\n  .*)*)", lambda block: f"\n```\n{block[1]}\n```\n", text)
