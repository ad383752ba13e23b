"""What predicts a target without the image: the size of the head, the site, age and sex.

A network finds these in the image, and would be praised for it. What it does no better than they do, it has not shown.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mriflow.evaluation.baselines import FOLDS, trivial

NAMES = {"size": "the size of the head", "site": "site", "age": "age", "sex": "sex"}


def confounders_of(labels: pd.DataFrame, sizes: pd.Series, column: str) -> pd.DataFrame:
    """Return size, site, age and sex of every scan, as far as they are known, differ, and are not the target.

    Parameters
    ----------
    labels
        The scans, by id, with the columns of labels.csv.
    sizes
        The size of the head by id: its volume relative to the template's, or in ml.
    column
        Of the target.

    Returns
    -------
    Numbers (size, age; NaN where not known) and texts (site, sex; '' where not known), by id.
    """
    known = pd.DataFrame({"size": sizes.reindex(labels.index).astype(float)})
    for name in set(NAMES) & set(labels.columns) - {column}:
        known[name] = pd.to_numeric(labels[name], errors="coerce") if name == "age" else labels[name].fillna("").astype(str)
    return known[[name for name in NAMES if name in known and known[name].nunique(dropna=False) > 1]]


def size_column(experiment: Mapping[str, Any]) -> str:
    """Return the column of a shard's index that tells the size of the head."""
    return "scale" if experiment["preprocess"]["registration"] == "affine" else "brain_ml"


def predict_from_confounders(
    known: pd.DataFrame, labels: np.ndarray, ahead: pd.DataFrame, classes: list[str] | None
) -> np.ndarray:
    """Return the predictions of a linear or logistic model of the confounders for the scans `ahead`.

    A number that is missing is replaced by the mean of those that may be learned from, and a column of its own says so; a text
    that is missing is a category like any other. The penalty is 1: it matters for sites of few scans alone.

    Parameters
    ----------
    known, ahead
        Rows of `confounders_of`: of the scans that may be learned from, and of those to predict.
    labels, classes
        As in `mriflow.evaluation.baselines.trivial`.

    Returns
    -------
    Shape (scans,) or (scans, classes).
    """
    numbers = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    )
    if classes is None:
        return make_pipeline(columns, Ridge()).fit(known, labels.astype(float)).predict(ahead)
    if min((labels.astype(str) == name).sum() for name in classes) < FOLDS:
        return trivial(labels, classes, len(ahead))
    model = make_pipeline(columns, LogisticRegression(class_weight="balanced", max_iter=2000))
    return model.fit(known, [classes.index(str(label)) for label in labels]).predict_proba(ahead)
