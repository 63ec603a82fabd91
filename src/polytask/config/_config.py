"""`Config`: files and overrides, merged, resolved, checked and built."""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from polytask._errors import UserError, distinct
from polytask._files import write_text
from polytask.config._build import Builder
from polytask.config._check import check
from polytask.config._locations import Locations
from polytask.config._overrides import MOVED, override
from polytask.config._read import Plain, Source, check_plain, read_file
from polytask.config._references import References, referred, step
from polytask.config._resolve import TargetResolver
from polytask.config._trust import is_installed

_IMPLICIT = {"trainer": "pytorch_lightning.Trainer", "system": "polytask.System"}


class Config:
    """A run's config. Made by `Config.read` or `Config.from_plain`.

    Errors in the syntax of its files, or in an override, are raised when it is made. All others are listed
    by `problems`; `plain` and `build` raise the first that concerns them.

    Args:
        sources: Values in the order in which they are merged.
        overrides: ``key=value`` strings.
        allow: Dotted names that targets may use in addition to those of the known kinds.
        project: The project's folder, instead of the one that the config names.
        trusted: Whether the project that the config names may be imported.

    Example:
        >>> values = {"seed": 1, "system": {"model": {"_target_": "torch.nn.ReLU"}}}
        >>> config = Config.from_plain(values, where="last.ckpt", overrides=["seed=2"])
        >>> config.plain["seed"], config.build("system.model")
        (2, ReLU())
    """

    def __init__(
        self,
        sources: Sequence[Source],
        overrides: Sequence[str] = (),
        allow: Sequence[str] = (),
        *,
        project: Path | None = None,
        trusted: bool = True,
    ) -> None:
        tree: Plain = {}
        base: Path | None = None
        self._problems: list[UserError] = []
        for source in sources:
            tree = merge(tree, self._in_place(source))
            base = source.folder if "project" in source.values else base
        for key in _IMPLICIT:
            if key == "trainer":
                tree.setdefault(key, {})
            if isinstance(tree.get(key), dict):
                tree[key] = {"_target_": _IMPLICIT[key], **tree[key]}
        set_paths = [override(tree, text) for text in overrides]
        if ("project",) in set_paths:
            base = Path.cwd()
        self._merged = Source("the config", copy.deepcopy(tree), folder=base)
        self._where = Locations(sources, set_paths)
        references = References(tree, self._where)
        with _bounded(self._where(())):
            self._plain = references.resolve()
        if "project" in tree:
            self._plain["project"] = tree["project"]
        self._problems += references.problems
        trusted = trusted or project is not None or ("project",) in set_paths
        self._project = self._folder(base, project, trusted)
        untrusted = None if trusted else self._plain.get("project")
        self._targets = TargetResolver(self._project if trusted else None, allow, untrusted)
        self._builder = Builder(self._plain, self._targets, self._where)

    @classmethod
    def read(
        cls, files: Sequence[str | Path], overrides: Sequence[str] = (), *, allow: Sequence[str] = ()
    ) -> "Config":
        """The config of some files, merged from left to right.

        Args:
            files: YAML files; mappings are merged, but a mapping with another ``_target_`` and any other
                value replaces the earlier one.
            overrides: ``key=value`` strings, applied last.
            allow: Dotted names that targets may use in addition to those of the known kinds.

        Raises:
            UserError: If a file cannot be read, or an override sets a key that does not exist.
        """
        if not files:
            raise UserError(
                "--config", "a file is required", "none", "Write for example --config config.yaml"
            )
        return cls([read_file(file) for file in files], overrides, allow)

    @classmethod
    def from_plain(
        cls,
        values: Mapping[Any, Any],
        *,
        where: str,
        overrides: Sequence[str] = (),
        allow: Sequence[str] = (),
        project: Path | None = None,
    ) -> "Config":
        """The config in a checkpoint. Its project is imported only if ``project`` names it.

        Args:
            values: The value of `plain` when it was saved.
            where: Its name in messages, such as the checkpoint's path.
            overrides: ``key=value`` strings.
            allow: Dotted names that targets may use in addition to those of the known kinds.
            project: The folder whose modules may be imported.

        Raises:
            UserError: If the values are not plain data, or an override sets a key that does not exist.

        Example:
            >>> config = Config.from_plain({"seed": 1, "system": {}}, where="last.ckpt")
            >>> config.seed, config.plain["system"]
            (1, {'_target_': 'polytask.System'})
        """
        if not isinstance(values, Mapping):
            raise UserError(where, "must contain a mapping of keys", type(values).__name__)
        check_plain(values, (), where)
        source = Source(where, copy.deepcopy(dict(values)))
        return cls([source], overrides, allow, project=project, trusted=False)

    @property
    def plain(self) -> dict[str, Any]:
        """The merged and resolved config: mappings, lists, strings, numbers, bools and null.

        It is a valid config. A reference to an object is kept, as ``$@key``, and so is
        ``${oc.env:NAME}``: a saved config holds the variable's name and not its value.

        Raises:
            UserError: The first reference that could not be resolved.
        """
        self._raise_first()
        return copy.deepcopy(self._plain)  # type: ignore[arg-type]

    @property
    def merged(self) -> Source:
        """The files with the overrides, before references are resolved: others can be merged over it."""
        return self._merged

    @property
    def project(self) -> Path | None:
        """The folder whose modules targets may name."""
        return self._project

    @property
    def seed(self) -> int | None:
        """The seed of the run."""
        return self._plain.get("seed")

    def __contains__(self, key: str) -> bool:
        node: Any = self._plain
        left = key.split(".")
        while left:
            if (found := step(node, left)) is None:
                return False
            node, left = node[found[0]], found[1]
        return True

    def dump(self, path: str | Path) -> None:
        """Write `plain` as YAML, which `read` reads again.

        Args:
            path: A file; an existing one is replaced.
        """
        write_text(Path(path), OmegaConf.to_yaml(OmegaConf.create(self.plain)))

    def problems(self) -> list[UserError]:
        """All problems that can be found without reading data.

        Targets are imported and their arguments compared with their signatures; metrics are
        built, because they hide their arguments.
        """
        with _bounded(self._where(())):
            found = [*self._problems, *check(self._plain, self._targets, self._where)]
        return distinct(found)

    def build(self, key: str, given: Mapping[str, Any] | None = None) -> Any:
        """The object at a dotted key; every call returns the same object.

        Args:
            key: For example ``system.model``.
            given: Arguments that replace those of the config, which are then not built.

        Raises:
            UserError: If there is no such key, or a target is refused or cannot be built.

        Example:
            >>> config = Config.from_plain({"vars": {"head": {"_target_": "torch.nn.ReLU"}}}, where="x")
            >>> config.build("vars.head")
            ReLU()
            >>> config.build("vars.head") is config.build("vars.head")
            True
        """
        self._raise_first()
        with _bounded(self._where(())):
            path = References(self._plain, self._where).find(key, self._where(()))
            return self._builder.build(path, given)

    def _raise_first(self) -> None:
        for error in self._problems:
            raise error

    def _in_place(self, source: Source) -> Plain:
        """The source's values, with keys that are allowed at the top moved to where they belong."""
        values = copy.deepcopy(source.values)
        for key in MOVED:
            if key not in values:
                continue
            system = values.setdefault("system", {})
            if isinstance(system, dict) and key in system:
                where = Locations([source])
                rule = f"'{key}' must not be both at the top and under system"
                self._problems.append(UserError(where((key,)), rule, None, "Keep one of them"))
            elif isinstance(system, dict):
                system[key] = values[key]
            del values[key]
        return values

    def _folder(self, base: Path | None, given: Path | None, trusted: bool) -> Path | None:
        if given is not None:
            self._plain["project"] = str(Path(given).resolve())
        written = self._plain.get("project")
        if written is None:
            return None
        folder = ((base or Path.cwd()) / str(written)).resolve()
        if (misfit := _no_project(written, folder, trusted)) is not None:
            self._problems.append(UserError(self._where(("project",)), *misfit))
            return None
        self._plain["project"] = str(folder)
        return folder


