"""From the string of a ``_target_`` to the object that it names."""

import ast
import difflib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from polytask._errors import Reason, UserError
from polytask._lazy import uncollected
from polytask.config._kinds import full_name, is_allowed, is_value
from polytask.config._project import forget, holds, install, is_from
from polytask.config._trust import ROOTS, is_package

_EXTRAS = {"torchvision": '"polytask[vision]"', "torchjd": '"polytask[torchjd]"'}
_NAME = re.compile(r"[A-Za-z]\w*(?:\.[A-Za-z]\w*)+")


class TargetResolver:
    """Finds the objects that targets name, and refuses those that a config may not use.

    Args:
        project: The folder whose modules may be imported.
        allow: Further dotted names that the user allows.
        untrusted: A project folder that the config names and that must not be imported.
    """

    def __init__(
        self, project: Path | None = None, allow: Sequence[str] = (), untrusted: str | None = None
    ) -> None:
        self.project = project
        self.allow = tuple(allow)
        self.untrusted = untrusted
        self._found: dict[str, Any] = {}

    def find(self, target: object, where: str) -> Any:
        """The class or function that ``target`` names.

        Args:
            target: A dotted name.
            where: The key, for messages.

        Raises:
            UserError: If it cannot be imported, does not exist, or is not of an allowed kind.
        """
        if not isinstance(target, str) or not _NAME.fullmatch(target):
            rule = "a _target_ must be the dotted name of a public class or function"
            raise UserError(where, rule, repr(target), "Write for example torch.nn.Linear")
        if target not in self._found:
            self._found[target] = self._judged(target, self._imported(target, where), where)
        return self._found[target]

    def _imported(self, target: str, where: str) -> Any:
        root, *rest = target.split(".")
        self._check_root(target, root, where)
        found: Any = self._module(root, where)
        path = root
        for name in rest:
            path = f"{path}.{name}"
            found = self._member(found, name, path, where)
            if isinstance(found, ModuleType) and found.__name__.partition(".")[0] != root:
                raise _refused(where, target, f"the module '{found.__name__}'")
        return found

    def _check_root(self, target: str, root: str, where: str) -> None:
        if self.project is not None and holds(self.project, root):
            install(self.project)
            if root in sys.modules and not is_from(self.project, root):
                _unload(root, self.project, where)
            return
        if root in ROOTS or root in {name.partition(".")[0] for name in self.allow}:
            return
        if self.untrusted is not None:
            rule = f"a checkpoint's project is imported only on request, and '{target}' needs it"
            raise UserError(
                where, rule, None, f"Pass --project DIR if you trust it (it was {self.untrusted})"
            )
        if root == "lightning":
            instead = target.replace("lightning.pytorch", "pytorch_lightning", 1)
            raise UserError(where, "Lightning must be written pytorch_lightning", target, f"Write {instead}")
        if root in sys.stdlib_module_names:
            raise _refused(where, target, f"Python's own module '{root}'")
        if is_package(root):
            found = f"'{root}', which is installed and not among the packages that a config may import"
            fix = f"Pass --allow {root} if you trust it"
            raise UserError(where, f"'{target}' cannot be imported", Reason(found), fix)
        searched = f" in {self.project}" if self.project else ", and the config names no project folder"
        own = [] if self.project is None else [file.stem for file in self.project.glob("*.py")]
        close = difflib.get_close_matches(root, [*ROOTS, *own], n=1, cutoff=0.75)
        add = "Set 'project: DIR'" if self.project is None else "Add it there"
        fix = f"Did you mean '{close[0]}'?" if close else f"{add}, or pass --allow {root}"
        raise UserError(
            where, f"'{target}' cannot be imported", Reason(f"there is no module '{root}'{searched}"), fix
        )

    def _module(self, name: str, where: str) -> ModuleType:
        try:
            with uncollected():
                return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise self._broken(name, error, where) from error
            package = _EXTRAS.get(name, name)
            rule = f"the package '{name}' is not installed"
            raise UserError(where, rule, None, f"pip install {package}") from None
        except Exception as error:
            raise self._broken(name, error, where) from error

    def _broken(self, name: str, error: Exception, where: str) -> UserError:
        location = _location(error, self.project)
        fix = "See --debug for the traceback"
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            package = error.name.partition(".")[0]
            fix = f"pip install {_EXTRAS.get(package, package)}"
        return UserError(where, f"importing '{name}' failed{location}", Reason.of(error), fix)

    def _member(self, parent: Any, name: str, path: str, where: str) -> Any:
        try:
            return getattr(parent, name)
        except AttributeError:
            pass
        except Exception as error:
            raise self._broken(path, error, where) from error
        if isinstance(parent, ModuleType) and hasattr(parent, "__path__") and _has_submodule(parent, name):
            return self._module(path, where)
        names = {member: f"{path.rpartition('.')[0]}.{member}" for member in _public(parent)}
        if isinstance(parent, ModuleType):
            names |= {member: full for member, full in _exported_below(parent) if member not in names}
        close = _closest(name, names)
        fix = f"Did you mean '{names[close]}'?" if close else None
        raise UserError(where, f"'{path.rpartition('.')[0]}' has no '{name}'", None, fix)

    def _judged(self, target: str, found: Any, where: str) -> Any:
        if isinstance(found, ModuleType):
            raise UserError(where, "a _target_ must be a class or a function", f"the module '{target}'")
        if not is_allowed(found, target, self.project, self.allow):
            raise _refused(where, target, f"'{full_name(found)}'")
        if not callable(found) and not is_value(found):
            raise UserError(where, "a _target_ must be callable", f"'{target}', a {type(found).__name__}")
        return found


