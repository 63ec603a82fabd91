"""What is compared: methods, single-task models and the plain sum, each as changes of one config."""

import functools
import inspect
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polytask import weighting
from polytask._errors import UserError, hint
from polytask.compare._names import SINGLE, SUM, Kind, candidate_name, row_name
from polytask.compare._space import Space
from polytask.config._read import Plain, Source, read_file
from polytask.weighting import Weighting
from polytask.weighting._catalogue import methods

BASE = "base"
SPACE = "space"
# Options of System that a weighting without gradients cannot have.
_PLAIN_STEP: Plain = {"level": None, "refresh_every": 1, "scale_heads": None}
# Data, metrics and budget: rows that differ in these could not be compared.
_SAME = (
    "seed",
    "project",
    "system.dataloaders",
    "system.metrics",
    *(f"trainer.max_{unit}" for unit in ("epochs", "steps", "time")),
    *(f"trainer.min_{unit}" for unit in ("epochs", "steps")),
    *(f"trainer.limit_{stage}_batches" for stage in ("train", "val", "test")),
    "trainer.overfit_batches",
    "trainer.fast_dev_run",
)


@dataclass(frozen=True)
class Candidate:
    """One row of the comparison, or one task's share of the row ``single_task``.

    Attributes:
        method: The row's name.
        kind: ``method``, ``single_task`` or ``plain_sum``.
        architecture: The name of its model; ``base`` is the config's own.
        changes: Values that are merged over the config, in order; and ``space``, which is not.
        task: The task, for a single-task model.
    """

    method: str
    kind: Kind
    architecture: str
    changes: tuple[Plain, ...] = field(hash=False)
    task: str | None = None

    @property
    def name(self) -> str:
        """What folders are named after.

        Example:
            >>> Candidate("single_task", "single_task", "base", (), "digit").name
            'single_task_digit-base'
        """
        return candidate_name(self.method, self.architecture, self.task)

    @property
    def row(self) -> str:
        """The row of the table that it is in."""
        return row_name(self.method, self.architecture)

    def sources(self) -> list[Source]:
        """The changes in the form in which a config is read."""
        return [
            Source(self.name, {key: value for key, value in values.items() if key != SPACE})
            for values in self.changes
        ]

    def space(self) -> Space | None:
        """What is tuned for this row alone: what its files have under ``space``.

        Raises:
            UserError: If it is not a space.

        Example:
            >>> choices = {"space": {"system.criterion.weighting.c": [0.2, 0.4]}}
            >>> Candidate("mine", "method", "base", (choices,)).space().given
            {'system.criterion.weighting.c': [0.2, 0.4]}
        """
        where = f"{self.name} {SPACE}"
        found = [Space(values[SPACE], where) for values in self.changes if SPACE in values]
        for space in found:
            check_tunable(space, where)
        return functools.reduce(operator.or_, found) if found else None


def method_changes(given: str) -> tuple[str, tuple[Plain, ...]]:
    """A method's name and what it changes.

    Args:
        given: A weighting's name in any case, with or without underscores; or a YAML file of overrides.

    Raises:
        UserError: If no weighting has this name, or it requires arguments.

    Example:
        >>> method_changes("nash_mtl")[1][-1]
        {'system': {'criterion': {'weighting': {'_target_': 'polytask.weighting.NashMTL'}}}}
    """
    if _is_file(given):
        return _file_changes(given, "method", ("system", "criterion", "weighting"))
    by_name = {_plain(found.method): found.method for found in methods()}
    if _plain(given) not in by_name:
        fix = hint(given, [found.method.lower() for found in methods()], "Methods")
        if "=" in given:
            fix = "Write overrides before --methods"
        raise UserError("--methods", f"unknown method '{given}'", None, fix)
    kind: type[Weighting] = getattr(weighting, by_name[_plain(given)])
    needed = [
        name
        for name, one in inspect.signature(kind).parameters.items()
        if one.default is inspect.Parameter.empty
    ]
    if needed:
        rule, fix = (
            f"{kind.__name__} requires {', '.join(needed)}",
            "Write a YAML file with system.criterion.weighting",
        )
        raise UserError("--methods", rule, f"the name '{given}' alone", fix)
    changes: list[Plain] = [{"system": {"criterion": {"weighting": None}}}]
    if kind.gradients is None:
        changes.append({"system": _PLAIN_STEP})
    if kind.batches_per_step > 1:
        changes.append({"trainer": {"accumulate_grad_batches": kind.batches_per_step}})
    name = kind.__name__
    return name.lower(), (*changes, _weighted({"_target_": f"polytask.weighting.{name}"}))


