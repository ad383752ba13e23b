"""The house keeps its two rules, nothing in it runs in a circle, and its map names every file."""

import ast
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import mriflow
from conftest import ROOT
from mriflow.base.commands import COMMANDS

PACKAGE = Path(mriflow.__file__).parent
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
MODULES = {name: path for name, path in FILES.items() if not path.stem.startswith("__")}
FOLDERS = {name.split(".")[0] for name in MODULES if "." in name}
# The console command runs a command by its name, and the reference describes all of them.
BY_NAME = {"__main__", "reference"}


def names_in(path: Path) -> set[str]:
    """Return what of the package a file names, as `train` or `training.loop`; imports within functions count, too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, which this test does not follow"
            if (node.module or "").split(".")[0] == "mriflow":
                within = node.module.removeprefix("mriflow").lstrip(".")
                names |= {".".join(filter(None, (within, alias.name))) for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("mriflow.") for alias in node.names if alias.name.startswith("mriflow.")}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mriflow":
            names.add(node.attr)
    return names


def modules_in(path: Path) -> set[str]:
    """Return the modules of the package that a file names."""
    names = names_in(path)
    return (names | {name.rpartition(".")[0] for name in names}) & MODULES.keys()


def test_the_commands_are_the_files_at_the_top():
    assert set(COMMANDS) == {name for name in MODULES if "." not in name}


def test_no_folder_imports_a_command_and_no_command_another():
    assert len(COMMANDS) > 10 and len(MODULES) > 50
    named = {(name, other) for name, path in FILES.items() for other in names_in(path) if other.split(".")[0] != "__main__"}
    assert not [f"{name} imports {other}" for name, other in named if other.split(".")[0] in COMMANDS]
    assert not [name for name, path in FILES.items() if "__main__" in {other.split(".")[0] for other in names_in(path)}]


def test_modules_are_imported_by_name_where_all_commands_are_meant_alone():
    assert {name for name, path in FILES.items() if re.search(r"import_module|__import__|runpy", path.read_text())} == BY_NAME


def test_only_commands_have_a_main_that_runs():
    def runs(path: Path) -> bool:
        guards = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
        return any(
            "__main__" in ast.unparse(guard.test) and "run_stage(main)" in ast.unparse(guard.body[0]) for guard in guards
        )

    assert {name for name, path in MODULES.items() if runs(path)} == set(COMMANDS)


def test_nothing_runs_in_a_circle():
    """Neither modules nor folders: what one needs lies on a floor below it."""
    needs = {name: modules_in(path) - {name} for name, path in MODULES.items()}
    assert sum(map(len, needs.values())) > 100
    TopologicalSorter(needs).prepare()  # raises CycleError
    of_folder = {folder: set() for folder in FOLDERS}
    for name, others in needs.items():
        if "." in name:
            of_folder[name.split(".")[0]] |= {other.split(".")[0] for other in others} - {name.split(".")[0]}
    TopologicalSorter(of_folder).prepare()


def test_the_map_names_every_file_where_it_is_and_every_command_as_the_help_does():
    folder, named, commands = "", set(), {}
    for line in mriflow.__doc__.splitlines():
        if match := re.match(r"    (\w+)/  ", line):
            folder = match[1]
        elif match := re.match(r"    (    )?(\w+) +(.+)", line):
            named.add(f"{folder}.{match[2]}" if match[1] else match[2])
            if not match[1]:
                commands[match[2]] = match[3]
    assert named == MODULES.keys()
    assert list(commands.items()) == list(COMMANDS.items())


def test_what_is_installed_needs_the_versions_that_were_tried():
    """Dependencies of pyproject.toml and the lines of envs/requirements.txt, but for those of developing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["workflow"]]
    text = (ROOT / "envs/requirements.txt").read_text().partition("# developing")[0]
    tried = [line.split(" #")[0].strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert sorted(declared) == sorted(tried)


def test_every_file_in_the_package_is_installed_with_it():
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    models = [path for pattern in packaged["mriflow"] for path in PACKAGE.glob(pattern)]
    others = [
        path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py"
    ]
    assert others and all(path in models or any(path.match(pattern) for pattern in packaged["*"]) for path in others)
    assert all((path.parent / "__init__.py").is_file() for path in [*FILES.values(), *others] if path not in models)
