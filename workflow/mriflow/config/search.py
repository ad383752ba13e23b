"""A search over keys of a training block: its trials, and what no schema can check of it."""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from mriflow.base.errors import UserError
from mriflow.config.mistakes import Mistakes, Validator, in_words, instead

# What changes how a training runs but not its result, or what its validation loss and history mean: no trial can tell.
NOT_SEARCHED = {"seeds", "gpu", "allow_cpu", "tta", "mixed_precision", "compile", "checkpoint_minutes", "copy_to_scratch"}
NOT_SEARCHED |= {"loss", "bins", "bin_width", "bin_sigma", "select", "early_stopping", "augmentation", "synthesis", "patch"}
MOST_COMBINATIONS = 100_000


def searchable(schema: dict) -> dict[str, dict]:
    """Return the keys of a training block that can be searched, with their schemas; deeper ones are dotted."""
    keys = schema["properties"]["training"]["additionalProperties"]["properties"]
    deeper = {f"augmentation.{key}": sub for key, sub in keys["augmentation"]["properties"].items()}
    return {key: sub for key, sub in {**keys, **deeper}.items() if key not in NOT_SEARCHED}


def trials(search: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the keys of every trial of a search by the trial's name, a hash of them.

    A trial has the same name whatever other values there are. At random, each seed has an order of all combinations, of which
    the first are tried: a value more in a list takes the place of some of them and leaves the others.

    >>> search = {"method": "grid", "keys": {"learning_rate": [0.001, 0.002], "epochs": [20]}, "trials": 8, "seed": 0}
    >>> list(trials(search).values())
    [{'learning_rate': 0.001, 'epochs': 20}, {'learning_rate': 0.002, 'epochs': 20}]
    """
    keys = search["keys"]
    named = {}
    for values in itertools.product(*keys.values()):
        trial = dict(zip(keys, values, strict=True))
        named[hash_of(trial)] = trial
    if search["method"] == "random":
        named = {name: named[name] for name in sorted(named, key=lambda name: hash_of([search["seed"], name]))}
    return dict(itertools.islice(named.items(), search["trials"]))


def hash_of(value: Any) -> str:
    """Return eight hexadecimal digits that tell a value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def with_keys(training: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """Return a training block with other values of some keys.

    >>> with_keys({"epochs": 9, "augmentation": {"mirror": 0.5, "noise": 0}}, {"epochs": 5, "augmentation.noise": 0.1})
    {'epochs': 5, 'augmentation': {'mirror': 0.5, 'noise': 0.1}}
    """
    changed = {**training, "augmentation": dict(training["augmentation"])}
    for key, value in keys.items():
        block, _, name = key.rpartition(".")
        (changed[block] if block else changed)[name] = value
    return changed


def trials_to_judge(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the keys of an experiment's trials, with `select` if trainings keep their best epoch, as they are judged by it."""
    kept = {"select": "best"} if settings["training"]["select"] == "best" else {}
    return {name: {**keys, **kept} for name, keys in trials(settings["search"]).items()}


def training_of_trial(training: dict[str, Any], search: dict[str, Any], trial: str) -> dict[str, Any]:
    """Return the training block of a trial by its name.

    Raises
    ------
    UserError
        If the search has no such trial.
    """
    if trial not in (all_trials := trials(search)):
        raise UserError(f"the search has no trial {trial!r}{instead(trial, all_trials)}")
    shorter = {"epochs": search["epochs"]} if "epochs" in search else {}
    return with_keys(training, shorter | all_trials[trial])


def trial_runs(settings: dict[str, Any], folds: int) -> list[str]:
    """Return the folders of the trainings of an experiment's search: of the first trial every fold, then of the second ..."""
    seed = settings["training"]["seeds"][0]
    return [f"{trial}/fold-{fold}_seed-{seed}" for trial in trials(settings["search"]) for fold in range(folds)]


def ask_alike_for_trials(resources: dict[str, Any], threads: dict[str, Any]) -> None:
    """Add to what the command line sets for rules that what it sets for `train` is so for `train_trial`, unless it says so."""
    if "train" in resources:
        alike = resources["train"].copy()
        alike.update(resources.get("train_trial", {}))
        resources["train_trial"] = alike
    if "train" in threads:
        threads.setdefault("train_trial", threads["train"])


def check_searches(searches: dict[str, dict], schema: dict, mistakes: Mistakes) -> None:
    """Add keys that cannot be searched, values that a training block does not take, and a search of too few or many trials."""
    known = searchable(schema)
    for name, search in searches.items():
        at = ("searches", name)
        for key, values in search["keys"].items():
            if key not in known:
                mistakes.add((*at, "keys", key), f"not a key that can be searched{instead(key, known)}")
                continue
            for number, value in enumerate(values):
                for error in Validator(known[key]).iter_errors(value):
                    for path, text in in_words(error):
                        mistakes.add((*at, "keys", key, number, *path), text)
        if "epochs" in search and "epochs" in search["keys"]:
            mistakes.add((*at, "epochs"), "found beside `epochs` among the `keys`, expected one of the two")
        combinations = math.prod(map(len, search["keys"].values()))
        if combinations < 2:
            text = "found one value of each key, expected several of one at least: there is no choice"
            mistakes.add((*at, "keys"), text)
        elif search["method"] == "grid" and combinations > search["trials"]:
            text = (
                f"found {combinations} combinations and `trials: {search['trials']}`, expected fewer values, more trials, or "
            )
            mistakes.add((*at, "keys"), f"{text}`method: random`, which tries some of the combinations")
        elif combinations > MOST_COMBINATIONS:
            mistakes.add((*at, "keys"), f"found {combinations} combinations, expected at most {MOST_COMBINATIONS}")