@contextlib.contextmanager
def _bounded(where: str) -> Iterator[None]:
    try:
        yield
    except RecursionError:
        rule = "too many references refer to each other in a row"
        raise UserError(where, rule, None, "Refer to the last one") from None


def _no_project(written: object, folder: Path, trusted: bool) -> tuple[str, str, str | None] | None:
    """Why a folder cannot be a project: the rule, the value and the fix; None if it can."""
    if isinstance(written, str) and (referred(written) or "${" in written):
        return "must be a path without references", repr(written), "Write it, or pass project=DIR"
    if not isinstance(written, str) or (trusted and not folder.is_dir()):
        return "must be a folder", repr(written), None
    if trusted and is_installed(folder):
        rule = "must be a folder of your own code, outside of Python's library and installed packages"
        return rule, repr(written), "Name the config's own folder, project: ."
    return None


def merge(left: Any, right: Any) -> Any:
    """``right`` merged over ``left``: mappings key by key, any other value replaces the earlier one.

    A mapping whose ``_target_`` differs from that of the earlier one describes another object, for which the
    earlier arguments were not meant, and replaces it.

    Example:
        >>> sgd = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
        >>> merge(sgd, {"lr": 0.2})
        {'_target_': 'torch.optim.SGD', 'lr': 0.2, 'momentum': 0.9}
        >>> merge(sgd, {"_target_": "torch.optim.Adam", "lr": 0.2})
        {'_target_': 'torch.optim.Adam', 'lr': 0.2}
    """
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return right
    if "_target_" in left and right.get("_target_", left["_target_"]) != left["_target_"]:
        return right
    return {
        **left,
        **{key: merge(left[key], value) if key in left else value for key, value in right.items()},
    }


def closest(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> list[str]:
    """Dotted keys in which two plain configs differ.

    Args:
        left: A config's values.
        right: Another's.

    Example:
        >>> closest({"trainer": {"max_epochs": 1}, "seed": 0}, {"trainer": {"max_epochs": 2}, "seed": 0})
        ['trainer.max_epochs']
    """
    return list(_differences(left, right, ""))


def _differences(left: Any, right: Any, key: str) -> Iterator[str]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for name in dict.fromkeys([*left, *right]):
            inner = f"{key}.{name}" if key else str(name)
            if name in left and name in right:
                yield from _differences(left[name], right[name], inner)
            else:
                yield inner
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _differences(one, other, f"{key}.{index}")
    elif type(left) is not type(right) or (left != right and not (left != left and right != right)):
        yield key
