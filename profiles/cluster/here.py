"""The profile: the folder that holds `scheduler.py`, the adapter, and links to the programs beside this file.

Python takes modules from the folder that a link leads to. The profile, where the link stands, comes before it.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(sys.argv[0]).absolute().parent))
import scheduler

PROFILE = Path(os.path.abspath(scheduler.__file__)).parent  # noqa: PTH100 - links stay what they are
STATE = Path(".snakemake", PROFILE.name)
LOGS = Path("logs", PROFILE.name)
