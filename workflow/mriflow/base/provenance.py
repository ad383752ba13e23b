"""What is needed to make a result again."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("mriflow", "torch", "monai", "scikit-learn", "numpy", "antspyx", "deepbet", "snakemake")


def provenance(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is needed to make the result again: settings, versions and the commit of the code."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    versions = {name: version(name) for name in PACKAGES}
    return {
        "git_commit": commit or None,
        "python": platform.python_version(),
        "versions": versions,
        "settings": settings,
    }
