"""Which room may import which: no circle, no arrow upwards, and mathematics imports only torch."""

import ast
import sys
from pathlib import Path

import pytest

import polytask
from tests.scripts import load_script

ROOT = Path(polytask.__file__).parent
PRINTS = ("print", "sys.stdout.write", "sys.stderr.write")
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


@pytest.mark.slow
def test_only_the_command_line_prints():
    for path in ROOT.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = [call for call in calls if ast.unparse(call.func) in PRINTS]
        assert not prints or "cli" in path.relative_to(ROOT).parts or path == LOGS, path.name


@pytest.mark.parametrize("room", [name for name in MAY_IMPORT if (ROOT / name).is_dir()])
def test_a_room_says_what_it_is_for(room):
    text = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
    assert text
