"""The documentation leads where it says: links, anchors, commands, experiments and keys of the config all exist."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import yaml

from conftest import ROOT
from mriflow.base.commands import COMMANDS
from mriflow.reference import parser_of
from mriflow.reporting.command_page import subcommands

PAGES = sorted((ROOT / "docs").rglob("*.md"))
MANUALS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md", "profiles/README.md")]
TEXTS = [*MANUALS, ROOT / "tests/benchmarks/README.md", *PAGES]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LONGEST = 110
YOURS = {"mine.yaml"}  # an overlay that the reader writes

each_text = pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def prose(text: Path) -> str:
    """Return a text without its blocks of code."""
    return FENCE.sub("", text.read_text())


def code(text: Path) -> Iterator[str]:
    """Yield every line of code and every `code` in a line of a text."""
    for _, _, block in FENCE.findall(text.read_text()):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", prose(text))


def links(text: Path) -> Iterator[str]:
    """Yield where the links and pictures of a text lead, if not to the web."""
    without_code = re.sub(r"`[^`\n]+`", "code", prose(text))
    for goal in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", without_code):
        if not re.match(r"\w+:", goal := "".join(goal)):
            yield goal


def anchors(text: Path) -> list[str]:
    """Return the anchors of a text's headings, as a forge makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@each_text
def test_links_lead_to_files_and_headings_that_exist(text):
    wrong = []
    for link in links(text):
        path, _, anchor = link.partition("#")
        goal = (text.parent / path).resolve() if path else text
        if not goal.exists() or not goal.is_relative_to(ROOT):
            wrong.append(f"{link}: no such file")
        elif anchor and (goal.suffix != ".md" or anchor not in anchors(goal)):
            wrong.append(f"{link}: no such heading")
    assert not wrong


@each_text
def test_commands_and_their_flags_in_code_exist(text):
    wrong = []
    for line in code(text):
        for name, flags in re.findall(r"(?:^ *mriflow |python -m mriflow\.)([a-z_]+)(.*)", line.partition("  #")[0]):
            known = flags_of(name) if name in COMMANDS else None
            if known is None or not set(re.findall(r"(?<!\S)--[\w-]+", flags)) <= known:
                wrong.append(line)
    assert not wrong


@cache
def flags_of(command: str) -> set[str]:
    """Return the flags of a command and of its sub-commands."""
    parser = parser_of(command)
    parsers = [parser, *subcommands(parser).values()]
    return {flag for parser in parsers for flag in parser._option_string_actions}


@each_text
def test_rules_targets_and_programs_in_code_exist(text):
    rules = {
        name for file in (ROOT / "workflow/rules").glob("*.smk") for name in re.findall(r"(?m)^rule (\w+):", file.read_text())
    }
    targets = set(re.findall(r"(?m)^([\w./-]+):", (ROOT / "Makefile").read_text()))
    for line in code(text):
        asked = re.search(r"--until ((?:\w+ ?)+)", line)
        assert not asked or set(asked[1].split()) <= rules, line
        made = re.match(r" *make (?:\w+=\S+ )*([\w./-]+)", line)
        assert not made or made[1] in targets, line
        for program in re.findall(r"(?<![\w/])(?:profiles|workflow|config|tests)/[\w./-]*\w(?![\w<*])", line):
            assert (ROOT / program).exists() or Path(program).name in YOURS or "<" in line, line


@each_text
def test_experiments_in_code_exist(text):
    named = {name for line in code(text) for name in re.findall(r"config/experiments/([\w-]+\.yaml)", line)}
    assert named - YOURS <= {path.name for path in (ROOT / "config/experiments").glob("*.yaml")}


@each_page
def test_keys_of_the_config_in_yaml_exist(page):
    schema = without_required(yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text()))
    dataset = without_required(yaml.safe_load((ROOT / "workflow/schemas/dataset.schema.yaml").read_text()))
    for indent, language, block in FENCE.findall(page.read_text()):
        if language == "yaml":
            overlay = yaml.safe_load(re.sub(f"^{indent}", "", block, flags=re.MULTILINE))
            jsonschema.validate(overlay, schema)
            for described in overlay.get("datasets", {}).values():
                jsonschema.validate(described, dataset)


def without_required(schema):
    """Return a schema in which a key may be left out, for an example shows only some."""
    if isinstance(schema, dict):
        kept = {key: value for key, value in schema.items() if not (key == "required" and isinstance(value, list))}
        return {key: without_required(value) for key, value in kept.items() if key != "minProperties"}
    return [without_required(value) for value in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("text", [t for t in TEXTS if t.name != "commands.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_of_prose_are_short(text):
    """All but those of the page that is made from the commands' own help."""
    shown = [re.sub(r"\]\([^)]*\)", "]", line) for line in prose(text).splitlines() if not line.startswith(("|", "<img", "!["))]
    assert not [line for line in shown if len(line) > LONGEST]


def test_every_picture_is_used_and_described():
    used = {(page.parent / link).resolve() for page in TEXTS for link in links(page)}
    assert {path for path in (ROOT / "docs/images").iterdir()} <= used
    texts = "\n".join(prose(page) for page in PAGES)
    assert "![](" not in texts
    assert texts.count("<img ") == len(re.findall(r"<img [^>]*alt=\"[^\"]{10,}\"", texts))
