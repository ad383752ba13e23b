"""The mistakes of a config in the user's words: file, dotted key, what was found, what is allowed, what was meant.

`Mistakes` collects them, `in_words` translates those that the schema finds, and the rest are the words for both.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

from mriflow.base.errors import UserError, nearest

MOST_ERRORS = 10
MISSING = object()

# What a value of a JSON type is called, one and many; None is a schema that takes anything.
NOUNS = {
    "string": ("text", "texts"),
    "integer": ("a whole number", "whole numbers"),
    "number": ("a number", "numbers"),
    "boolean": ("true or false", "true or false"),
    "array": ("a list", "lists"),
    "object": ("a block of keys", "blocks of keys"),
    None: ("any value", "values"),
}
KINDS = {str: "text", bool: "a truth value", int: "a number", float: "a number", list: "a list"}
LIMITS = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "of at most"}
# Every pattern of the schemas, in words that finish "text ...".
PATTERNS = {
    "^[^{}]*[{](:0?[0-9]*d)?[}][^{}]*$": "with one place for the number, such as {:03d}",
    "^[A-Za-z0-9][A-Za-z0-9_-]*$": "of letters, digits, _ and -, beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": "of letters, digits, dots, _ and -, beginning with a letter or digit",
    "^[a-z][a-z0-9_]*$": "of small letters, digits and _, beginning with a letter",
    "^https?://": "beginning with http:// or https://",
    "^[0-9a-f]{32}$": "of 32 hexadecimal digits (0-9, a-f)",
}

# Keys of before, and what to write now.
RENAMED = {
    "shift_voxels": "`shift_mm`, in mm: 2 voxels of 4 mm are 8. Shifts are by whole voxels now, which blur nothing",
}


class Source(NamedTuple):
    """Something that sets keys: its name, its keys from the config's root, and the part of a key it does not write."""

    name: str
    tree: dict
    prefix: str = ""


COMMAND_LINE = Source("--config on the command line", {})


class Mistakes:
    """The mistakes found in `config`, each with the source that set the key (the later sources win)."""

    def __init__(self, config: dict, sources: list[Source]):
        self.config, self.sources = config, sources
        self.path_of: dict[str, tuple] = {}  # the text of each, and the path of keys that it is about

    def add(self, path: tuple, text: str) -> None:
        """Add what is wrong with the key at `path`."""
        source, dotted = self.source(path), ""
        for depth, key in enumerate(path):
            in_list = isinstance(value_at(self.config, path[:depth]), list)
            dotted += f"[{key}]" if in_list else f".{key}"
        if path[:1] == ("applied",):  # set apart by `resolve`, written as the others
            dotted = dotted.replace("applied", "experiments", 1)
        self.path_of[f"{source.name}: {dotted[1:].removeprefix(source.prefix)}: {text}"] = path

    def add_schema_errors(self, schema: dict) -> None:
        """Add what in the config is not as the schema says."""
        for error in Validator(schema).iter_errors(self.config):
            for path, text in in_words(error):
                self.add(path, text)

    def source(self, path: tuple) -> Source:
        """Return the last source of the value at `path`; if it is not there, of the block that it should be in."""
        while (value := value_at(self.config, path)) is MISSING:
            path = path[:-1]
        for source in reversed(self.sources):
            theirs = value_at(source.tree, path)
            if (isinstance(value, dict) and isinstance(theirs, dict)) or repr(value) == repr(theirs):
                return source
        return COMMAND_LINE

    def touch(self, *path: Any) -> bool:
        """Return whether something at, in or around `path` is wrong."""
        return any(path[: len(other)] == other[: len(path)] for other in self.path_of.values())

    def raise_if_any(self) -> None:
        """Raise a UserError with all that was added, if anything was."""
        texts = list(self.path_of)
        if len(texts) > MOST_ERRORS:
            texts[MOST_ERRORS:] = [f"... and {len(texts) - MOST_ERRORS} more"]
        if texts:
            raise UserError("\n".join(texts))


def value_at(tree: Any, path: tuple) -> Any:
    """Return the value at a path of keys and list positions, or `MISSING`."""
    for key in path:
        keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
        if key not in keys:
            return MISSING
        tree = tree[key]
    return tree


