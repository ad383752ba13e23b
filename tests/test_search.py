"""Keys of the training block are searched: trials, the choice in each fold, and the training with what was chosen."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from mriflow.base.errors import UserError
from mriflow.choose import choose
from mriflow.config.resolve import settings, training_part
from mriflow.config.search import trials, trials_to_judge
from mriflow.reporting.result_tables import search as chosen_parts
from mriflow.train import main
from test_config import message, resolved, written
from test_train import command, run
from test_workflow import checkout, jobs, snakemake

RATES = {"method": "grid", "keys": {"learning_rate": [0.001, 0.004], "augmentation.mirror": [0, 0.5]}, "epochs": 2}
EVERY = {"method": "random", "keys": {"learning_rate": [0.001, 0.002, 0.003], "epochs": [5, 6, 7]}, "trials": 4, "seed": 0}


def searching(**changes) -> dict:
    return {"experiments": {"demo-age": {"search": "rates"}}, "searches": {"rates": RATES | changes}}


def test_plan_shows_every_trial_of_every_fold(tmp_path):
    folder = checkout(tmp_path / "clean")
    (folder / "search.yaml").write_text(yaml.safe_dump(searching()))
    planned = jobs(snakemake(folder, "-n", "--configfile", "search.yaml"))
    assert (planned["train_trial"], planned["choose"], planned["train"]) == (4 * 3, 1, 6)


def test_trial_is_the_training_block_with_its_keys(tmp_path):
    used = settings(resolved(written(tmp_path, searching())), "demo-age")
    plain = training_part(used, "training")
    for name, keys in trials(used["search"]).items():
        changed = {"epochs": 2, "learning_rate": keys["learning_rate"]}
        changed["augmentation"] = plain["augmentation"] | {"mirror": keys["augmentation.mirror"]}
        assert training_part(used, "training", name) == plain | changed
    assert training_part(used, "training") == plain
    with pytest.raises(UserError, match="no trial 'other'"):
        training_part(used, "training", "other")


def test_one_more_value_trains_no_finished_trial_again():
    more = {"learning_rate": [0.0005, 0.001, 0.002, 0.003], "epochs": [5, 6, 7]}
    grid = {**EVERY, "method": "grid", "trials": 12}
    assert trials(grid).items() <= trials({**grid, "keys": more}).items()
    before, after = trials(EVERY), trials({**EVERY, "keys": more})
    assert len(before) == len(after) == 4
    assert all(name in before for name, keys in after.items() if keys["learning_rate"] != 0.0005)


def test_random_trials_are_others_with_another_seed():
    assert trials(EVERY) == trials(EVERY)
    assert any(trials(EVERY).keys() != trials({**EVERY, "seed": seed}).keys() for seed in (1, 2))


@pytest.mark.parametrize(("changes", "told"), [
    ({"keys": {"learning_rat": [1, 2]}}, "keys.learning_rat: not a key that can be searched; did you mean 'learning_rate'?"),
    ({"keys": {"gpu": [0, 1]}}, "mine.yaml: searches.rates.keys.gpu: not a key that can be searched. Allowed: accumulate, aug"),
    ({"keys": {"seeds": [[0], [1]]}}, "searches.rates.keys.seeds: not a key that can be searched"),
    ({"keys": {"loss": ["l1", "l2"]}}, "searches.rates.keys.loss: not a key that can be searched"),
    ({"keys": {"learning_rate": [0.1, -1]}}, "searches.rates.keys.learning_rate[1]: found -1, expected a number above 0"),
    ({"keys": {"augmentation.mirror": [0, 2]}}, "augmentation.mirror[1]: found 2, expected a number from 0 to 1"),
    ({"keys": {"learning_rate": [0.1]}}, "searches.rates.keys: found one value of each key, expected several of one at least"),
    ({"keys": {"learning_rate": 0.1}}, "searches.rates.keys.learning_rate: found 0.1 (a number), expected a list of values"),
    ({"keys": {"epochs": [1, 2]}}, "searches.rates.epochs: found beside `epochs` among the `keys`"),
    ({"trials": 3}, "searches.rates.keys: found 4 combinations and `trials: 3`, expected fewer values, more tr"),
    ({"trials": 1}, "searches.rates.trials: found 1, expected a whole number from 2 to 1000"),
])  # fmt: skip
def test_search_that_cannot_be_made_is_refused_in_words(changes, told, tmp_path):
    overlay = searching()
    overlay["searches"]["rates"] = {**RATES, **changes}
    assert told in message(written(tmp_path, overlay))


def test_experiment_that_cannot_search_is_refused_in_words(tmp_path):
    text = message(written(tmp_path, {**searching(), "splits": {"three-fold": {"validation": 0}}}))
    assert (
        "experiments.demo-age.search: found 'rates', but 'three-fold', the split of the experiment, has `validation: 0`" in text
    )
    overlay = searching()
    overlay["searches"]["rates"] = {**RATES, "keys": {"epochs": [10, 20]}}
    overlay["experiments"]["demo-age"]["controls"] = {"fractions": [0.5, 1]}
    assert "experiments.demo-age.search: found 'rates', which chooses `epochs`" in message(written(tmp_path, overlay))
    text = message(written(tmp_path, {"experiments": {"demo-age": {"search": "ratse"}}, "searches": {"rates": RATES}}))
    assert "experiments.demo-age.search: found 'ratse', which is not in `searches`; did you mean 'rates'?" in text


def history(path, losses, **more):
    pd.DataFrame({"epoch": range(1, len(losses) + 1), "val_loss": losses, "val_mae": 10, **more}).to_csv(path, index=False)
    return path


def test_a_search_whose_trainings_keep_their_best_epoch_looks_at_the_best_epochs(tmp_path):
    losses = {"sinks-and-rises": [0.2, 0.2, 0.2, 1, 1, 1], "flat": [0.6] * 6, "diverges": [0.1, 0.1, 0.1, np.nan]}
    files = [history(tmp_path / f"{trial}.csv", values) for trial, values in losses.items()]
    keys = {"method": "grid", "keys": {"learning_rate": [1, 2, 3]}, "trials": 3}
    for select, best, loss in (("last", "flat", 0.6), ("best", "sinks-and-rises", 0.2)):
        judged = trials_to_judge({"search": keys, "training": {"select": select}}).values()
        trials = dict(zip(losses, judged, strict=True))
        made = {"trials": trials, "folds": 1, "histories": files}
        [found] = choose(tmp_path / "search.csv", tmp_path / "search.json", **made)["chosen"]
        assert (found["trial"], round(found["val_loss"], 9)) == (best, loss)


def test_each_fold_chooses_by_the_last_three_epochs_of_its_own_validation(tmp_path):
    losses = {
        ("a", 0): [9, 3, 3, 3], ("a", 1): [9, 5, 5, 5],
        ("b", 0): [1, 9, 9, 2], ("b", 1): [9, 4, 4, 4],
        ("c", 0): [1, np.nan], ("c", 1): [1, 1, np.nan],
    }  # fmt: skip
    files = [history(tmp_path / f"{trial}{fold}.csv", values) for (trial, fold), values in losses.items()]
    keys = {"a": {"learning_rate": 0.1}, "b": {"learning_rate": 0.2}, "c": {"learning_rate": 99}}
    made = choose(tmp_path / "search.csv", tmp_path / "search.json", trials=keys, folds=2, histories=files)
    assert made["trials"] == 3
    assert [(one["fold"], one["trial"], one["val_loss"]) for one in made["chosen"]] == [(0, "a", 3), (1, "b", 4)]
    table = pd.read_csv(tmp_path / "search.csv")
    assert list(table) == ["fold", "trial", "learning_rate", "val_loss", "val_mae", "chosen"]
    assert table.loc[table["chosen"], "learning_rate"].tolist() == [0.1, 0.2]
    assert chosen_parts({"search": made})[0].rows[1][1] == "0.2" and not chosen_parts({})


def test_nothing_to_choose_by_is_told(tmp_path):
    lost = history(tmp_path / "lost.csv", [np.nan])
    unwatched = tmp_path / "unwatched.csv"
    unwatched.write_text("epoch,train_loss\n1,0.5\n")
    for files, told in (([lost, lost], "every trial diverged"), ([unwatched, lost], "fold 0 has no validation scans")):
        with pytest.raises(UserError, match=told):
            choose(tmp_path / "t.csv", tmp_path / "c.json", trials={"a": {}, "b": {}}, folds=1, histories=files)


def test_the_final_training_takes_what_its_fold_chose(data, tmp_path):
    chosen = {"fold": 0, "trial": "ab", "keys": {"epochs": 2, "augmentation.mirror": 0}, "val_loss": 1.0}
    other = {**chosen, "fold": 1, "keys": {"epochs": 7}}
    (tmp_path / "search.json").write_text(json.dumps({"trials": 2, "chosen": [other, chosen]}))
    main([*command(tmp_path / "searched", data, epochs=4)[3:], f"--chosen={tmp_path / 'search.json'}"])
    mirror = {"mirror": 0, "intensity": 0.1, "shift_mm": 0, "rotate_degrees": 0, "scale": 0, "bias_field": 0, "noise": 0}
    run(tmp_path / "plain", data, epochs=2, augmentation=mirror)
    for name in ("model.pt", "history.csv"):
        assert (tmp_path / "searched" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_trial_sees_nothing_of_the_test_part(data, tmp_path):
    """With other scans and labels in the test part, its history, all that is chosen by, has the same bytes."""
    splits = pd.read_csv(data["splits"])
    tested = set(splits.loc[(splits["fold"] == 0) & (splits["part"] == "test"), "id"])
    labels, array = pd.read_csv(data["labels"]), np.load(data["arrays"][0])
    rows = labels["id"].isin(tested).to_numpy()
    labels.loc[rows, "age"], array[rows] = 5.0, 7
    labels.to_csv(tmp_path / "labels.csv", index=False)
    np.save(tmp_path / "shard-000.npy", array)
    spoilt = data | {"labels": tmp_path / "labels.csv", "arrays": [tmp_path / "shard-000.npy"]}
    for name, given in (("as-it-was", data), ("spoilt", spoilt)):
        main([*command(tmp_path / name, given, epochs=2)[3:], "--trial"])
    assert len(tested) > 3
    assert (tmp_path / "spoilt/history.csv").read_bytes() == (tmp_path / "as-it-was/history.csv").read_bytes()


def test_a_trial_that_diverges_ends_and_says_so(data, tmp_path):
    main([*command(tmp_path, data, optimizer="sgd", learning_rate=1e30, schedule="constant", loss="l2")[3:], "--trial"])
    assert pd.read_csv(tmp_path / "history.csv")["val_loss"].isna().tolist() == [True]
    assert json.loads((tmp_path / "warnings.json").read_text()) == []
    assert (tmp_path / "model.pt").exists()
