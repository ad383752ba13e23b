"""What a run hands to its jobs on a cluster: the whole config, so that an edit while they wait or run does not reach them.

A job runs Snakemake anew, which would read the files of then. `profiles/sge/submit` names the file that is written here to
each job, in the environment variable JOB_CONFIG.
"""

import hashlib
import os
import sys
from pathlib import Path

import yaml

from mriflow.base.files import write_text

FOLDER = Path(".snakemake/mriflow")
CODE = ("Snakefile", "workflow/rules/*.smk", "workflow/mriflow/**/*.py")


def hand_over(config: dict, folder: Path) -> None:
    """Write a resolved config where the jobs of this run find it, and let `submit` know its name.

    It is named for what is in it, and stays: a job of this run may start when another has long begun.
    """
    text = f"# code {code_hash(folder)}\n{yaml.safe_dump(config, sort_keys=False, allow_unicode=True)}"
    path = FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml"
    if not path.exists():
        write_text(text, path)
    os.environ["JOB_CONFIG"] = str(path)


def handed_over(config: dict, folder: Path) -> dict | None:
    """Return the config that a job read, if it is the whole one of the run that submitted it; else nothing.

    Says so on stderr if the code in `folder` is not that of the run any more.
    """
    if "JOB_CONFIG" not in os.environ:
        return None
    if not Path(os.environ["JOB_CONFIG"]).read_text(encoding="utf-8").startswith(f"# code {code_hash(folder)}\n"):
        text = "the code changed since this job was submitted (git pull?): it runs the new code with the config of then"
        print(f"warning: {text}", file=sys.stderr)
    return config


def code_hash(folder: Path) -> str:
    """Return a hash of the rules and the package in the repository `folder`."""
    whole = hashlib.sha256()
    for file in sorted(file for pattern in CODE for file in folder.glob(pattern)):
        whole.update(file.read_bytes() + b"\0")
    return whole.hexdigest()[:16]
