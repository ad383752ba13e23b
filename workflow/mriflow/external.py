"""Predict another dataset with all networks of an experiment together: its external test.

Nothing is fitted to the other dataset. Beside the networks stand the simpler methods, fitted to the scans that the networks
were trained or validated on. A scan that the experiment knows already, known again by its voxels, is left out, and every other
scan of its subject with it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv
from mriflow.evaluation.baselines import classical, drawn, pca, small_images, trivial
from mriflow.evaluation.confounders import confounders_of, predict_from_confounders, size_column
from mriflow.evaluation.failures import QUALITY
from mriflow.evaluation.subgroups import subgroup_columns
from mriflow.evaluation.summary import as_columns
from mriflow.evaluation.tissue_baseline import morphometry_of, tissue
from mriflow.images.fingerprint import voxels_of
from mriflow.prediction.ensemble import BATCH, Trained, predict_one
from mriflow.prediction.tested import Tested, add_trained, read_tested
from mriflow.tables.labels import read_indices, read_labels, usable
from mriflow.training.covariates import Covariates, read_covariates
from mriflow.training.loader import Shards, open_shards
from mriflow.training.seen import hash_of_subject, known_to

log = logging.getLogger(__name__)

KNOWN = "scan: in the experiment's own dataset, too, it or another one of its subject (known by its voxels)"


def external(
    table: Path,
    *,
    dataset: str,
    other_arrays: Sequence[Path],
    other_indices: Sequence[Path],
    other_labels: Path,
    models: Sequence[Path],
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    settings: Path,
) -> pd.DataFrame:
    """Write `table`, one row per scan of the other dataset.

    Parameters
    ----------
    dataset
        The other one's name in the config.
    other_arrays, other_indices, other_labels
        Its shards, preprocessed as the experiment's own, and its labels.csv.
    models
        The models of all folds and seeds; their predictions are averaged.
    arrays, indices, labels, splits, settings
        Of the experiment (`mriflow.prediction.tested.read_tested`).

    Returns
    -------
    The table written: id, subject, session, site, age, sex and columns of subgroups, as far as they are known; truth, if there
    is such a column; the mean of the networks (network) and their standard deviation (spread; of the likeliest class's
    probability); classical, tissue, pca, trivial and confounders; quality of preprocessing; and `problem`, if there is no
    prediction.

    Raises
    ------
    UserError
        If no scan can be predicted.
    """
    ours = read_tested(arrays, indices, labels, splits, settings)
    column, classes = ours.settings["target"]["column"], ours.classes
    shards, index = open_shards(other_arrays, other_indices), read_indices(other_indices).set_index("id")
    people = read_labels(other_labels, category=column if classes else None).set_index("id")
    numbers = read_covariates(ours.settings["covariates"], other_labels, index.reset_index())
    contents = [torch.load(path, map_location="cpu", weights_only=True) for path in models]
    problems = problems_of(people, index["problem"].fillna(""), known_scans(people, ours, contents, dataset))
    lacking = [] if ours.settings["impute"] else [name for name in numbers if numbers[name].isna().any()]
    for name in lacking:
        problems[problems.eq("") & numbers[name].isna().reindex(problems.index, fill_value=False)] = f"{name}: missing"
    for name, values in numbers.items() if not ours.settings["impute"] else ():
        strange = values.notna() & ~Covariates(contents[0]["covariates"]).trained_on(str(name), values)
        problems[problems.eq("") & strange.reindex(problems.index, fill_value=False)] = f"{name}: not among the training scans"
    ids = problems.index[problems == ""].tolist()
    if not ids:
        raise UserError(f"{other_labels}: none of {len(people)} scans can be predicted. The first: {problems.iloc[0]}")
    each = []
    for content in progress(contents, desc="external", unit="model"):
        network = Trained.of(content, ours.device)
        each.append(predict_one(network, shards, ids, numbers, ours.device, ours.settings["training"]["tta"], BATCH))
    made = {"network": np.mean(each, axis=0)} | of_simpler_methods(ours, indices, people.loc[ids], shards, index)
    about = ["subject", "session", "site", "age", "sex", *subgroup_columns(ours.settings, people.columns)]
    rows = people[[name for name in dict.fromkeys(about) if name in people]]
    if column in people:
        truth = people[column] if classes is None else people[column].where(people[column].isin(classes))
        rows = rows.assign(truth=truth)
    methods = pd.DataFrame(as_columns(made, classes), index=ids).assign(spread=spread_of(np.stack(each)))
    rows = rows.join(methods).join(index.reindex(people.index)[list(QUALITY)]).assign(problem=problems)
    write_csv(rows.reset_index(), table)
    log.info("%s: %d of %d scans predicted by %d networks", dataset, len(ids), len(people), len(models))
    return rows


def known_scans(people: pd.DataFrame, ours: Tested, contents: Sequence[dict[str, Any]], dataset: str) -> pd.Series:
    """Return which scans of the other dataset the experiment or one of its models has, by id; or another of their subject."""
    table = pd.DataFrame({"subject": people["subject"].map(hash_of_subject), "scan": people["fingerprint"].map(voxels_of)})
    own = {"scans": sorted({*ours.labels["fingerprint"].map(voxels_of)} - {""}), "subjects": []}
    seen = [*(content["seen"] for content in contents), {"": {"test": own}}]
    return np.logical_or.reduce([known_to(one, ("train", "validation", "test"), table, table, dataset) for one in seen])


def problems_of(people: pd.DataFrame, of_shards: pd.Series, known: pd.Series) -> pd.Series:
    """Return why each scan is not predicted, '' if it is, by id."""
    problems = people["problem"].where(~usable(people), "")
    made = of_shards.reindex(people.index).fillna("scan: not preprocessed")
    problems = problems.where(problems != "", made)
    return problems.where((problems != "") | ~np.asarray(known), KNOWN)


def of_simpler_methods(
    ours: Tested, indices: Sequence[Path], ahead: pd.DataFrame, shards: Shards, index: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Return what methods predict that are fitted to the scans which the networks have seen.

    Parameters
    ----------
    ours, indices
        The experiment, and the indices of its shards.
    ahead
        The scans to predict: rows of labels.csv, by id.
    shards, index
        The other dataset's.
    """
    seen = ours.parts.loc[ours.parts["part"] != "test", "id"].unique().tolist()
    labels, classes = ours.truth[seen].to_numpy(), ours.classes
    few = drawn(seen)
    features = small_images([*(ours.shards[scan] for scan in few), *(shards[scan] for scan in ahead.index)])
    known, new, of_few = features[: len(few)], features[len(few) :], ours.truth[few].to_numpy()
    made = {
        "classical": classical(known, of_few, ours.labels.loc[few, "subject"].to_numpy(), new, classes),
        "pca": pca(known, of_few, new, classes),
        "trivial": trivial(labels, classes, len(ahead)),
    }
    block, sizes = ours.settings["preprocess"], ["scale", "brain_ml"]
    own = read_indices(indices).set_index("id")
    maps = morphometry_of([ours.shards[scan] for scan in few], block, own.loc[few, sizes])
    if maps is not None:
        other = morphometry_of([shards[scan] for scan in ahead.index], block, index.loc[ahead.index, sizes])
        assert other is not None
        made["tissue"] = tissue(maps, of_few, ours.labels.loc[few, "subject"].to_numpy(), other, classes)
    # Without the site: those of the other dataset are others.
    size, column = size_column(ours.settings), ours.settings["target"]["column"]
    shared = [name for name in ("age", "sex") if name in ours.labels and name in ahead]
    both = pd.concat({"ours": ours.labels.loc[seen, shared], "theirs": ahead[shared]})
    sizes = pd.concat({"ours": own[size], "theirs": index[size]})
    confounders = confounders_of(both, sizes, column)
    if len(confounders.columns):
        learned, asked = confounders.loc["ours"], confounders.loc["theirs"]
        made["confounders"] = predict_from_confounders(learned, labels, asked, classes)
    return made


def spread_of(each: np.ndarray) -> np.ndarray:
    """Return the standard deviation over networks, (networks, scans[, classes]), of the likeliest class's probability."""
    if len(each) < 2:
        return np.full(each.shape[1], np.nan)
    spread = each.std(axis=0, ddof=1)
    return spread if each.ndim == 2 else spread[np.arange(len(spread)), each.mean(axis=0).argmax(1)]


def main(argv: list[str] | None = None) -> None:
    """Read the command line and predict."""
    parser = stage_parser(__doc__)
    parser.add_argument("--table", type=Path, required=True, help="table to write, one row per scan of the other dataset, .csv")
    parser.add_argument("--dataset", required=True, help="name of the other dataset")
    parser.add_argument("--other-arrays", type=Path, nargs="+", required=True, help="its shards, .npy")
    parser.add_argument("--other-indices", type=Path, nargs="+", required=True, help="their indices, .csv, in the same order")
    parser.add_argument("--other-labels", type=Path, required=True, help="its labels.csv")
    add_trained(parser)
    external(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