def _refused(where: str, target: str, found: str) -> UserError:
    return UserError(
        where,
        f"'{target}' is no model, loss, metric, callback, data set or other part that a config may build",
        Reason(found),
        f"Put your own code into the project folder, or pass --allow {target} if you trust it",
    )


def _unload(root: str, project: Path, where: str) -> None:
    """Remove an installed package from ``sys.modules`` if the project has a module of the same name."""
    if root in ROOTS or root in ("numpy", "omegaconf", "yaml", "lightning_fabric"):
        fix = "Rename the folder or file"
        raise UserError(
            where, f"'{root}' in {project} must not have the name of a package that polytask needs", None, fix
        )
    forget([root])


def _location(error: Exception, project: Path | None) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if project is not None and Path(frame.filename).is_relative_to(project)]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def _has_submodule(parent: ModuleType, name: str) -> bool:
    return importlib.util.find_spec(f"{parent.__name__}.{name}") is not None


def _public(parent: object) -> list[str]:
    # A name that is imported when it is first used is not in `dir`.
    exported = getattr(parent, "__all__", ())
    return [name for name in dict.fromkeys([*dir(parent), *exported]) if not name.startswith("_")]


def _exported_below(parent: ModuleType) -> Iterable[tuple[str, str]]:
    """Names that the packages directly inside export, read from their source without importing them."""
    for folder in getattr(parent, "__path__", ()):
        for init in sorted(Path(folder).glob("[a-z]*/__init__.py")):
            for name in _all_of(init):
                yield name, f"{parent.__name__}.{init.parent.name}.{name}"


def _all_of(init: Path) -> list[str]:
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "__all__"
            and isinstance(node.value, ast.List)
        ):
            return [str(item.value) for item in node.value.elts if isinstance(item, ast.Constant)]
    return []


def _closest(name: str, names: Iterable[str]) -> str | None:
    """The name most similar to ``name``; a common first part counts more than a common ending."""
    first = _first_part(name)

    def score(other: str) -> float:
        ratio = difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()
        return ratio + 0.4 * (_first_part(other) == first)

    best = max(names, key=score, default=None)
    return best if best is not None and score(best) >= 0.6 else None


def _first_part(name: str) -> str:
    match = re.match(r"[A-Z]?[a-z0-9]+|[A-Z]+|\w+", name)
    return match[0].lower() if match else name
