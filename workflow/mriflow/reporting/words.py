"""What an experiment's numbers say, in sentences: the top of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from mriflow.evaluation.metrics import RIVALS, rival_of
from mriflow.reporting.flow import Step
from mriflow.reporting.results import METRICS, with_interval

FEW = 100  # people: fewer are named among what to be careful about
STEEP = -0.25  # slope of the residual
NAMES = {"bias": "bias (mean residual)", **METRICS["regression"], **METRICS["classification"]}
GIVEN = {"head_size": "the size of the head"}
METHODS = {
    "trivial": "A guess that looks at no scan",
    "classical": "the linear model of the scan (classical)",
    "tissue": "that of grey matter and volumes (tissue)",
}


def five_sentences(result: Mapping[str, Any], steps: Sequence[Step] = ()) -> list[str]:
    """Return what was asked, on how many people, how well it works, against what, and what to be careful about."""
    return [asked(result), people(result, steps), how_well(result), against(result), careful(result)]


def asked(result: Mapping[str, Any]) -> str:
    """Return the question."""
    what = result["target"]
    if result["type"] == "classification":
        classes = result.get("classes", [])
        return f"Asked: can {what} ({' or '.join(classes)}) be told from a scan of the brain? Data: {result['dataset']}."
    unit = f" in {result['unit']}" if result["unit"] else ""
    return f"Asked: how well can {what}{unit} be predicted from a scan of the brain? Data: {result['dataset']}."


def and_list(names: Sequence[str]) -> str:
    """Return names as a list in words.

    >>> and_list(["csf", "gm", "wm"])
    'csf, gm and wm'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def given_beside(used: Mapping[str, Any]) -> str:
    """Return what the network knows besides the scan and learns besides the target, from an experiment's settings."""
    given = [GIVEN.get(name, name) for name in used.get("covariates", [])]
    learned = [one["column"] for one in used.get("auxiliary", [])]
    texts = [f"was told {and_list(given)}"] if given else []
    texts += [f"learned {and_list(learned)} beside {used['target']['column']}"] if learned else []
    return f"the network {and_list(texts)}" if texts else ""


def people_of(result: Mapping[str, Any]) -> int | None:
    """Return how many people were tested."""
    known = [one["people"] for one in (result, result.get("power", {}), *result.get("differences", [])) if one.get("people")]
    return known[0] if known else None


def people(result: Mapping[str, Any], steps: Sequence[Step]) -> str:
    """Return how many were tested and how many left out."""
    count = people_of(result)
    whose = f" of {count} people" if count else ""
    folds = f"in {result['folds']} folds" if result["folds"] > 1 else "in one fold"
    text = f"Tested: {result['n']} scans{whose}, {folds}, by networks that were trained on other people."
    if steps and steps[-1].name == "tested":
        out = steps[0].scans - steps[-1].scans
        reasons = [f"{reason} {count}" for step in steps for reason, count in step.reasons]
        text += f" Of {steps[0].scans} scans and rows that are known, {out} were left out"
        text += f" ({', '.join(reasons[:4])}{', …' if len(reasons) > 4 else ''})." if out else "."
    return text


def how_well(result: Mapping[str, Any]) -> str:
    """Return the network's metrics, also on other people, and what it knows besides the scan."""
    beside = given_beside((result.get("provenance") or {}).get("settings") or {})
    texts = [metrics_of(result), single_networks(result), f"{beside[0].upper()}{beside[1:]}." if beside else ""]
    return " ".join(filter(None, [*texts, *on_others(result)]))


def main_metric(result: Mapping[str, Any]) -> str:
    """Return the metric by which an experiment is judged."""
    return "mae" if result["type"] == "regression" else "auc" if "auc" in result["network"] else "accuracy"


def compared_metric(result: Mapping[str, Any]) -> str:
    """Return the metric by which methods are compared: of more than two classes accuracy, else the main one."""
    known = [one["metric"] for one in result.get("differences", [])]
    return main_metric(result) if main_metric(result) in known or not known else known[0]


def single_networks(result: Mapping[str, Any]) -> str:
    """Return what the networks of each seed reach alone, if their predictions were averaged."""
    metric, seeds = main_metric(result), result.get("single_seeds", {})
    values = [f"{one[metric]['value']:.3g}" for one in seeds.values() if one.get(metric, {}).get("value") is not None]
    return f"Networks of one seed alone: {NAMES[metric]} {and_list(values)}." if len(values) > 1 else ""


def on_others(result: Mapping[str, Any]) -> list[str]:
    """Return how well the network does on other datasets, a sentence each."""
    metric, texts = main_metric(result), []
    for found in result.get("external", {}).values():
        if found.get("network", {}).get(metric):
            beside = "".join(f", {one} {with_interval(found[one][metric])}" for one in RIVALS if one in found)
            value = with_interval(found["network"][metric])
            out = sum(found.get("left_out", {}).values())
            left = f"; {out} left out, see External test" if out else ""
            texts.append(f"On other people ({found['title']}, {found['n']} scans{left}): {NAMES[metric]} {value}{beside}.")
    return texts


def metrics_of(result: Mapping[str, Any]) -> str:
    """Return the network's metrics on the test scans."""
    network = result["network"]
    if result["type"] == "regression":
        unit = f" {result['unit']}" if result["unit"] else ""
        text = f"The network's predictions are off by {with_interval(network['mae'])}{unit} on average (MAE)"
        return text + (f"; their correlation with the truth is {with_interval(network['r'])}." if "r" in network else ".")
    text = f"The network's AUC is {with_interval(network['auc'])} (0.5 is chance, 1 perfect)" if "auc" in network else ""
    if "accuracy" in network:
        start = ", and the" if text else "The"
        text += f"{start} share of scans that it puts into the right class is {with_interval(network['accuracy'])}"
    return text + "."