def architecture_changes(given: str) -> tuple[str, tuple[Plain, ...]]:
    """An architecture's name and what it changes.

    Args:
        given: A YAML file of overrides, or ``base`` for the config's own model.

    Raises:
        UserError: If there is no such file, or it sets the weighting, which differs from row to row.

    Example:
        >>> architecture_changes("base")
        ('base', ())
    """
    if given == BASE:
        return BASE, ()
    if not _is_file(given):
        rule = "must be a YAML file of overrides, or 'base' for the config's own model"
        raise UserError("--architectures", rule, repr(given), "Write a file with system.model")
    name, changes = _file_changes(given, "architecture", ("system", "model"))
    if name == BASE:
        rule = f"'{BASE}' is reserved for the config's own model"
        raise UserError("--architectures", rule, None, "Rename the file")
    criterion = _at(changes[-1], ("system", "criterion"))
    if isinstance(criterion, Mapping) and "weighting" in criterion:
        rule = "an architecture must not set the weighting"
        raise UserError(given, rule, "system.criterion.weighting", "Write it in a file of --methods")
    return name, changes


def candidates(
    tasks: Sequence[str],
    methods: Mapping[str, Sequence[Plain]],
    architectures: Mapping[str, Sequence[Plain]],
    single_task: bool,
) -> list[Candidate]:
    """Everything that is trained, for each architecture: single-task models, the plain sum, the methods.

    A single-task model is the same model, trained on its task alone: the weights of the other tasks are 0 in
    the total validation loss, and `polytask.callbacks.OneTask` leaves them out in training.

    Args:
        tasks: Task names, in order.
        methods: Changes by name.
        architectures: Changes by name.
        single_task: Whether single-task models are included.

    Example:
        >>> found = candidates(["digit", "odd"], {}, {"base": ()}, single_task=True)
        >>> [candidate.name for candidate in found]
        ['single_task_digit-base', 'single_task_odd-base', 'plain_sum-base']
    """
    found = []
    for architecture, model in architectures.items():
        for task in tasks if single_task else ():
            alone = _summed({name: float(name == task) for name in tasks})
            found.append(Candidate(SINGLE, SINGLE, architecture, (*model, *alone), task))
        found.append(Candidate(SUM, SUM, architecture, (*model, *_summed(dict.fromkeys(tasks, 1.0)))))
        for name, changes in methods.items():
            found.append(Candidate(name, "method", architecture, (*model, *changes)))
    return found


def one_task(task: str, callbacks: Any) -> list[Any]:
    """What ``trainer.callbacks`` becomes, in order, so that one task is trained.

    Args:
        task: The task.
        callbacks: The config's own: a list, a mapping by name, one alone or None.

    Example:
        >>> one_task("digit", {"stop": {"_target_": "mine.Stop"}})
        [{'one_task': {'_target_': 'polytask.callbacks.OneTask', 'task': 'digit'}}]
    """
    node = {"_target_": "polytask.callbacks.OneTask", "task": task}
    if isinstance(callbacks, Mapping) and "_target_" not in callbacks:
        return [{"one_task": node}]
    given = callbacks if isinstance(callbacks, list) else [] if callbacks is None else [callbacks]
    return [None, [*given, node]]


