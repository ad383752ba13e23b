"""What is wrong with a training that has ended, in words: what was seen, what it likely comes from, and what to try.

Each kind is seen in the history, or in what the network says of training scans with and without their changes. The limits
were set so that the trainings of the demo and of 145 real scans say nothing.
"""

import logging
from functools import partial

import numpy as np
import pandas as pd
import torch

from mriflow.training.augment import augment, draw_changes
from mriflow.training.forward import run_network
from mriflow.training.loop import Part, Trainer, sample
from mriflow.training.objectives import Classification, Joint, Objective, Segmentation
from mriflow.training.plan import generator

log = logging.getLogger(__name__)

LAST = 3  # epochs whose mean is the end of a training
WORSE_THAN_BEST = 1.5  # times the lowest mean of as many epochs
SWING = 0.4  # mean change from epoch to epoch over the last third of them, as a share of a constant guess's error
BIAS = 0.2  # of predictions between changed and unchanged scans, in standard deviations of the target
ERRORS = {"mae": "MAE", "accuracy": "share of wrong classes", "dice": "1 - Dice"}  # of the metric, or of 1 minus it
CLASS_BIAS = 0.15  # the same, as a change of probability


def watch(trainer: Trainer, training: Part, validation: Part) -> list[dict[str, str]]:
    """Return what is wrong with a training, as a list of `kind` and `text`, and log it."""
    first = first_of(trainer.objective)
    if isinstance(first, Segmentation):
        # A map of background alone has a Dice of 0.
        return logged(of_history(trainer.table(), 1.0, len(validation.ids) or len(training.ids)))
    positions = sample(training, len(validation.ids))
    plain, changed = (predictions(trainer, training, positions, change) for change in (False, True))
    found = [
        *of_history(
            trainer.table(),
            constant_error(first, labels_of(training), labels_of(validation)),
            len(validation.ids) or len(positions),
        ),
        *of_changes(first, plain, changed, labels_of(training)),
    ]
    seen = predictions(trainer, validation, torch.arange(len(validation.ids)), False) if validation.ids else plain
    true = labels_of(validation) if validation.ids else labels_of(training)[positions.numpy()]
    if isinstance(first, Classification) and len(set(seen.argmax(1))) == 1 and pd.Series(true).astype(str).nunique() > 1:
        name = first.classes[int(seen[0].argmax())]
        text = f"every scan is called {name!r}. The network learned nothing, or one class is rare: train longer, lower"
        found.append({"kind": "one class", "text": f"{text} `learning_rate`, and see how many scans each class has."})
    return logged(found)


def logged(found: list[dict[str, str]]) -> list[dict[str, str]]:
    """Log what was found, and return it."""
    for one in found:
        log.warning("%s: %s", one["kind"], one["text"])
    return found


def first_of(objective: Objective) -> Objective:
    """Return the objective of the target itself, without auxiliary ones."""
    return objective.parts[0] if isinstance(objective, Joint) else objective


def labels_of(part: Part) -> np.ndarray:
    """Return the labels of the target itself."""
    return part.labels if part.labels.ndim == 1 else part.labels[:, 0]


def predictions(trainer: Trainer, part: Part, positions: torch.Tensor, change: bool) -> np.ndarray:
    """Return what the network says of some scans, as they are or with changes as in training."""
    run = partial(run_network, trainer.net, part.scans, trainer.micro_batch, positions, trainer.precision)
    if not change:
        return trainer.objective.predict(run().cpu())
    draws = generator(trainer.seed, trainer.epoch)
    changes = draw_changes(len(positions), trainer.voxel_mm, trainer.settings["augmentation"], draws).to(trainer.device)
    outputs = run(
        change=lambda images, places: augment(images, changes.at(places), trainer.settings["augmentation"], trainer.image)
    )
    return trainer.objective.predict(outputs.cpu())