def against(result: Mapping[str, Any]) -> str:
    """Return what simpler methods reach, and whether the network is better."""
    metric = compared_metric(result)
    unit = f" {result['unit']}" if metric == "mae" and result["unit"] else ""
    ones = [f"{label} has {with_interval(result[name][metric])}{unit}" for name, label in METHODS.items() if name in result]
    pairs = [one for one in result.get("differences", []) if one["metric"] == metric and one["method"] == "network"]
    rival = rival_of(result)
    told = [one["sentence"] for one in pairs if one["other"] == rival and "sentence" in one]
    both = [one for one in result.get("differences", []) if one["metric"] == metric and one["method"] == "stacked"]
    told = [*told[:1], *(one["sentence"] for one in both if one["verdict"] == "better")]
    return " ".join([f"Against: {'; '.join(ones)} ({NAMES[metric]}).", *told])


def careful(result: Mapping[str, Any]) -> str:
    """Return what a reader should not forget, the gravest first."""
    found = ["the data are simulated, so that nothing follows for real people"] if result["simulated"] else []
    compared = compared_metric(result)
    pairs = [one for one in result.get("differences", []) if one["method"] == "network" and one["metric"] == compared]
    worse = [one["other"] for one in pairs if one["verdict"] == "worse"]
    found += [f"the network is worse than {and_list(worse)}"] if worse else []
    beaten = [one["other"] for one in pairs if one["verdict"] == "cannot be told"]
    beaten = [other for other in beaten if other in ("trivial", "confounders")]
    found += [f"that the network is better than {and_list(beaten)} was not shown"] if beaten else []
    found += [f"it {group}" for group in groups_that_differ(result)[:2]]
    if (slope := (result["network"].get("slope") or {}).get("value")) is not None and slope < STEEP:
        text = "low values are predicted too high and high ones too low (slope of the residual"
        found.append(f"{text} {with_interval(result['network']['slope'])})")
    coverage = result.get("conformal", {}).get("coverage", {})
    if coverage.get("high") is not None and coverage["high"] < coverage["level"]:
        found.append(f"intervals meant to hold the truth in {coverage['level']:.0%} do so in {with_interval(coverage)}")
    taught = result.get("tissues_of", {"people": 0})
    if taught["people"]:
        found.append(
            f"{taught['experiment']}, which tells the tissues apart, learns from label maps of {taught['people']} of the people"
            " tested here, whose tissue maps may be better than those of others"
        )
    if (count := people_of(result)) and count < FEW:
        found.append(f"{count} people are few")
    found.append("the intervals cover who was tested, not another training, scanner or population")
    return f"Careful: {'; '.join(found)}."


def groups_that_differ(result: Mapping[str, Any]) -> list[str]:
    """Return in words the groups whose MAE or AUC is told to be worse than that of the others."""
    found = []
    for one in result.get("subgroups", []):
        away = one.get("difference") or {}
        worse = {"mae": 1, "auc": -1, "accuracy": -1}.get(one.get("metric", ""), 0) * (away.get("value") or 0)
        if away.get("verdict") == "differs" and worse > 0:
            found.append(f"is worse for {one['column']} {one['group']} ({NAMES[one['metric']]} {with_interval(one)})")
    return found


def worst_group(result: Mapping[str, Any]) -> str:
    """Return for whom it works worst, and whether that can be told; '' if there are no groups with numbers."""
    metric = "mae" if result["type"] == "regression" else "auc"
    known = [one for one in result.get("subgroups", []) if one.get("metric") == metric and one.get("value") is not None]
    if not known:
        return ""
    worst = max(known, key=lambda one: one["value"] if metric == "mae" else -one["value"])
    verdict = (worst.get("difference") or {}).get("verdict")
    sure = {"differs": "the difference from all others is told", None: "it was not compared with the others by itself"}
    told = sure.get(verdict, "that it differs from the others cannot be told")
    text = f"Worst for {worst['column']} {worst['group']}: {NAMES[metric]} {with_interval(worst)}, {worst['n']} scans; {told}."
    off = [one for one in result["subgroups"] if (one.get("difference") or {}).get("verdict") == "differs"]
    off = [f"{one['column']} {one['group']} ({with_interval(one)})" for one in off if one["metric"] == "bias"]
    return (
        f"{text} Predicted too high (above 0) or too low on average, and differently from the others: {and_list(off)}."
        if off
        else text
    )


def is_off(row: Mapping[str, Any]) -> bool:
    """Return whether a tenth of the probabilities contradicts how often they came true; results of before have no `off`."""
    return bool(row["off"]) if "off" in row else row["low"] is not None and not row["low"] <= row["believed"] <= row["high"]


def can_be_trusted(result: Mapping[str, Any]) -> str:
    """Return whether probabilities are to be believed, in a sentence."""
    found = result.get("calibration")
    if not found:
        return ""
    before, after = (with_interval(found[name]["ece"]) for name in ("before", "after"))
    off = [f"{row['from']:.1f} to {row['to']:.1f}" for row in found["after"]["reliability"] if is_off(row)]
    text = f"Probabilities are off by {before} on average as they are, and by {after} after the temperature (ECE). "
    if found["after"]["ece"]["value"] >= found["before"]["ece"]["value"]:
        text += "Here the temperature does not bring them closer to the truth. "
    if off:
        return text + f"After it, those of {', '.join(off)} do not come true as often as they say."
    return text + "After it, no tenth of them contradicts how often they came true; few scans can contradict little."