def check_monitors(config: Mapping[Any, Any], task: str) -> None:
    """Raise if other tasks would stop a single-task model, or set its learning rate.

    Args:
        config: The run's config.
        task: The task.

    Raises:
        UserError: With the first such monitor. What `ModelCheckpoint` keeps changes no training.

    Example:
        >>> plateau = {"_target_": "mine.Plateau", "monitor": "val/loss/a/epoch"}
        >>> check_monitors({"trainer": {}, "system": {"scheduler": plateau}}, "a")
    """
    nodes = {
        "trainer.callbacks": config["trainer"].get("callbacks"),
        "system.scheduler": config["system"].get("scheduler"),
    }
    for where, node in nodes.items():
        for monitor in _monitors(node):
            # Also not by the total: 0 times another task's infinite loss is NaN.
            if f"/{task}/" not in monitor:
                rule = f"a model of '{task}' alone must be monitored by that task"
                fix = "Leave the callback or --single-task out, or train a fixed number of epochs"
                raise UserError(where, rule, f"monitor: {monitor}", fix)


def _monitors(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for inner in node:
            yield from _monitors(inner)
    elif isinstance(node, Mapping) and not str(node.get("_target_")).endswith(".ModelCheckpoint"):
        if isinstance(node.get("monitor"), str):
            yield node["monitor"]
        for inner in node.values():
            yield from _monitors(inner)


def check_tunable(space: Space, where: str) -> None:
    """Raise if a space has what must be the same for all rows; the batch size may be tuned.

    Args:
        space: What is tuned.
        where: The option or file that it is from, for the message.

    Raises:
        UserError: With the first such key.

    Example:
        >>> check_tunable(Space({"system.dataloaders.train.batch_size": [32, 64]}), "--space")
    """
    for key in space.given:
        same = any(key == one or key.startswith(f"{one}.") for one in _SAME)
        if same and not key.endswith(".batch_size"):
            raise UserError(where, f"{key} must be the same for all rows", None, "Leave it out")


def by_name(found: Iterable[tuple[str, tuple[Plain, ...]]], option: str) -> dict[str, tuple[Plain, ...]]:
    """Changes by name, after a check that no name is given twice or is that of a baseline.

    Args:
        found: Names and changes.
        option: The option that they are from, for the message.

    Raises:
        UserError: If one is.

    Example:
        >>> by_name([("base", ())], "--architectures")
        {'base': ()}
    """
    named: dict[str, tuple[Plain, ...]] = {}
    for name, changes in found:
        if name == SUM or name.startswith(SINGLE):
            raise UserError(option, f"'{name}' is reserved for a baseline", None, "Rename the file")
        if name in named:
            raise UserError(
                option,
                "a name must not be given twice",
                f"'{name}' twice",
                "Leave one out, or rename the file",
            )
        named[name] = changes
    return named


def _summed(weights: dict[str, float]) -> tuple[Plain, ...]:
    fixed = _weighted({"_target_": "polytask.weighting.Fixed", "weights": dict(weights)})
    return {"system": {"criterion": {"weighting": None}}}, {"system": _PLAIN_STEP}, fixed


def _weighted(node: Plain) -> Plain:
    return {"system": {"criterion": {"weighting": node}}}


def _is_file(given: str) -> bool:
    return given.endswith((".yaml", ".yml"))


def _file_name(given: str) -> str:
    return Path(given).stem.replace("-", "_").lower()


def _file_changes(given: str, noun: str, path: Sequence[str]) -> tuple[str, tuple[Plain, ...]]:
    name, values = _file_name(given), read_file(given).values
    if not name.replace("_", "").isalnum():
        rule = f"a file name is the {noun}'s name: letters, digits, '-' and '_'"
        raise UserError(given, rule, repr(Path(given).stem), "Rename the file")
    for key in _SAME:
        *above, last = key.split(".")
        node = _at(values, above)
        if isinstance(node, Mapping) and last in node:
            raise UserError(given, f"{key} must be the same for all rows", None, "Set it in the config")
    node = _at(values, path)
    if not isinstance(node, Mapping) or "_target_" not in node:
        return name, (values,)
    # Merging would mix its arguments with those of another target.
    cleared: Any = None
    for key in reversed(path):
        cleared = {key: cleared}
    return name, (cleared, values)


def _at(values: Plain, path: Sequence[str]) -> Any:
    node: Any = values
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
