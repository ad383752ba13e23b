"""The paragraph of methods of an experiment, as it might stand in a paper: its numbers are those of the run."""

from collections.abc import Mapping
from typing import Any

from mriflow.config.search import with_keys
from mriflow.reporting.words import and_list, given_beside, people_of

REGISTERED = {"affine": "affinely registered", "rigid": "rigidly registered", "none": "resampled without registration"}
KEPT = {
    "last": "the weights of the last epoch were used",
    "best": "the weights of the epoch that was best on the validation part were used",
    "average": "the mean of the weights over the last epochs was used",
}
MAPS = {"gm": "grey matter", "wm": "white matter", "csf": "cerebrospinal fluid"}
REFERENCES = {
    "tissue": "kernel ridge regression on grey matter, smoothed by 8 mm, and the volumes of tissues and brain",
    "classical": "kernel ridge regression on all voxels (finer scans averaged over cubes to about 40 along the shortest axis; "
    "of classes, scores made probabilities by Platt's curve)",
    "pca": "principal components with ridge or logistic regression",
    "stacked": "the weighted mean of the network and the first of these, weighted by validation scans if there are any",
    "trivial": "a guess that looks at no scan",
    "atlas": "the most frequent label of the learning subjects at each voxel",
    "template": "the tissue map of the template",
    "mixture": "a mixture of three Gaussians of the intensities",
}


def methods_paragraph(result: Mapping[str, Any]) -> str:
    """Return the methods of an experiment from its settings; '' if these are not known."""
    made = result.get("provenance") or {}
    used = made.get("settings")
    if not used:
        return ""
    texts = [
        *about_data(result, used),
        prepared(used),
        divided(result, used),
        *trained(result, used),
        *judged(result),
        software(made),
    ]
    return " ".join(filter(None, texts))


def about_data(result: Mapping[str, Any], used: Mapping[str, Any]) -> list[str]:
    """Return what was predicted, of whom, and how the data came about."""
    dataset, target, count = used["dataset"], used["target"], people_of(result)
    unit = f" ({target['unit']})" if target.get("unit") else ""
    what = f"{result['target'].capitalize()}{unit} was predicted"
    if target["type"] == "segmentation":
        what = f"{and_list(result['classes']).capitalize()} were segmented"
    return [
        f"{what} from {dataset['modality']}-weighted MRI of the brain "
        f"({dataset['title']}; {result['n']} scans{f' of {count} people' if count else ''} tested).",
        f"Collected: {dataset['dates']}." if dataset.get("dates") else "",
        f"Setting: {dataset['setting']}." if dataset.get("setting") else "",
        f"Reference standard: {dataset['reference_standard']}." if dataset.get("reference_standard") else "",
    ]


def prepared(used: Mapping[str, Any]) -> str:
    """Return how scans were preprocessed."""
    how = used["preprocess"]
    n4 = " corrected for the bias field (N4)," if how["n4"] else ""
    brain = "the brain, which the data show alone," if used["dataset"]["stripped"] else "the brain, cut out by deepbet,"
    shape = " × ".join(map(str, how["shape"]))
    channels = how.get("channels", ["image"])
    maps = [MAPS[channel] for channel in channels if channel in MAPS]
    told = "image" if "image" in channels else ""
    text = (
        f"Scans were reoriented; {brain}{n4} was {REGISTERED.get(how['registration'], how['registration'])} to the MNI152 "
        f"template (ANTs) and resampled to {shape} voxels of {how['voxel_mm']:g} mm; intensities were clipped at "
        f"percentiles {how['percentiles'][0]:g} and {how['percentiles'][1]:g} and scaled to 8 bits."
    )
    if maps:
        beside = f"Beside the {told}, the" if told else "The"
        mixed = how.get("tissues", "mixture") == "mixture"
        made = "three Gaussians fitted to the N4-corrected image" if mixed else f"by networks that segment, {how['tissues']}"
        text += f" {beside} network was given maps of {and_list(maps)} ({made})."
    return text


def divided(result: Mapping[str, Any], used: Mapping[str, Any]) -> str:
    """Return how subjects were divided."""
    split = used["split"]
    if split["method"] == "file":
        return f"Subjects, never scans, were divided by a given split of {result['folds']} fold(s)."
    folds = {
        "k-fold": f"{result['folds']}-fold cross-validation",
        "leave-site-out": f"leave-one-site-out ({result['folds']} folds)",
    }.get(split["method"], f"the split {split['method']!r} ({result['folds']} fold(s))")
    target = [] if used["target"]["type"] == "segmentation" else [result["target"]]
    names = list(dict.fromkeys([*target, *split.get("stratify", [])]))
    strata = f", stratified by {and_list(names)} as far as known" if names else ""
    share = split.get("validation", 0)
    kept = f"{share:.0%} of the learning subjects of each fold were set aside for validation"
    by_site = split["method"] == "leave-site-out"  # then the validation part alone is spread
    text = f"Subjects, never scans, were divided by {folds}{'' if by_site else strata}; "
    return text + (f"{kept}{strata if by_site else ''}." if share else "no validation part was set aside.")


