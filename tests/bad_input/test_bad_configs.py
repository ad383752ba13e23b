"""Reading the config: a mistake is named with its file and key, what is allowed there, and what was probably meant."""

from collections.abc import Callable

import pytest

from bad_input.cases import case, of_group
from mriflow.config.resolve import read_yaml
from test_config import resolved, written


def config(text: str) -> Callable:
    """Resolve the shipped config with this one over it."""
    return lambda folder: str(resolved(written(folder, text))["run"])


def yaml_file(text: str) -> Callable:
    """Read a file of the config."""
    return lambda folder: str(read_yaml(written(folder, text)))


CONFIGS = [
    case(
        config("splits: {three-fold: {fold: 3}}"),
        "{tmp}/mine.yaml: splits.three-fold.fold: unknown key; did you mean 'folds'? Allowed: file, folds, "
        "method, seed, stratify, validation",
        id="unknown key",
    ),
    case(
        config("training: {short: {learning_rate: 4e-3}}"),
        "{tmp}/mine.yaml: training.short.learning_rate: found '4e-3' (text), expected a number above 0; write "
        "0.004 without quotes (YAML takes 4e-3 for text)",
        id="4e-3, which YAML takes for text",
    ),
    case(
        config("training: {short: {epochs: '10'}}"),
        "{tmp}/mine.yaml: training.short.epochs: found '10' (text), expected a whole number of at least 1; write "
        "10 without quotes (YAML takes 4e-3 for text)",
        id="number in quotes",
    ),
    case(
        config("experiments: {demo-age: {dataset: iix}}"),
        "{tmp}/mine.yaml: experiments.demo-age.dataset: found 'iix', which is not in `datasets`; did you mean "
        "'ixi'? Allowed: demo, ixi, ixi-mra, ixi-pd, ixi-t2, oasis, ukb",
        id="dataset that there is not",
    ),
    case(
        config("run: [demo-aeg]"),
        "{tmp}/mine.yaml: run: found 'demo-aeg', which is no experiment; did you mean 'demo-age'? Allowed: demo-age, demo-sex",
        id="experiment that there is not",
    ),
    case(
        config("datasets: {dmeo: {shards: 2}}"),
        "{tmp}/mine.yaml: datasets.dmeo: there is no config/datasets/dmeo.yaml to change; did you mean 'demo'? "
        "Allowed: demo, ixi, ixi-mra, ixi-pd, ixi-t2, oasis, ukb\n"
        "{tmp}/mine.yaml: datasets.dmeo.title: missing, expected text, for example IXI\n"
        "{tmp}/mine.yaml: datasets.dmeo.columns: missing, expected a block of keys, for example {subject: {from: "
        "ID}, age: {from: AGE, unit: years, range: [5, 110], required: true}}",
        id="change of a dataset that there is not",
    ),
    case(
        yaml_file("training:\n  short: {epochs: 3}\n  short: {epochs: 9}\n"),
        "{tmp}/mine.yaml: not valid YAML: the key 'short' stands twice\n"
        '  in "<unicode string>", line 3, column 3:\n'
        "      short: {epochs: 9}\n"
        "      ^",
        id="key twice",
    ),
    case(
        yaml_file("run: [demo-age"),
        "{tmp}/mine.yaml: not valid YAML: while parsing a flow sequence\n"
        '  in "<unicode string>", line 1, column 6:\n'
        "    run: [demo-age\n"
        "         ^\n"
        "expected ',' or ']', but got '<stream end>'\n"
        '  in "<unicode string>", line 1, column 15:\n'
        "    run: [demo-age\n"
        "                  ^",
        id="YAML that is none",
    ),
    case(yaml_file("- run\n"), "{tmp}/mine.yaml: found ['run'], expected a block of keys", id="a list for a config"),
    case(
        yaml_file("run:\n\t- demo-age\n"),
        "{tmp}/mine.yaml: not valid YAML: while scanning for the next token\n"
        "found character '\\t' that cannot start any token\n"
        '  in "<unicode string>", line 2, column 1:\n'
        "    \t- demo-age\n"
        "    ^",
        id="tab in YAML",
    ),
    case(
        config("datasets: {demo: {columns: {age: {pattern: '[0-9]+'}}}}"),
        "{tmp}/mine.yaml: datasets.demo.columns.age.pattern: found '[0-9]+' with 0 groups, expected one, (...), "
        "that is the value",
        id="pattern without a group",
    ),
]


@pytest.mark.parametrize(("act", "message"), of_group("config", CONFIGS))
def test_what_the_user_reads(act, message, shown):
    assert shown(act) == message
