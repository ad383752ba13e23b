"""Put into one file all that a paper needs to be repeated from: config, splits, metrics, predictions, models, report, versions.

It holds no scan. The same results give the same bytes.
"""

import logging
import platform
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path

import yaml

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.files import whole_file
from mriflow.base.provenance import provenance
from mriflow.reporting.report_page import read_config

log = logging.getLogger(__name__)

OF_ALL = ("report.html", "results.csv", "comparison.csv", "comparison.pdf")
OF_EXPERIMENT = ("*.csv", "*.json", "external/*.csv", "figures/*.pdf", "fold-*/history.csv", "model/**/*")
BEGIN = (1980, 1, 1, 0, 0, 0)  # of time, in a zip: the files' own times would differ from run to run
README = """\
# What this is

The results of a run of mriflow, and what is needed to run it again. No scan is in it.

    config.yaml        the whole config, with every default
    environment.txt    every package that was installed, with its version (Python {python})
    results/           report.html, metrics with intervals, predictions, splits, figures, models

It names the subjects of the datasets as these do, and gives their labels; report.html shows slices of some scans. See that you
may hand that on.

# Run it again

With git and Python {python}, in a fresh clone of mriflow, where ARCHIVE is the folder that this file lies in:

    git checkout {commit}
    python3 -m venv .venv
    .venv/bin/pip install --requirement ARCHIVE/environment.txt
    .venv/bin/pip install --no-deps --editable .
    .venv/bin/snakemake --cores 2 --configfile ARCHIVE/config.yaml

What is published is downloaded, and what was simulated is simulated. Scans of your own must lie where config.yaml
says. On a CPU the numbers are the same to the last digit, as long as processor and packages are alike; a GPU adds in
another order, so that they are the same within what another seed changes. results/<experiment>/splits.csv, as the
`file` of a split (`method: file`), divides the same people in the same way whatever the code is.
{dirty}"""
DIRTY = """
The code had changes that are in no commit (-dirty): what it did cannot be had again for certain.
"""


def archive(output: Path, config: Path) -> list[str]:
    """Write `output`, a zip, of the results that lie beside `config`, the merged config of a run.

    Returns
    -------
    The names of the files in it.
    """
    run, folder = read_config(config), config.parent
    made = provenance({})
    commit, version = made["git_commit"], made["python"]
    dirty = DIRTY if commit and commit.endswith("-dirty") else ""
    known = (commit or "(the commit is not known: this was no clone of git)").removesuffix("-dirty")
    texts = {
        "README.md": README.format(python=version, commit=known, dirty=dirty),
        "config.yaml": config.read_text(encoding="utf-8"),
        "environment.txt": "".join(f"{line}\n" for line in installed()),
    }
    if run.get("report_only"):  # their results are not there where all is run again
        texts["config.yaml"] = yaml.safe_dump({**run, "report_only": []}, sort_keys=False, allow_unicode=True)
    files = dict(files_of(folder, [*run["run"], *run.get("report_only", [])]))
    with whole_file(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as whole:
        for name, text in texts.items():
            whole.writestr(entry(name), text)
        for name, path in files.items():
            whole.writestr(entry(name), path.read_bytes())
    log.info("%s: %d files, commit %s, Python %s", output, len(texts) + len(files), commit, platform.python_version())
    return [*texts, *files]


def files_of(folder: Path, experiments: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files of results that belong into the archive, by their names in it, sorted."""
    found = {folder / name for name in OF_ALL}
    found |= {path for name in experiments for pattern in OF_EXPERIMENT for path in (folder / name).glob(pattern)}
    for path in sorted(found):
        if path.is_file():
            yield f"results/{path.relative_to(folder).as_posix()}", path


def entry(name: str) -> zipfile.ZipInfo:
    """Return a file's entry, of a fixed time."""
    info = zipfile.ZipInfo(name, BEGIN)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    return info


def installed() -> list[str]:
    """Return every installed package but this one, as pip writes them, without local version tags (+cpu), as in the lock."""
    found = {one.metadata["Name"]: one.version.split("+")[0] for one in distributions() if one.metadata["Name"]}
    return [
        f"{name}=={version}" for name, version in sorted(found.items(), key=lambda item: item[0].lower()) if name != "mriflow"
    ]


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the archive."""
    parser = stage_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="file to write, .zip")
    parser.add_argument("--config", type=Path, required=True, help="merged config of the run; its results lie beside it")
    archive(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
