"""The notebook: committed without outputs, and every cell of it runs."""

import ast
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from conftest import ROOT

NOTEBOOK = ROOT / "notebooks/first-steps.ipynb"


def cells(kind):
    """Return the cells of a kind."""
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_it_is_committed_without_outputs_and_its_cells_are_python():
    code = cells("code")
    assert len(code) > 5 and not any(cell["outputs"] or cell["execution_count"] for cell in code)
    for cell in code:
        ast.parse("".join(cell["source"]))
    links = [line for cell in cells("markdown") for line in cell["source"] if "](" in line]
    for target in (part.split(")")[0] for line in links for part in line.split("](")[1:]):
        assert (NOTEBOOK.parent / target).is_file(), target


@pytest.mark.long
def test_every_cell_runs_from_the_first_to_the_last(tmp_path):
    text = "\n\n".join("".join(cell["source"]) for cell in cells("code"))
    (tmp_path / "cells.py").write_text(f"{text}\n\nassert len(plt.get_fignums()) == 4 and error < guess\n")
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT / "workflow")}
    command = [sys.executable, "cells.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "people: the network is" in ended.stdout
    assert len(pd.read_csv(tmp_path / "first-steps/history.csv")) == 20
