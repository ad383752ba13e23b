"""What a network has to beat: a guess that looks at no image, and a classical method.

Both are fitted to the training and the validation part together, for they need no validation part to stop in time.
"""

import logging
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.pipeline import make_pipeline

log = logging.getLogger(__name__)

COMPONENTS = 100
FOLDS = 3  # of the search for the penalty of the logistic regression
EDGE = 40  # voxels along the shortest axis of the images that the classical method sees


def small_images(volumes: list[np.ndarray]) -> np.ndarray:
    """Return volumes as rows of features: averaged over cubes until the shortest axis has about `EDGE` voxels.

    Parameters
    ----------
    volumes
        uint8 arrays of one shape (x, y, z).

    Returns
    -------
    float32 between 0 and 1, shape (scans, features).
    """
    factor = max(1, min(volumes[0].shape) // EDGE)
    rows = [torch.nn.functional.avg_pool3d(torch.from_numpy(np.array(v))[None].float() / 255, factor) for v in volumes]
    return torch.stack(rows).flatten(1).numpy()


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


def classical(features: np.ndarray, labels: np.ndarray, ahead: np.ndarray, classes: list[str] | None) -> np.ndarray:
    """Return the predictions of principal components and ridge or logistic regression for the features `ahead`.

    The penalty is chosen by cross-validation within `features`; nothing else than these is looked at.

    Parameters
    ----------
    features, ahead
        Rows of `small_images`: the scans that may be learned from, and those to predict.
    labels, classes
        As in `trivial`.

    Returns
    -------
    Shape (scans,) or (scans, classes).
    """
    components = PCA(min(COMPONENTS, len(features) - 1, features.shape[1]), random_state=0)
    if classes is None:
        model = make_pipeline(components, RidgeCV(np.logspace(-2, 5, 15)))
        return model.fit(features, labels.astype(float)).predict(ahead)
    logistic: Any = LogisticRegressionCV(
        Cs=np.logspace(-6, 1, 8), cv=FOLDS, class_weight="balanced", scoring="neg_log_loss", max_iter=2000
    )
    model = make_pipeline(components, logistic)
    numbers = np.array([classes.index(str(label)) for label in labels])
    if np.bincount(numbers, minlength=len(classes)).min() < FOLDS:
        log.warning("a class has fewer than %d scans: the classical baseline is the trivial one", FOLDS)
        return trivial(labels, classes, len(ahead))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.fit(features, numbers)
    return model.predict_proba(ahead)
