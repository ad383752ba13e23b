"""The other datasets that an experiment is tested on (`test_on`)."""

from collections.abc import Mapping
from typing import Any

FIGURE = {"regression": "predicted-vs-true", "classification": "roc"}


def datasets_of(experiment: Mapping[str, Any]) -> list[str]:
    """Return the dataset of an experiment of the config, whole or not yet checked, and the others that it is tested on.

    >>> datasets_of({"dataset": "ixi", "test_on": ["oasis"]})
    ['ixi', 'oasis']
    """
    others = experiment.get("test_on", [])
    return [str(experiment.get("dataset")), *map(str, others if isinstance(others, list) else [])]


def tested_on(config: Mapping[str, Any], experiment: str) -> list[str]:
    """Return the other datasets that an experiment of a resolved config is tested on."""
    return list(config["experiments"][experiment]["test_on"])


def cohorts_of(config: Mapping[str, Any], experiment: str) -> dict[str, dict[str, Any]]:
    """Return the title of each of them, and whether its scans are simulated."""
    described = {name: config["datasets"][name] for name in tested_on(config, experiment)}
    return {name: {"title": one["title"], "simulated": "simulate" in one} for name, one in described.items()}


def external_figures(config: Mapping[str, Any], experiment: str) -> list[str]:
    """Return the figure of each external test of an experiment."""
    kind = config["targets"][config["experiments"][experiment]["target"]]["type"]
    return [f"<results>/{experiment}/figures/{FIGURE[kind]}_{name}.png" for name in tested_on(config, experiment)]
