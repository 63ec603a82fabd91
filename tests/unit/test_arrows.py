"""Who imports whom: mathematics knows torch only, and rooms know those below them."""

import ast
import sys
from pathlib import Path

import pytest

import polytask

ROOT = Path(polytask.__file__).parent
BELOW = {"polytask._errors", "polytask._ranks", "polytask._tasks", "polytask._targets", "polytask._term"}
MATHEMATICS = {
    "_linalg": {"polytask._linalg", *BELOW},
    "weighting": {"polytask.weighting", "polytask._linalg", *BELOW},
    "models": {"polytask.models", *BELOW},
    "losses": {"polytask.losses", "polytask.weighting", *BELOW},
    "gradients": {"polytask.gradients", "polytask.weighting", "polytask.models", "polytask.losses", *BELOW},
    "_term.py": BELOW,
    "_ranks.py": BELOW,
    "_targets.py": BELOW,
    "_tasks.py": BELOW,
}
OUTSIDE = {"torch", "numpy"}
NO_TORCH = {"cli.py", "__init__.py", "_errors.py", "_version.py", "runs.py"}


def files(place):
    path = ROOT / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def imports(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "polytask":
            yield from (f"polytask.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def within(name, rooms):
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def third_party(name):
    return name.split(".")[0] not in {*sys.stdlib_module_names, "polytask"}


@pytest.mark.parametrize("place", MATHEMATICS)
def test_mathematics_imports_torch_and_its_own_rooms_only(place):
    for path in files(place):
        for name in imports(path):
            if third_party(name):
                assert name.split(".")[0] in OUTSIDE, f"{path.name} imports {name}"
            elif name.startswith("polytask"):
                assert within(name, MATHEMATICS[place]), f"{path.name} imports {name}"


def test_config_knows_the_others_by_import_path_only():
    for path in files("config"):
        for name in imports(path, top_level_only=True):
            assert not name.startswith("polytask") or within(name, {"polytask.config", "polytask._errors"})
            assert not third_party(name) or name.split(".")[0] in {"omegaconf", "yaml"}


@pytest.mark.parametrize("place", sorted(NO_TORCH))
def test_what_help_needs_imports_nothing_heavy(place):
    for name in imports(ROOT / place, top_level_only=True):
        assert not third_party(name), f"{place} imports {name}"


def test_only_the_command_line_prints():
    for path in ROOT.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        assert not prints or path.name in ("cli.py", "commands.py"), path.name
