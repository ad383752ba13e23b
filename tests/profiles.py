"""The modules of a profile, as a program of that profile sees them."""

import importlib
import sys
from types import SimpleNamespace

from conftest import ROOT

SHARED = ROOT / "profiles/cluster"


def load(name: str) -> SimpleNamespace:
    """Import the modules of a profile, beside those of another one."""
    names = ["scheduler", *(file.stem for file in SHARED.glob("*.py"))]
    before, path = {one: sys.modules.pop(one) for one in names if one in sys.modules}, sys.path[:]
    sys.path[:0] = [str(ROOT / "profiles" / name), str(SHARED)]
    try:
        wanted = ("base", "scheduler", "here", "dialect", "command", "jobs", "look")
        return SimpleNamespace(**{one: importlib.import_module(one) for one in wanted})
    finally:
        for one in names:
            sys.modules.pop(one, None)
        sys.modules.update(before)
        sys.path[:] = path
