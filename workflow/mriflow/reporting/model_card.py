"""The model card: what a model is for, what it was made of, how good it is, and where it ends (Mitchell et al. 2019)."""

from collections.abc import Mapping
from typing import Any

from mriflow.reporting.results import METRICS, with_interval
from mriflow.tables.labels import LABEL_MAP

CARD = """# {experiment}: {column} from T1-weighted MRI of the head

{simulated}{networks} that predict {what}: a new scan is given the mean over all of them. Made by mriflow {version};
its settings, versions and limits stand in `configs/metadata.json`.

## What it is for
Research. It says something about scans that are like those it was trained on, and about groups rather than a person. It is no
medical device: no decision about a patient may rest on it.

```bash
mriflow predict MODEL SCANS --output predictions.csv
```

## What it was trained on
{dataset}: {scans} scans of {subjects} subjects.

| | seen in training |
|---|---|
{seen}

Scans are prepared by the same code as these were: {prepared}.
Of people, the model's files hold hashes of subjects' names and of scans, by which a scan that was trained on is known again.

## How good it is
On {tested} scans, each predicted by the networks that had seen neither it nor its subject, with 95 % intervals over subjects,
beside what can be had without a network:

{results}

{calibration}

{external}## Where it ends
- A scan is refused if it does not correlate with the template by more than {correlation:g}, or if its brain has less than
  {smallest} or more than {largest} ml.
- It is predicted with a warning if its voxels, contrast, size or brain are not like those of training, as far as
  its networks saw scans, if a covariate was not seen, or if the prediction lies at the edge of what was trained on.
- Nothing is known of scanners, ages, diseases and populations that are not in the table above.

## Licences
- The scans: {licence}. {citation}
- The networks were made of these scans: see whether that licence lets you hand them on, and on which terms.
- mriflow: MIT.
"""

CALIBRATED = (
    "The interval or set of a new scan was fitted to these predictions: it holds the truth of nine in ten scans that are\nlike "
    "those of training."
)
METHODS = {
    "network": "its networks",
    "stacked": "these and the best linear model together",
    "tissue": "linear model of smoothed grey matter and volumes",
    "classical": "linear model of the voxels",
    "confounders": "without the image: head size, site, age, sex",
    "trivial": "a guess: median or shares",
    "atlas": "mean label map of the training scans",
    "template": "tissues of the template",
    "mixture": "mixture of three Gaussians",
}
# What a training on simulated brains means, by whether the networks make label maps.
SIMULATED = {
    False: "it says nothing about people",
    True: "how well it segments those of people is for a test on their scans to say, and is not below",
}
OF_MAPS = "Each scan is given a label map in its own voxels, with the volume of each class in ml (a voxel may count in part)."


def model_card(facts: Mapping[str, Any], metrics: Mapping[str, Any], calibrated: bool) -> str:
    """Return the model card, Markdown.

    Parameters
    ----------
    facts
        The part `mriflow` of the metadata.
    metrics
        What `evaluate` found.
    calibrated
        Whether there is something fitted for new scans.
    """
    target, preprocess, seen, limits = (facts[key] for key in ("target", "preprocess", "seen", "limits"))
    unit = f" ({target['unit']})" if target["unit"] else ""
    what = f"{target['column']}{unit}" if not target["classes"] else f"{target['column']}: {', '.join(target['classes'])}"
    what = what.replace(LABEL_MAP, "the label map", 1)
    rows = [("site", in_words(seen["sites"])), *((name, in_words(known)) for name, known in seen["labels"].items())]
    rows += [("voxels (mm)", in_words(seen["voxel_mm"]))] if seen["voxel_mm"] else []
    networks, of_maps = len(facts["models"]), target["type"] == "segmentation"
    of_classes = {"dice": "Dice", **{f"dice_{name}": f"Dice, {name}" for name in target["classes"]}}
    names = of_classes if of_maps else METRICS[target["type"]]
    done = [f"registration {preprocess['registration']}", f"{preprocess['voxel_mm']:g} mm voxels"]
    done += ["brain alone already" if preprocess["stripped"] else "brain cut out by deepbet"]
    done += ["N4"] if preprocess["n4"] else []
    done += [f"channels {' and '.join(preprocess['channels'])}"] if len(preprocess["channels"]) > 1 else []
    done += ["tissues by networks, in the folder tissues"] if preprocess["tissues"] != "mixture" else []
    told = CALIBRATED if calibrated else "Nothing was fitted for new scans, so predictions have no interval."
    told = OF_MAPS if of_maps else told
    return CARD.format(
        experiment=facts["experiment"],
        column=target["column"].replace(LABEL_MAP, "label map"),
        simulated=f"**Trained on simulated brains: {SIMULATED[of_maps]}.**\n\n" if facts["simulated"] else "",
        networks=f"{networks} network{'' if networks == 1 else 's'}",
        what=what,
        version=facts["version"],
        dataset=facts["dataset"]["title"],
        scans=seen["scans"],
        subjects=seen["subjects"],
        seen="\n".join(f"| {name} | {text} |" for name, text in rows),
        prepared=", ".join(done),
        tested=metrics["n"],
        results=results_table(metrics, names),
        calibration=told,
        external="".join(on_others(found, names) for found in metrics.get("external", {}).values()),
        correlation=limits["correlation"],
        smallest=limits["brain_ml"][0],
        largest=limits["brain_ml"][1],
        licence=facts["dataset"]["licence"],
        citation=facts["dataset"]["citation"],
    )


def results_table(metrics: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return the metrics of the network and of what it is compared with, with their intervals, as a table in Markdown."""
    known = [key for key in names if key in metrics["network"]]
    lines = [["", *(names[key] for key in known)], ["---"] * (len(known) + 1)]
    for method, words in METHODS.items():
        if method in metrics:
            cells = metrics[method]
            lines.append([words, *(with_interval(cells[key]) if key in cells else "–" for key in known)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def on_others(found: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return the section on another dataset that the model was tested on; empty if none of its people has a label."""
    if "network" not in found:
        return ""
    simulated = " (simulated)" if found["simulated"] else ""
    return (
        f"## On other people: {found['title']}{simulated}\n{found['n']} scans, none of which was trained on, predicted by all "
        f"networks together:\n\n{results_table(found, names)}\n\n"
    )


def in_words(known: Mapping[str, Any]) -> str:
    """Return a range, or how many scans there are of each kind.

    >>> in_words({"low": 20.0, "high": 86.5}), in_words({"F": 50, "M": 44})
    ('20 to 86.5', 'F 50, M 44')
    """
    if set(known) == {"low", "high"}:
        return f"{known['low']:g} to {known['high']:g}"
    return ", ".join(f"{name} {number}" for name, number in known.items())
