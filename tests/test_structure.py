"""The house keeps its two rules, and its map names every file."""

import ast
import re
from pathlib import Path

import mriflow

PACKAGE = Path(mriflow.__file__).parent
COMMANDS = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))
MODULES = {path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__")}


def imports_of(module: Path) -> set[str]:
    """Return what of the package a module imports, as `train` or `training.loop`; imports within functions count, too."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / module).with_suffix(".py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mriflow":
            within = node.module.removeprefix("mriflow").lstrip(".")
            found |= {".".join(filter(None, (within, alias.name))) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("mriflow.") for alias in node.names if alias.name.startswith("mriflow.")}
    return found


def test_no_folder_imports_a_command_and_no_command_another():
    assert len(COMMANDS) > 10 and len(MODULES) > 50
    wrong = [
        f"{module} imports {name}"
        for module in sorted(MODULES)
        for name in imports_of(module)
        if name.split(".")[0] in COMMANDS
    ]
    assert not wrong


def test_only_commands_have_a_main():
    mains = {module for module in MODULES if "run_stage(main)" in (PACKAGE / module).with_suffix(".py").read_text()}
    assert mains == {Path(name) for name in COMMANDS}


def test_no_folders_import_each_other_in_a_circle():
    """Folders stand on floors: what one needs lies below it."""
    needs = {folder: set() for folder in {module.parts[0] for module in MODULES if len(module.parts) > 1}}
    for module in MODULES:
        if module.parts[0] in needs and len(module.parts) > 1:
            needs[module.parts[0]] |= {name.split(".")[0] for name in imports_of(module)} & needs.keys() - {module.parts[0]}
    while free := [folder for folder, others in needs.items() if not others]:
        needs = {folder: others - set(free) for folder, others in needs.items() if folder not in free}
    assert not needs


def test_the_map_names_every_file_where_it_is():
    folder, named = "", set()
    for line in mriflow.__doc__.splitlines():
        if match := re.match(r"    (\w+)/  ", line):
            folder = match[1]
        elif match := re.match(r"    (    )?(\w+)  ", line):
            named.add(Path(folder if match[1] else "", match[2]))
    assert named == MODULES
