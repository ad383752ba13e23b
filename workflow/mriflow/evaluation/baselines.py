"""What a network has to beat: a guess that looks at no image, and two linear methods that see the image.

All are fitted to the scans that they are given, with a penalty chosen by cross-validation within these.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA, KernelPCA
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegressionCV, RidgeClassifier, RidgeCV
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.utils.class_weight import compute_sample_weight

log = logging.getLogger(__name__)

COMPONENTS = 100
FOLDS = 3  # of the search for the penalty of `pca`'s logistic regression
KERNEL_FOLDS = 5  # of that for `classical`
MOST = 5000  # scans that `classical` and `pca` learn from: the kernel holds a number for each pair of them
AHEAD = 500  # scans that `pca` predicts at once
IN_MEMORY = 2 * MOST  # scans whose images are kept in memory
EDGE = 40  # voxels along the shortest axis of the images that these methods see
FLAT = 0.02  # standard deviation of a voxel, 5 of 255 grey levels, below which it is left out: standardised, it is noise
CHUNK = 8192  # voxels that are standardised at once


def small_images(volumes: Sequence[np.ndarray]) -> np.ndarray:
    """Return volumes as rows of features: averaged over cubes until the shortest axis has about `EDGE` voxels.

    Parameters
    ----------
    volumes
        uint8 arrays of one shape, (x, y, z) or (channels, x, y, z).

    Returns
    -------
    float32 between 0 and 1, shape (scans, features): 0.3 MB a scan and channel. Of more than `IN_MEMORY` scans float16, in a
    temporary file: all of UK Biobank's would fill the memory.
    """
    grid = volumes[0].shape[-3:]
    factor = max(1, min(grid) // EDGE)
    channels = volumes[0].size // int(np.prod(grid))
    shape = (len(volumes), channels * int(np.prod([edge // factor for edge in grid])))
    features: np.ndarray = np.empty(shape if len(volumes) <= IN_MEMORY else 0, np.float32)
    if len(volumes) > IN_MEMORY:
        with TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and not a crash while it is filled
                os.posix_fallocate(file.fileno(), 0, 2 * int(np.prod(shape)))
            features = np.memmap(file, np.float16, "w+", shape=shape)
    for row, volume in zip(features, volumes, strict=True):
        whole = torch.from_numpy(np.array(volume)).view(channels, *grid).float() / 255
        row[:] = torch.nn.functional.avg_pool3d(whole, factor).flatten()
    return features


def drawn(ids: Sequence[Any], most: int | None = None) -> list[Any]:
    """Return the scans that the linear methods learn from: all, or of more than `most` (`MOST`) so many, drawn at random."""
    most = most or MOST
    if len(ids) <= most:
        return list(ids)
    return [ids[place] for place in np.sort(np.random.default_rng(0).choice(len(ids), most, replace=False))]


def trivial(labels: np.ndarray, classes: list[str] | None, count: int) -> np.ndarray:
    """Return what one predicts without looking at `count` images: the median, or the share of each class.

    Parameters
    ----------
    labels
        Of the scans that may be learned from.
    classes
        Of a classification.

    Returns
    -------
    Shape (count,) or (count, classes).
    """
    nothing, ahead = np.zeros((len(labels), 1)), np.zeros((count, 1))
    if classes is None:
        return DummyRegressor(strategy="median").fit(nothing, labels.astype(float)).predict(ahead)
    guess = DummyClassifier(strategy="prior").fit(nothing, labels.astype(str))
    shares = dict(zip(guess.classes_, guess.predict_proba(ahead[:1])[0], strict=True))
    return np.tile([shares.get(name, 0.0) for name in classes], (count, 1))


def classical(
    features: np.ndarray, labels: np.ndarray, subjects: np.ndarray, ahead: np.ndarray, classes: list[str] | None
) -> np.ndarray:
    """Return the predictions of kernel ridge regression for the features `ahead`.

    Every voxel counts alike, for it is standardised, and the model is linear in all of them. Fitted by its kernel it has as
    many coefficients as scans, not as voxels: the result is the same (Schoelkopf et al. 1998), and takes seconds. Subjects,
    never scans, are divided to choose the penalty. Of classes, each is told from the others by its score, and the score
    becomes a probability by a logistic curve fitted to cross-validated scores (Platt 1999), balanced. On 145 real scans this
    tells sex better than kernel logistic regression (AUC .94 against .92).

    Parameters
    ----------
    features, ahead
        Rows of `small_images`: the scans that may be learned from, and those to predict.
    labels, classes
        As in `trivial`.
    subjects
        Of the scans that may be learned from.

    Returns
    -------
    Shape (scans,) or (scans, classes).
    """
    folds = penalty_folds(labels, subjects, classes)
    if not folds:
        log.warning("too few subjects, or of a class, to choose a penalty: the classical baseline is the trivial one")
        return trivial(labels, classes, len(ahead))
    return from_axes(*kernel_axes(features, ahead), labels, folds, classes)


def kernel_axes(features: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all principal axes of the kernel of `standardised_kernels`, a row per scan: of `features`, and of `ahead`.

    A linear model of these is the linear model of the voxels.
    """
    return axes_of(*standardised_kernels(features, ahead))


