"""A model in its folder, a MONAI bundle: read whole and checked, and nothing in it executed.

MONAI executes the expressions of configs/inference.json; this reads plain JSON, and weights that can hold no code.
"""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema

from mriflow.base import recipes
from mriflow.base.errors import UserError
from mriflow.images.scan import PreprocessSettings
from mriflow.training.pretrained import read_start

FORMAT = 1  # of the part `mriflow` of metadata.json: a new one where an older mriflow would misread it
METADATA, CALIBRATION, CHECKSUMS = "configs/metadata.json", "configs/calibration.json", "SHA256SUMS"
IN_MODEL = ("network", "objective", "covariates", "shape", "channels", "fold", "seed", "seen")  # keys of model.pt
COPY = "Copy the folder of the model anew, whole."


class Stored(NamedTuple):
    """A model as it lies in its folder.

    Attributes
    ----------
    folder
        Where.
    facts
        The part `mriflow` of its metadata (prediction/metadata.schema.json says what is in it).
    models
        The content of the model.pt of every fold and seed.
    calibration
        What was fitted for new scans (`new` of calibration.json); None if nothing was.
    """

    folder: Path
    facts: dict[str, Any]
    models: list[dict[str, Any]]
    calibration: dict[str, Any] | None

    def for_scans(self, stripped: bool) -> "Stored":
        """Return the same model for scans that show the brain alone, or for whole heads, whatever it was trained on."""
        return self._replace(facts={**self.facts, "preprocess": {**self.facts["preprocess"], "stripped": stripped}})

    @property
    def settings(self) -> PreprocessSettings:
        """What is done to a scan first, as it was to the training scans."""
        block = self.facts["preprocess"]
        return PreprocessSettings(**{key: tuple(value) if isinstance(value, list) else value for key, value in block.items()})


def metadata_schema() -> dict[str, Any]:
    """Return what metadata.json may hold; MONAI's own schema would have to be fetched."""
    return json.loads(files("mriflow.prediction").joinpath("metadata.schema.json").read_text(encoding="utf-8"))


def read_stored(folder: Path) -> Stored:
    """Read the folder of a model.

    Raises
    ------
    UserError
        If it is no such folder, a file is missing or changed, it was made for another version, or a file of weights holds
        something else.
    """
    listed = check_files(folder)
    facts = check_metadata(folder / METADATA)
    names = [one["file"] for one in facts["models"]]
    if lacking := [name for name in (METADATA, *names) if name not in listed]:
        raise UserError(f"{folder / CHECKSUMS}: does not list {', '.join(lacking)}. {COPY}")
    models = []
    for name in names:
        start = read_start(folder / name)
        if lacking := [key for key in IN_MODEL if key not in start.facts]:
            raise UserError(f"{folder / name}: has no {', '.join(lacking)}; expected a model.pt that `mriflow train` made.")
        models.append({**start.facts, "weights": start.weights})
    calibration = read_json(folder / CALIBRATION).get("new") if CALIBRATION in listed else None
    return Stored(folder, facts, models, calibration)


def check_files(folder: Path) -> set[str]:
    """Return the files of a model that its checksums list, all of which are as they were."""
    expected = "expected the folder of a model, as the workflow makes it (results/<experiment>/model)"
    if not folder.is_dir():
        raise UserError(f"{folder}: {'a file' if folder.exists() else 'no such folder'}; {expected}.")
    sums = folder / CHECKSUMS
    if not sums.is_file():
        below = " It is in its sub-folder model." if (folder / "model" / CHECKSUMS).is_file() else f" {COPY}"
        raise UserError(f"{folder}: has no {CHECKSUMS}; {expected}.{below}")
    try:
        pairs = [line.split("  ", 1) for line in sums.read_text(encoding="utf-8").splitlines()]
        listed = {name: checksum for checksum, name in pairs}
    except ValueError as error:
        raise UserError(f"{sums}: is no list of checksums (`sha256sum` makes one). {COPY}") from error
    if outside := [name for name in listed if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise UserError(f"{sums}: lists {outside[0]}, which is not in the folder of the model.")
    for name, checksum in listed.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: is missing. {COPY}")
        if sha256(folder / name) != checksum:
            raise UserError(f"{folder / name}: was changed or damaged (its SHA-256 is not that of {CHECKSUMS}). {COPY}")
    return set(listed)


def check_metadata(path: Path) -> dict[str, Any]:
    """Return the part `mriflow` of a metadata.json that this version of mriflow can use."""
    metadata = read_json(path)
    facts = metadata.get("mriflow")
    if not isinstance(facts, dict):
        raise UserError(f"{path}: has no part `mriflow`: a bundle of MONAI, but not one that `mriflow` made.")
    made_by = f"made by mriflow {facts.get('version', 'of an unknown version')}"
    if facts.get("format") != FORMAT:
        raise UserError(
            f"{path}: {made_by}, in the form {facts.get('format')}; this version reads the form {FORMAT}. "
            "Install that version of mriflow, or make the model anew with this one (`snakemake`)."
        )
    if facts.get("recipe") != recipes.PREPROCESS:
        raise UserError(
            f"{path}: {made_by}, which prepares scans by recipe {facts.get('recipe')}; this version prepares them by "
            f"{recipes.PREPROCESS}, and the network would see other images than it was trained on. Install that version of "
            "mriflow, or train the model anew with this one."
        )
    try:
        jsonschema.validate(metadata, metadata_schema())
    except jsonschema.ValidationError as error:
        raise UserError(f"{path}: {'.'.join(map(str, error.absolute_path)) or 'it'}: {error.message}. {COPY}") from error
    return facts


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of JSON that holds a block of keys."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}). {COPY}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no block of keys. {COPY}")
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as `sha256sum` writes it."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
