"""Say what controls show: predictions where there is nothing to learn, and with fewer people to learn from.

With labels shuffled within each site (`alter`), the network is trained once for each fold, and the classical method a hundred
times; the share of its runs that are as good as the real one is a p value. With fractions of the people of each training part,
network and classical method learn from the same people, and are tested on the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.files import write_csv, write_json
from mriflow.evaluation.baselines import classical, drawn, small_images, trivial
from mriflow.evaluation.comparison import against, judge
from mriflow.evaluation.controls import MOST, RUNS, classical_of_shuffled, p_value, shuffled
from mriflow.evaluation.metrics import LESS_IS_BETTER, as_cell, intervals
from mriflow.prediction.ensemble import predict
from mriflow.prediction.tested import Tested, add_tested, read_tested
from mriflow.tables.labels import read_labels


def controls(
    result: Path,
    table: Path,
    *,
    models: Sequence[Path],
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    settings: Path,
    shuffled_labels: Path | None = None,
    shuffled_models: Sequence[Path] = (),
    fractions: Sequence[float] = (),
    thinned_splits: Sequence[Path] = (),
    thinned_models: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write `result` (see the return value) and the same as a table.

    Parameters
    ----------
    models
        The models of all folds of one seed, made by `train` as the experiment says.
    arrays, indices
        The dataset's shards.
    labels, splits, settings
        The dataset's labels.csv, the experiment's splits.csv and settings.json.
    shuffled_labels, shuffled_models
        What `alter` shuffled, and the models of all folds that were trained with it.
    fractions, thinned_splits, thinned_models
        Shares of the training people; for each but 1 what `alter` thinned, and the models of all folds: of the first share,
        then of the second ...

    Returns
    -------
    What the experiment is (`mriflow.prediction.tested.Tested.about`), n (test scans), and as far as asked for:

    ``permutation``
        network (one training per fold) and trivial, every metric as value, low and high; at_chance, whether the network is no
        better than the trivial guess (its MAE; of classes, whether the interval of its AUC reaches 0.5 or below); classical:
        of `metric` the real value, the mean and the middle 95 % of the runs, how many there are, and p.
    ``fractions``
        For each share the people that a fold learns from on average, network and classical with every metric, and the
        difference of the two.

    Raises
    ------
    UserError
        If a model is missing for a fold, or splits leak.
    """
    tested = read_tested(arrays, indices, labels, splits, settings)
    features = small_images([tested.shards[scan] for scan in tested.shards])
    row_of = pd.Series(range(len(features)), list(tested.shards))
    folds = tested.tested_folds()
    everyone = [scan for fold in folds for scan in tested.ids(fold, "test")]
    summary: dict[str, Any] = {**tested.about(), "n": len(everyone)}
    if shuffled_labels:
        column = tested.settings["target"]["column"]
        given = read_labels(shuffled_labels, category=column if tested.classes else None).set_index("id")[column]
        summary["permutation"] = permutation(tested, shuffled_models, given, features, row_of)
    if fractions:
        summary["fractions"] = []
    parts = iter(zip(thinned_splits, np.array_split(list(thinned_models), max(1, len(thinned_splits))), strict=False))
    for share in fractions:
        thin, of_share = (splits, models) if share == 1 else next(parts)
        changed = read_tested(arrays, indices, labels, thin, settings)
        summary["fractions"].append(fraction(changed, share, [Path(one) for one in of_share], features, row_of))
    judge([one["difference"] for one in summary.get("fractions", [])])
    write_csv(as_table(summary), table)
    write_json(summary, result)
    return summary


