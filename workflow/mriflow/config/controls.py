"""What the controls and the attention of an experiment add to a run: files, and trainings with other labels or splits."""

from collections.abc import Mapping, Sequence
from typing import Any

SHUFFLED = "shuffled"
SEED = 0  # of the shuffling


def shuffled(controls: Mapping[str, Any]) -> list[str]:
    """Return the name of the trainings with shuffled labels, if an experiment's controls ask for them."""
    return [SHUFFLED] if controls["permutation"] else []


def thinned(controls: Mapping[str, Any]) -> list[str]:
    """Return the names of the trainings with fewer people: all fractions but the whole.

    >>> thinned({"permutation": True, "fractions": [0.25, 1], "robustness": False})
    ['fraction-0.25']
    """
    return [f"fraction-{share:g}" for share in controls["fractions"] if share != 1]


def altered(controls: Mapping[str, Any]) -> list[str]:
    """Return the names of all trainings with other labels or splits."""
    return shuffled(controls) + thinned(controls)


def share_of(name: str) -> float:
    """Return which share of the people the trainings of a name learn from.

    >>> share_of("fraction-0.25"), share_of("shuffled")
    (0.25, 1.0)
    """
    return float(name.removeprefix("fraction-")) if name.startswith("fraction-") else 1.0


def alterations(settings: Mapping[str, Any], name: str) -> list[str]:
    """Return the flags of `mriflow.alter` for the trainings of a name."""
    target, split = settings["target"], settings["split"]
    flags = [f"--target={target['column']}", *["--category"] * (target["type"] == "classification")]
    if name == SHUFFLED:
        return [*flags, f"--shuffle={SEED}"]
    stratify = ["--stratify", *split["stratify"]] if split["stratify"] else []
    return [*flags, f"--fraction={share_of(name):g}", *stratify]


def models_of(experiment: str, names: Sequence[str], folds: int, seed: int) -> list[str]:
    """Return the models of all folds of trainings with other labels or splits; of the experiment's own with the name ''."""
    folders = [f"<results>/{experiment}/controls/{name}" if name else f"<results>/{experiment}" for name in names]
    return [f"{folder}/fold-{fold}_seed-{seed}/model.pt" for folder in folders for fold in range(folds)]


def asked_for(experiment: str, block: Mapping[str, Any], segments: bool = False) -> list[str]:
    """Return the files that the keys `controls` and `attention` (but of one that `segments`) of an experiment add to a run.

    Parameters
    ----------
    block
        The experiment of a resolved config.
    """
    folder, controls = f"<results>/{experiment}", block["controls"]
    files = [f"{folder}/controls.csv"] if controls["permutation"] or controls["fractions"] else []
    figures = [
        name
        for name, asked in {
            "training-size": controls["fractions"],
            "robustness": controls["robustness"],
            "attention": block["attention"] != "none" and not segments,
        }.items()
        if asked
    ]
    return files + [f"{folder}/figures/{name}.png" for name in figures]
