"""What is needed to make a result again."""

import platform
import shutil
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("mriflow", "torch", "monai", "scikit-learn", "numpy", "antspyx", "deepbet", "snakemake")


def provenance(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is needed to make the result again: settings, versions and the commit of the code, if it is known."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() if shutil.which("git") else ""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # Snakemake, where the package alone is installed
            versions[name] = version(name)
    return {
        "git_commit": commit or None,
        "python": platform.python_version(),
        "versions": versions,
        "settings": settings,
    }