def constant_error(first: Objective, labels: np.ndarray, validation: np.ndarray) -> float:
    """Return the error (MAE, or 1 - accuracy) of the best constant guess from `labels` on the scans that are followed."""
    followed = validation if len(validation) else labels
    if isinstance(first, Classification):
        names, counts = np.unique(labels.astype(str), return_counts=True)
        return float((followed.astype(str) != names[counts.argmax()]).mean())
    return float(np.abs(followed.astype(float) - np.median(labels.astype(float))).mean())


def of_history(history: pd.DataFrame, constant: float, scans: int) -> list[dict[str, str]]:
    """Return what the curves of some `scans` say; `constant` is the error of a guess that looks at no scan."""
    part = "val" if "val_loss" in history else "unchanged"
    where = "validation" if part == "val" else "unchanged training"
    name, words = next((name, words) for name, words in ERRORS.items() if f"{part}_{name}" in history)
    error, seen = history[f"{part}_{name}"], history[f"unchanged_{name}"]
    error, seen = (error, seen) if name == "mae" else (1 - error, 1 - seen)
    what = f"{where} {words}"
    if len(error) < 2 * LAST:
        return []  # too short to tell anything
    means = error.rolling(LAST).mean()
    end, best = float(means.iloc[-1]), float(means.min())
    found = []
    ranks = history.get(f"{part}_auc", pd.Series(dtype=float)).tail(LAST).mean()
    # Where a class is rare, a network that weighs both alike is wrong more often than one that never names it, and better.
    if end >= constant > 0 and not ranks > 0.5:
        fitted = float(seen.tail(LAST).mean())
        cause = (
            f"it does not even learn its training scans ({fitted:.3g}): train longer, or change `learning_rate`"
            if fitted > 0.8 * constant
            else f"it learns its training scans by heart ({fitted:.3g}): take a smaller network, more `dropout` or scans"
        )
        text = f"at the end the {what} is {end:.3g}, a guess that looks at no scan has {constant:.3g}; {cause}."
        found.append({"kind": "worse than a constant guess", "text": text})
    tail = error.tail(max(LAST, len(error) // 3))
    swing = float(tail.diff().abs().mean())
    # Of seventeen scans two or three are wrong by turns, and the lowest of fifty means is luck.
    chance = 2 * float(np.sqrt(end * (1 - end) / scans)) if name == "accuracy" else 0.0
    if swing > max(SWING * constant, chance):
        text = f"from epoch to epoch the {what} changes by {swing:.3g} on average, even in the last third of the training. The "
        text += "learning rate is too high or does not fall (`schedule`), or scans are changed in training as they never "
        found.append({"kind": "swings", "text": text + "look when they are predicted (`augmentation`)."})
    if end > WORSE_THAN_BEST * best and end - best > max(0.1 * constant, chance):
        text = f"the {what} is {end:.3g} at the end, it was {best:.3g} at best (means of {LAST} epochs). The network "
        text += "overfits, or diverged late: fewer `epochs`, a lower `learning_rate`."
        found.append({"kind": "end worse than best", "text": text})
    return found


def of_changes(first: Objective, plain: np.ndarray, changed: np.ndarray, labels: np.ndarray) -> list[dict[str, str]]:
    """Return whether the network takes the changes of augmentation for something that they are not."""
    if isinstance(first, Classification):
        bias, limit = float(np.abs((changed - plain).mean(0)).max()), CLASS_BIAS
        size = f"the probability of a class by {bias:.2f} on average"
    else:
        bias, limit = float(abs((changed - plain).mean()) / max(labels.astype(float).std(), 1e-9)), BIAS
        size = f"predictions by {bias:.2f} standard deviations of the target on average"
    if not bias > limit:
        return []
    text = f"augmentation changes {size}, on the training scans themselves. The network learned from scans of another kind "
    text += "than those that it is to predict; turn off the kinds of `augmentation` one by one to find which it is."
    return [{"kind": "changed scans are of another kind", "text": text}]
