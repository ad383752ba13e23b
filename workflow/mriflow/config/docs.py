"""The tables of config/README.md, made from the schemas."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mriflow.config.mistakes import allowed, in_yaml
from mriflow.config.resolve import read_yaml

MARKS = ("<!-- from the schemas, by mriflow reference -->", "<!-- end of what is from the schemas -->")
HEAD = "| key | meaning | allowed | unit | default | example |\n|---|---|---|---|---|---|"


def document(text: str, folder: Path) -> str:
    """Return the manual `text` with what stands between its two marks made anew from the schemas in `folder`."""
    config, dataset = (read_yaml(folder / f"{name}.schema.yaml") for name in ("config", "dataset"))
    parts = [MARKS[0], "## The keys of the config"]
    for key, schema in config["properties"].items():
        rows = key_rows({"properties": {key: schema}, "required": config["required"]})
        parts += [f"### `{key}`", "\n".join([HEAD, *rows])]
    parts += [
        "## The keys of a dataset",
        textwrap.fill(dataset["description"], 108, break_on_hyphens=False),
        "\n".join([HEAD, *key_rows(dataset)]),
        MARKS[1],
    ]
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    return before + "\n\n".join(parts) + after


def key_rows(schema: dict, above: str = "") -> Iterator[str]:
    """Yield a row of the table for each key under a schema; `above` is what stands before a deeper one."""
    for key, sub in schema.get("properties", {}).items():
        default = "needed" if key in schema.get("required", []) else ""
        cells = [
            f"`{above}{key}`",
            # Markdown takes a bare <name> for HTML and hides it; between backticks it is safe.
            re.sub(r"<(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\<", sub["description"]),
            allowed(sub),
            sub.get("unit", ""),
            f"`{in_yaml(sub['default'])}`" if "default" in sub else default,
            f"`{in_yaml(sub['examples'][0])}`",
        ]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield from key_rows(sub, f"{above}{key}.")
        yield from key_rows(sub.get("additionalProperties") or {}, f"{above}{key}.<name>.")
        yield from key_rows(sub.get("items") or {}, f"{above}{key}[].")