def permutation(
    tested: Tested, models: Sequence[Path], given: pd.Series, features: np.ndarray, row_of: pd.Series
) -> dict[str, Any]:
    """Return what comes of shuffled labels; `given` are those that the networks were trained with."""
    folds, classes, metric = tested.tested_folds(), tested.classes, tested.about()["metric"]
    everyone = [scan for fold in folds for scan in tested.ids(fold, "test")]
    column, used = tested.settings["target"]["column"], tested.parts["id"].unique().tolist()
    runs = [tested.truth]
    rows = tested.labels.reset_index()
    runs += [shuffled(rows, used, column, seed).set_index("id")[column] for seed in range(1, RUNS + 1)]
    of_network, of_guess = [], []
    of_runs: list[list[np.ndarray]] = [[] for _ in runs]
    for fold in progress(folds, desc="permutation", unit="fold"):
        seen, test = tested.ids(fold, "train", "validation"), tested.ids(fold, "test")
        of_network.append(predicted(tested, models, fold))
        of_guess.append(trivial(given[seen].to_numpy(), classes, len(test)))
        few = drawn(seen, MOST)
        known, ahead = features[row_of[few]], features[row_of[test]]
        subjects = tested.labels.loc[few, "subject"].to_numpy()
        made = classical_of_shuffled(known, ahead, [run[few].to_numpy() for run in runs], subjects, classes)
        for of_run, one in zip(of_runs, made, strict=True):
            of_run.append(one)
    network = tested.measure(everyone, np.concatenate(of_network), given)
    guess = tested.measure(everyone, np.concatenate(of_guess), given, guess=True)
    scores = [tested.score(everyone, np.concatenate(one), run) for one, run in zip(of_runs, runs, strict=True)]
    real, chance = scores[0], np.array(scores[1:])
    cells = intervals(network)
    if classes is None:
        pair = tested.pair("network", "trivial", everyone)
        at_chance = judge([against(network, guess, metric, pair)])[0]["verdict"] != "better"
    else:
        at_chance = cells[metric]["low"] is None or cells[metric]["low"] <= 0.5
    return {
        "network": cells,
        "trivial": intervals(guess),
        "at_chance": bool(at_chance),
        "classical": {
            "metric": metric,
            "real": real,
            "shuffled": as_cell(float(chance.mean()), chance),
            "runs": RUNS,
            "p": p_value(real, chance.tolist(), metric in LESS_IS_BETTER),
        },
    }


def fraction(tested: Tested, share: float, models: Sequence[Path], features: np.ndarray, row_of: pd.Series) -> dict[str, Any]:
    """Return what comes of a share of the people of each training part."""
    folds, truth = tested.tested_folds(), tested.truth
    everyone = [scan for fold in folds for scan in tested.ids(fold, "test")]
    of_network, of_classical, people = [], [], []
    for fold in folds:
        train, test = tested.ids(fold, "train"), tested.ids(fold, "test")
        people.append(tested.labels.loc[train, "subject"].nunique())
        few = drawn(train)
        subjects = tested.labels.loc[few, "subject"].to_numpy()
        known, ahead = features[row_of[few]], features[row_of[test]]
        of_network.append(predicted(tested, models, fold))
        of_classical.append(classical(known, truth[few].to_numpy(), subjects, ahead, tested.classes))
    network, other = (tested.measure(everyone, np.concatenate(one)) for one in (of_network, of_classical))
    return {
        "fraction": share,
        "people": float(np.mean(people)),
        "network": intervals(network),
        "classical": intervals(other),
        "difference": against(network, other, tested.about()["metric"], tested.pair("network", "classical", everyone)),
    }


def predicted(tested: Tested, models: Sequence[Path], fold: int) -> np.ndarray:
    """Return what the networks of a fold predict for its test part."""
    tta, test = tested.settings["training"]["tta"], tested.ids(fold, "test")
    return predict(models, fold, tested.shards, test, tested.covariates, tested.device, tta)


def as_table(summary: dict[str, Any]) -> pd.DataFrame:
    """Return the numbers of controls.json as rows: control, fraction, people, method, metric, value, low, high, n."""
    rows: list[dict[str, Any]] = []

    def add(control: str, method: str, cells: dict[str, Any], **about: Any) -> None:
        for metric, cell in cells.items():
            numbers = {key: cell[key] for key in ("value", "low", "high")}
            rows.append({"control": control, "method": method, "metric": metric, **numbers, "n": summary["n"], **about})

    if found := summary.get("permutation"):
        classical_runs = found["classical"]
        for method in ("network", "trivial"):
            add("permutation", method, found[method])
        add("permutation", "classical", {classical_runs["metric"]: classical_runs["shuffled"]}, p=classical_runs["p"])
        real = {"value": classical_runs["real"], "low": None, "high": None}
        add("permutation", "classical", {f"{classical_runs['metric']}_real": real})
    for one in summary.get("fractions", []):
        about = {key: one[key] for key in ("fraction", "people")}
        for method in ("network", "classical"):
            add("fraction", method, one[method], **about)
        add("fraction", "network − classical", {summary["metric"]: one["difference"]}, **about)
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> None:
    """Read the command line and say what controls show."""
    parser = stage_parser(__doc__)
    add_tested(parser)
    parser.add_argument("--shuffled-labels", type=Path, help="labels.csv with shuffled labels, made by `alter`")
    parser.add_argument("--shuffled-models", type=Path, nargs="*", default=[], help="the models of all folds trained with it")
    parser.add_argument("--fractions", type=float, nargs="*", default=[], help="shares of the training people")
    parser.add_argument("--thinned-splits", type=Path, nargs="*", default=[], help="for each share but 1, made by `alter`")
    parser.add_argument(
        "--thinned-models", type=Path, nargs="*", default=[], help="for each share but 1, the models of all folds"
    )
    controls(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
