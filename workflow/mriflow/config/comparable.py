"""Which experiments can be compared with each other: they predict the same of the same scans."""


def comparable(config: dict, experiments: list[str]) -> list[str]:
    """Return those of the experiments that share dataset and target with another of them, in their order."""
    asked = {name: question(config, name) for name in experiments}
    return [name for name, one in asked.items() if list(asked.values()).count(one) > 1]


def question(config: dict, experiment: str) -> tuple[str, str, list[str]]:
    """Return the dataset of an experiment, the column that it predicts, and the classes."""
    names = config["experiments"][experiment]
    target = config["targets"][names["target"]]
    return names["dataset"], target["column"], list(target.get("classes", []))