def trained(result: Mapping[str, Any], used: Mapping[str, Any]) -> list[str]:
    """Return how the networks were trained and how they predict."""
    training, beside = as_searched(result, used["training"]), given_beside(used)
    seeds, patience = len(result["seeds"]), training.get("early_stopping")
    epochs = f"{training['epochs']} epochs"
    epochs = f"at most {epochs}, and no longer than {patience} without a better one," if patience else epochs
    texts = [
        f"A network ({used['network']['name']}) was trained for {epochs} with batches of "
        f"{training['batch_size']} ({training['optimizer']}, learning rate {told(training['learning_rate'])}, weight decay "
        f"{told(training['weight_decay'])}, schedule {training['schedule']}); "
        f"{KEPT[training.get('select', 'best')]}.",
        started_from(used),
        changed(training.get("augmentation", {})),
        searched(result),
        f"{beside[0].upper()}{beside[1:]}." if beside else "",
    ]
    if synthesis := training.get("synthesis"):
        texts.append(f"{synthesis['share']:.0%} of the training images were generated from label maps (Billot et al. 2023).")
    if patch := training.get("patch"):
        size = " × ".join(map(str, patch))
        texts.append(f"It was trained on random patches of {size} voxels, and predicted in overlapping windows of that size.")
    if training.get("tta") == "mirror":
        texts.append("Each prediction is the mean of those of the scan and of its mirror image.")
    if seeds > 1:
        texts.append(f"The predictions of {seeds} networks with different seeds in each fold were averaged.")
    return texts


def as_searched(result: Mapping[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """Return a training block with what a search chose: the value of all folds, or the values of each in words."""
    chosen = [one["keys"] for one in result.get("search", {}).get("chosen", [])]
    of_key = {key: list(dict.fromkeys(keys[key] for keys in chosen)) for key in (chosen[0] if chosen else ())}
    words = {key: values[0] if len(values) == 1 else " or ".join(map(told, values)) for key, values in of_key.items()}
    return with_keys(training, words) if words else training


def told(value: float | str) -> str:
    """Return a value of the config as text.

    >>> told(0.0015), told("0.1 or 0.2")
    ('0.0015', '0.1 or 0.2')
    """
    return value if isinstance(value, str) else f"{value:g}"


def started_from(used: Mapping[str, Any]) -> str:
    """Return which weights a training started from, if not from random ones."""
    init = used["network"].get("init", {})
    if not (start := init.get("from") or init.get("weights")):
        return ""
    frozen = "; all but its last layer stayed as it was" if init.get("freeze") == "features" else ""
    return f"It started from the weights of {start}{frozen}."


def changed(augmentation: Mapping[str, Any]) -> str:
    """Return how training scans were changed at random."""
    named = {
        "mirror": "mirrored (probability {})",
        "shift_mm": "shifted by up to {} mm",
        "rotate_degrees": "rotated by up to {} degrees",
        "scale": "scaled by up to {}",
        "intensity": "changed in contrast and exponent by up to {}",
        "bias_field": "given a bias field of up to {}",
        "noise": "given noise of up to {}",
    }
    kinds = [words.format(told(augmentation[key])) for key, words in named.items() if augmentation.get(key)]
    return f"In training, scans were {and_list(kinds)}, at random." if kinds else ""


def searched(result: Mapping[str, Any]) -> str:
    """Return how training settings were searched for, if they were."""
    found = result.get("search")
    return f"Training settings were chosen in each fold by its validation part among {found['trials']} trials." if found else ""


def judged(result: Mapping[str, Any]) -> list[str]:
    """Return what the network was compared with, and how intervals, differences and calibration were made."""
    others = [words for name, words in REFERENCES.items() if name in result]
    notes = result.get("notes", {})
    if "confounders" in result and (made := notes.get("confounders", "")).startswith("A"):
        others.append(made[0].lower() + made[1:].rstrip("."))
    fitted_to = "." if result["type"] == "segmentation" else ", fitted to the same learning subjects."
    texts = [f"It was compared with {'; '.join(others)}{fitted_to}" if others else ""]
    if few := notes.get("classical", ""):
        texts.append(f"Of the linear methods: {few[0].lower()}{few[1:]}")
    exact = "; of coverage and reliability, exact" if "conformal" in result else ""
    texts.append(f"Intervals are 95 % percentile bootstraps over subjects (1000 draws){exact}.")
    if any("p_holm" in one for one in result.get("differences", [])):
        tests = {one.get("test") for one in result["differences"]}
        delong = "; those of AUCs are DeLong's" if "DeLong" in tests else ""
        texts.append(f"Differences are paired, their p values corrected by Holm's method{delong}.")
    if "calibration" in result:
        texts.append("Probabilities were calibrated by one temperature.")
    if "corrected" in result.get("gap", {}):
        texts.append("The gap was also corrected by a line fitted on the true value (de Lange & Cole 2020).")
    if "conformal" in result:
        texts.append(f"Conformal prediction gave {result['conformal']['coverage']['level']:.0%} intervals or sets.")
    if fitted := notes.get("calibration", ""):
        texts.append(f"What these were fitted on: {fitted.removeprefix('Fitted on: ')}")
    titles = [f"{one['title']} ({one['n']} scans)" for one in result.get("external", {}).values() if one["n"]]
    texts.append(
        f"All networks together were tested on {and_list(titles)} as well, of which nothing was learned." if titles else ""
    )
    return texts


def software(made: Mapping[str, Any]) -> str:
    """Return the versions."""
    names = {"mriflow": "mriflow", "torch": "PyTorch", "monai": "MONAI", "scikit-learn": "scikit-learn", "antspyx": "ANTsPy"}
    known = [f"{name} {made['versions'][key]}" for key, name in names.items()]
    return f"Software: {', '.join(known)}, Python {made['python']}."
