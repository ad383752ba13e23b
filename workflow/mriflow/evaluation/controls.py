"""Controls: labels shuffled, so that there is nothing to learn; and fewer people to learn from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mriflow.base.errors import UserError
from mriflow.evaluation.baselines import from_axes, kernel_axes, penalty_folds, trivial
from mriflow.tables.strata import groups_of, is_continuous, strata

RUNS = 100  # of the classical method with shuffled labels
MOST = 1000  # scans that it learns from in each of them: more take hours
LEAST_ALIKE = 4  # people in a stratum that is thinned by itself


def shuffled(labels: pd.DataFrame, ids: Sequence[str], column: str, seed: int) -> pd.DataFrame:
    """Return labels.csv with the values of a column shuffled: within each site, among its people.

    What the site tells of the label stays true, and so does all that scans tell of the site. A person's scans all get the value
    that the first scan of another one has.

    Parameters
    ----------
    labels
        With id, subject, site and the column.
    ids
        The scans that are shuffled; all others keep their values.
    """
    rng = np.random.default_rng(seed)
    chosen = labels[labels["id"].isin(set(ids))]
    people = chosen.drop_duplicates("subject").set_index("subject")
    values = people[column].copy()
    for _, of_site in people.groupby("site"):
        values[of_site.index] = rng.permutation(values[of_site.index].to_numpy())
    result = labels.copy()
    result.loc[chosen.index, column] = chosen["subject"].map(values)
    return result


def thinned(
    splits: pd.DataFrame, labels: pd.DataFrame, column: str, share: float, stratify: Sequence[str] = (), seed: int = 0
) -> pd.DataFrame:
    """Return splits.csv with a share of the people of each training part; the other parts stay.

    The target and the columns `stratify` stay as spread as they are, and who is in a smaller share is in every larger one.

    Parameters
    ----------
    labels
        With id, subject, the target's column and the others.
    share
        Above 0, at most 1.

    Raises
    ------
    UserError
        If fewer than two people of a fold would be left to train on, or of a class nobody.
    """
    people = labels.drop_duplicates("subject").set_index("subject")
    kept = splits["part"] != "train"
    for fold, rows in splits[~kept].groupby("fold"):
        group = people.loc[rows["subject"].unique()]
        order = np.random.default_rng([seed, int(fold)]).permutation(len(group))
        shuffled_group = group.iloc[order]
        columns = [groups_of(shuffled_group[name]) for name in [column, *stratify] if name in group]
        alike = strata(columns, LEAST_ALIKE)
        place = (alike.groupby(alike).cumcount() + 0.5) / alike.groupby(alike).transform("size")
        chosen = place.sort_values(kind="stable").index[: round(share * len(place))]  # so many, of each stratum as many
        lost = set() if is_continuous(group[column]) else set(columns[0]) - set(columns[0][chosen])
        if len(chosen) < 2 or lost:
            what = f"nobody of {column} {sorted(lost)[0]!r}" if lost else f"{len(chosen)} people"
            raise UserError(
                f"a fraction of {share:g} of the {len(group)} people of fold {fold} leaves {what} to train on; expected a "
                "larger one in `controls.fractions` of the experiment."
            )
        kept |= (splits["fold"] == fold) & splits["subject"].isin(chosen)
    return splits[kept]


def classical_of_shuffled(
    features: np.ndarray,
    ahead: np.ndarray,
    labels: Sequence[np.ndarray],
    subjects: np.ndarray,
    classes: list[str] | None,
) -> list[np.ndarray]:
    """Return what the classical method (`mriflow.evaluation.baselines.classical`) predicts, once for each row of labels.

    What does not depend on labels is computed once.

    Parameters
    ----------
    features, ahead
        Of the scans that may be learned from, and of those to predict.
    labels
        For each run those of the former scans.
    """
    rows, rows_ahead = kernel_axes(features, ahead)
    found = []
    for of_run in labels:
        folds = penalty_folds(of_run, subjects, classes)
        made = from_axes(rows, rows_ahead, of_run, folds, classes) if folds else trivial(of_run, classes, len(ahead))
        found.append(made)
    return found


def p_value(real: float, by_chance: Sequence[float], less_is_better: bool) -> float:
    """Return how probable a result as good as `real` is if there is nothing to learn (Phipson & Smyth 2010).

    >>> p_value(5.0, [9.0, 8.0, 4.0], less_is_better=True)
    0.5
    """
    as_good = [one <= real if less_is_better else one >= real for one in by_chance]
    return (1 + sum(as_good)) / (1 + len(as_good))
