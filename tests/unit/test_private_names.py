"""Private names of Lightning, torchmetrics and torch's loaders are used in one room only."""

import ast
from pathlib import Path

import polytask

ROOT = Path(polytask.__file__).parent
ROOM = sorted((ROOT / "_lightning").rglob("*.py"))
OTHERS = sorted(set(ROOT.rglob("*.py")) - set(ROOM))
PACKAGES = (
    "pytorch_lightning",
    "lightning_fabric",
    "lightning_utilities",
    "torchmetrics",
    "torch.utils.data",
)


def private_accesses(path):
    """Attributes with a leading underscore of objects other than ``self`` and ``cls``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}):
                yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "setattr", "hasattr"}:
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(name.value):
                yield name.value


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A module, or an attribute, that is named by a string.
            yield node.value


def test_private_attributes_are_read_and_set_in_the_room():
    known = {name for path in ROOM for name in private_accesses(path)}
    assert known == {
        "_accelerator_connector",
        "_combined_loader",
        "_data_connector",
        "_data_fetcher",
        "_dataset",
        "_default_root_dir",
        "_enable_version_counter",
        "_iterator",
        "_next_index",
        "_num_ready_batches_reached",
        "_prepare_dataloader",
        "_restarting",
        "_scheduler_state",
        "_should_unsync",
        "_signal_connector",
        "_to_sync",
        "_update_count",
    }
    assert {path.name: found for path in OTHERS if (found := known & set(private_accesses(path)))} == {}


def test_warnings_are_silenced_in_the_room():
    filters = ("warnings.filterwarnings", "warnings.simplefilter", "filterwarnings", "simplefilter")
    for path in OTHERS:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert [call.lineno for call in calls if ast.unparse(call.func) in filters] == [], path


def test_private_modules_and_classes_are_imported_in_the_room():
    for path in OTHERS:
        names = [name for name in imported(path) if name.startswith(PACKAGES) and " " not in name]
        assert [name for name in names if any(map(is_private, name.split(".")))] == [], path