def axes_of(kernel: np.ndarray, kernel_ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all principal axes of a kernel, (scans, scans): of these, and by (scans ahead, scans) of those ahead."""
    axes = KernelPCA(kernel="precomputed").fit(kernel)
    return axes.transform(kernel), axes.transform(kernel_ahead)


def from_axes(
    rows: np.ndarray, rows_ahead: np.ndarray, labels: np.ndarray, folds: list, classes: list[str] | None
) -> np.ndarray:
    """Return what `classical` does, from the axes of `kernel_axes` and the divisions of `penalty_folds`."""
    ridge = RidgeCV(np.logspace(-3, 3, 13), cv=folds, scoring="neg_mean_squared_error")
    if classes is None:
        return ridge.fit(rows, labels.astype(float)).predict(rows_ahead)
    numbers = np.array([classes.index(str(label)) for label in labels])
    weights = compute_sample_weight("balanced", numbers)
    ridge.fit(rows, np.eye(len(classes))[numbers], sample_weight=weights)
    model = CalibratedClassifierCV(RidgeClassifier(ridge.alpha_), method="sigmoid", cv=folds, ensemble=False)
    return model.fit(rows, numbers, sample_weight=weights).predict_proba(rows_ahead)


def penalty_folds(labels: np.ndarray, subjects: np.ndarray, classes: list[str] | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the divisions by subject that choose a penalty, or nothing if a part of them would lack a class."""
    count = len(set(subjects)) if classes is None else min(len(set(subjects[labels.astype(str) == name])) for name in classes)
    if count < FOLDS:
        return []
    folds = min(KERNEL_FOLDS, count)
    if classes is None:
        return list(GroupKFold(folds, shuffle=True, random_state=0).split(labels, groups=subjects))
    names = labels.astype(str)
    found = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(names, names, subjects))
    return found if all(len(set(names[part])) == len(classes) for fold in found for part in fold) else []


def standardised_kernels(features: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over voxels of the products of two scans, whose voxels are standardised by `features` alone.

    Parameters
    ----------
    features, ahead
        As in `classical`.

    Returns
    -------
    Shapes (scans, scans) and (scans ahead, scans). On average a scan's product with itself is 1.
    """
    own, other, used = np.zeros((len(features),) * 2), np.zeros((len(ahead), len(features))), 0
    for start in range(0, features.shape[1], CHUNK):
        known = features[:, start : start + CHUNK].astype(float)
        spread = known.std(0)
        varied = spread > FLAT
        middle, known = known.mean(0)[varied], known[:, varied]
        known = (known - middle) / spread[varied]
        own += known @ known.T
        other += ((ahead[:, start : start + CHUNK][:, varied] - middle) / spread[varied]) @ known.T
        used += int(varied.sum())
    return own / max(used, 1), other / max(used, 1)


def pca(features: np.ndarray, labels: np.ndarray, ahead: np.ndarray, classes: list[str] | None) -> np.ndarray:
    """Return the predictions of principal components and ridge or logistic regression for the features `ahead`.

    Parameters
    ----------
    features, ahead, labels, classes
        As in `classical`.

    Returns
    -------
    Shape (scans,) or (scans, classes).
    """
    features = features.astype(np.float32, copy=False)
    components = PCA(min(COMPONENTS, len(features) - 1, features.shape[1]), random_state=0)
    parts = [ahead[start : start + AHEAD] for start in range(0, len(ahead), AHEAD)]
    if classes is None:
        model = make_pipeline(components, RidgeCV(np.logspace(-2, 5, 15))).fit(features, labels.astype(float))
        return np.concatenate([model.predict(part.astype(np.float32, copy=False)) for part in parts])
    logistic: Any = LogisticRegressionCV(
        Cs=np.logspace(-6, 1, 8), cv=FOLDS, class_weight="balanced", scoring="neg_log_loss", max_iter=2000
    )
    model = make_pipeline(components, logistic)
    numbers = np.array([classes.index(str(label)) for label in labels])
    if np.bincount(numbers, minlength=len(classes)).min() < FOLDS:
        log.warning("a class has fewer than %d scans: the principal components predict as the trivial baseline does", FOLDS)
        return trivial(labels, classes, len(ahead))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.fit(features, numbers)
    return np.concatenate([model.predict_proba(part.astype(np.float32, copy=False)) for part in parts])