def is_finite_number(_: Any, value: Any) -> bool:
    """Return whether a value is a number; YAML's .nan and .inf are not, for they would pass any range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


Validator = validators.extend(
    Draft202012Validator, type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", is_finite_number)
)


def in_words(error: ValidationError) -> Iterator[tuple[tuple, str]]:
    """Yield the path of each key that an error of the schema is about, and what is wrong with it."""
    path, value, schema = tuple(error.absolute_path), error.instance, error.schema
    if "propertyNames" in error.absolute_schema_path:
        yield (*path, value), f"found the name {in_short(value)}, expected {allowed(schema)}{hint(value, schema)}"
    elif error.validator == "additionalProperties":
        for key in (key for key in value if key not in schema["properties"]):
            now = RENAMED.get(key)
            described = [name for name, sub in schema["properties"].items() if "description" in sub]  # the others nobody writes
            text = f"this key has become {now}" if now else f"unknown key{instead(key, described)}"
            yield (*path, key), text
    elif error.validator == "required":
        for key in (key for key in schema["required"] if key not in value):
            of_key = schema.get("properties", {}).get(key) or schema["additionalProperties"]
            example = f", for example {in_yaml(of_key['examples'][0])}" if "examples" in of_key else ""
            yield (*path, key), f"missing, expected {allowed(of_key)}{example}"
    elif error.validator == "uniqueItems":
        twice = next(item for item in value if value.count(item) > 1)
        yield path, f"found {in_short(twice)} more than once, expected each once"
    else:
        kind = f" ({KINDS[type(value)]})" if error.validator == "type" and type(value) in KINDS else ""
        yield path, f"found {in_short(value)}{kind}, expected {allowed(schema)}{hint(value, schema)}"


def in_short(value: Any) -> str:
    """Return a value as the user would know it, short enough for a line."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return f"the block {str(dict(value))[:77]}"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def in_yaml(value: Any) -> str:
    """Return a value in one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=math.inf).strip()[1:-1]


def allowed(schema: dict, many: bool = False) -> str:
    """Return in words what a schema allows, in the plural if `many`."""
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    words = NOUNS[schema.get("type")][many]
    if schema.get("type") == "array":
        least, items = schema.get("minItems"), allowed(schema.get("items", {}), many=True)
        exact = least and least == schema.get("maxItems")
        words += f" of {least} {items}" if exact else f" of {items}" + (f" (at least {least})" if least else "")
    if "minProperties" in schema:
        words = f"a block of at least {schema['minProperties']} keys"
    if "pattern" in schema:
        words += f" {PATTERNS[schema['pattern']]}"
    if "minimum" in schema and "maximum" in schema:
        return f"{words} from {schema['minimum']} to {schema['maximum']}"
    return words + " and".join(f" {word} {schema[key]}" for key, word in LIMITS.items() if key in schema)


def did_you_mean(word: Any, options: Iterable) -> str:
    """Return the option that was probably meant, as a question, or ''."""
    meant = nearest(word, options)
    return f"; did you mean {meant!r}?" if meant else ""


def instead(word: Any, options: Iterable) -> str:
    """Return the option that was probably meant and all that there are."""
    options = sorted(map(str, options))
    return f"{did_you_mean(word, options) or '.'} Allowed: {', '.join(options) or 'none'}"


def hint(value: Any, schema: dict) -> str:
    """Return how a value was probably meant, above all where YAML took it for something else, or ''."""
    wanted = schema.get("type")
    if value is None and wanted == "string":
        return "; put it in quotes, for YAML takes null and ~ for nothing"
    if isinstance(value, bool) and (wanted == "string" or "enum" in schema):
        return "; put it in quotes, for YAML takes yes, no, on and off for true and false"
    if isinstance(value, int | float) and wanted == "string":
        return "; put it in quotes"
    if isinstance(value, str) and wanted in ("integer", "number"):
        with contextlib.suppress(ValueError):
            return f"; write {float(value):g} without quotes (YAML takes 4e-3 for text)"
    if isinstance(value, str | int | float) and wanted == "array":
        return f"; write [{value}]"
    return did_you_mean(value, schema.get("enum", []))
