"""Which room may import which: no circle, no arrow upwards, and mathematics imports only torch."""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

import polytask
from tests.scripts import load_script

ROOT = Path(polytask.__file__).parent
PRINTS = ("print", "sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__")
PRINTING = (ast.Name, ast.Attribute)
# The process of a comparison's job, whose output is the log of that job.
LOGS = ROOT / "compare" / "_command.py"
SCRIPT = Path(__file__).parents[2] / "scripts" / "imports.py"

# Rooms of mathematics, and what they may import from outside the project.
MATHEMATICS = ("_linalg", "_distributed", "batch", "weighting", "losses", "models", "gradients")
OUTSIDE = {"torch", "numpy"}
# Modules that `--help` and readers of records wait for: only the standard library at the top.
LIGHT = (
    "__init__.py",
    "_errors.py",
    "_files.py",
    "_lazy.py",
    "_version.py",
    "cli",
    "runs/__init__.py",
    "runs/_folders.py",
)


def script():
    return load_script("imports", SCRIPT)


IMPORTS = script()
MAY_IMPORT = IMPORTS.MAY_IMPORT
ARROWS = IMPORTS.graph(ROOT)
BETWEEN = IMPORTS.rooms(ARROWS)


def files(place):
    path = ROOT / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path if path.suffix else path.with_suffix(".py")]


def third_party(name):
    return name.split(".")[0] not in {*sys.stdlib_module_names, "polytask"}


def imported(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_table_names_every_room():
    assert sorted(MAY_IMPORT) == sorted(BETWEEN)


def test_the_table_goes_upwards_only():
    order = list(MAY_IMPORT)
    above = {
        (name, other)
        for name, others in MAY_IMPORT.items()
        for other in others
        if other not in order[: order.index(name)]
    }
    assert not above


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_rooms_below_it_only(name):
    assert BETWEEN[name] <= set(MAY_IMPORT[name])


def test_no_circle():
    assert IMPORTS.circles(ARROWS) == []
    assert IMPORTS.circles(BETWEEN) == []


def test_few_modules_at_the_top():
    assert len(list(ROOT.glob("*.py"))) <= 17


@pytest.mark.parametrize("name", MATHEMATICS)
def test_mathematics_rests_on_torch_only(name):
    for path in files(name):
        outside = {found.split(".")[0] for found in imported(path) if third_party(found)}
        assert outside <= OUTSIDE, path.name


def test_config_names_the_others_by_import_path_only():
    for path in files("config"):
        for name in imported(path, top_level_only=True):
            assert not third_party(name) or name.split(".")[0] in {"omegaconf", "yaml"}


@pytest.mark.parametrize("place", LIGHT)
def test_what_help_needs_imports_nothing_heavy(place):
    for path in files(place):
        if "template" not in path.parts:
            assert not [name for name in imported(path, top_level_only=True) if third_party(name)], path.name


def definitions(path):
    """Classes and type aliases of a module, with or without an underscore."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name.strip("_")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id.strip("_") for target in targets if isinstance(target, ast.Name)]
            yield from (name for name in names if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name))


def test_a_class_or_a_type_has_a_name_of_its_own():
    # GradNorm is a weighting, and a criterion with that weighting. The template is a user's project.
    modules = [path for path in ROOT.rglob("*.py") if "template" not in path.parts]
    found = Counter(name for path in modules for name in definitions(path))
    assert {name for name, number in found.items() if number > 1} == {"GradNorm"}


def test_a_module_has_a_name_of_its_own():
    # A room's base classes, and what runs a command.
    paths = [path for path in ROOT.rglob("*.py") if path.name != "__init__.py"]
    found = Counter(path.stem.strip("_") for path in paths)
    assert {name for name, number in found.items() if number > 1} == {"base", "main"}


@pytest.mark.slow
def test_only_the_command_line_prints():
    for path in ROOT.rglob("*.py"):
        # Its output is not handed on either, for example to a console or a function that writes.
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, PRINTING)]
        prints = [node for node in nodes if ast.unparse(node) in PRINTS]
        assert not prints or "cli" in path.relative_to(ROOT).parts or path == LOGS, path.name


@pytest.mark.parametrize("room", [name for name in MAY_IMPORT if (ROOT / name).is_dir()])
def test_a_room_says_what_it_is_for(room):
    text = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
    assert text
