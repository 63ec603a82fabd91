"""Reads the records of a run as arrays."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from polytask._errors import UserError, hint
from polytask.diagnostics._columns import FOLDER
from polytask.diagnostics._store import AFFINITY, GRADIENTS, LOSSES, WEIGHTS, read

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]
_KINDS = {"effective": "effective_weight", "own": "weight"}


@dataclass(frozen=True)
class Values:
    """A number for each task at some steps.

    Attributes:
        tasks: The tasks.
        steps: The optimizer steps, from 0.
        epochs: Their epochs, from 0.
        values: ``(steps, tasks)``; NaN if a task was absent.
    """

    tasks: tuple[str, ...]
    steps: Steps
    epochs: Steps
    values: Floats


@dataclass(frozen=True)
class Gramians:
    """The Gramian of the tasks' gradients at some steps.

    Attributes:
        tasks: The tasks.
        group: Whose gradients: those of the ``shared`` parameters, of the ``representation``, or of a group
            of layers.
        steps: The optimizer steps, from 0.
        epochs: Their epochs, from 0.
        values: ``(steps, tasks, tasks)``; NaN if a task was absent.

    Example:
        >>> one = np.zeros(1, dtype=np.int64)
        >>> found = Gramians(("a", "b"), "shared", one, one, np.array([[[4.0, -3.0], [-3.0, 9.0]]]))
        >>> found.norms, float(found.cosines[0, 0, 1]), found.conflict_rate
        (array([[2., 3.]]), -0.5, array([1.]))
    """

    tasks: tuple[str, ...]
    group: str
    steps: Steps
    epochs: Steps
    values: Floats

    @property
    def norms(self) -> Floats:
        """Lengths of the gradients, ``(steps, tasks)``."""
        # The rounding of a gradient that is nearly 0 can make its square negative.
        lengths: Floats = np.sqrt(np.maximum(np.diagonal(self.values, axis1=1, axis2=2), 0))
        return lengths

    @property
    def cosines(self) -> Floats:
        """Cosines of the angles between gradients, ``(steps, tasks, tasks)``; NaN for a gradient of 0."""
        # A gradient that overflowed has no direction.
        with np.errstate(over="ignore", invalid="ignore"):
            scale = self.norms[:, :, None] * self.norms[:, None, :]
            return np.divide(self.values, scale, out=np.full_like(self.values, np.nan), where=scale > 0)

    @property
    def conflict_rate(self) -> Floats:
        """The share of the present tasks' pairs with a negative cosine, ``(steps,)``; NaN without pairs."""
        first, second = np.triu_indices(len(self.tasks), k=1)
        pairs = self.values[:, first, second]
        known = np.isfinite(pairs)
        present, conflicts = known.sum(axis=1), (known & (pairs < 0)).sum(axis=1)
        return np.where(present > 0, conflicts / np.maximum(present, 1), np.nan)

    @property
    def condition(self) -> Floats:
        """The ratio of the largest to the smallest eigenvalue among the present tasks, ``(steps,)``.

        Infinite if the gradients are linearly dependent.
        """
        return np.array([_condition(value) for value in self.values])


def _condition(gramian: Floats) -> float:
    present = np.isfinite(np.diagonal(gramian))
    own = gramian[np.ix_(present, present)]
    if not own.size or not np.isfinite(own).all():
        return float("nan")
    values = np.linalg.eigvalsh(own)
    return float(values[-1] / values[0]) if values[0] > 0 else float("inf")


@dataclass(frozen=True)
class Affinities:
    """Inter-task affinity, averaged over training.

    Attributes:
        tasks: The tasks.
        form: ``lookahead`` or ``first_order``.
        values: ``(tasks, tasks)``: how a step on the row's task lowers the column's loss; NaN for two tasks
            that were never present together.
        records: The number of recorded steps.
        shared_parameters: The number of shared parameters; None if unknown.
        task_parameters: The number of each task's own parameters.
    """

    tasks: tuple[str, ...]
    form: str
    values: Floats
    records: int = 0
    shared_parameters: int | None = None
    task_parameters: dict[str, int] = field(default_factory=dict)


def read_losses(run: str | Path) -> Values:
    """The losses that a `LossRecorder` recorded.

    Args:
        run: The run's folder.

    Raises:
        UserError: If there are none, or the file is damaged.

    Example:
        With the folder of a run that had the recorder::

            losses = read_losses("runs/digits/one")
            losses.values[-1]
    """
    return _values(_table(run, "losses", LOSSES, "LossRecorder")[1], "loss")


def read_weights(run: str | Path, kind: Literal["effective", "own"] = "effective") -> Values:
    """The weights that a `WeightRecorder` recorded.

    Args:
        run: The run's folder.
        kind: ``effective``, d total / d loss; or ``own``, that of the weighting, before ``loss_weights``.

    Raises:
        UserError: If there are none, the kind is unknown, or the file is damaged.

    Example:
        With the folder of a run that had the recorder::

            weights = read_weights("runs/digits/one")
            pandas.DataFrame(weights.values, weights.steps, weights.tasks).plot()
    """
    if kind not in tuple(_KINDS):
        raise UserError("read_weights.kind", f"must be {' or '.join(_KINDS)}", repr(kind))
    return weights_by_kind(run)[kind]


def weights_by_kind(run: str | Path) -> dict[str, Values]:
    """The weights of both kinds, ``effective`` first; see `read_weights`.

    Args:
        run: The run's folder.
    """
    table = _table(run, "weights", WEIGHTS, "WeightRecorder")[1]
    return {kind: _values(table, column) for kind, column in _KINDS.items()}


def read_gradients(run: str | Path, group: str | None = None) -> Gramians:
    """The Gramians that a `GradientRecorder` recorded.

    Args:
        run: The run's folder.
        group: A group of layers; if None, all of them: ``shared`` or ``representation``.

    Raises:
        UserError: If there are none, the group is unknown, or the file is damaged.

    Example:
        With the folder of a run that had the recorder::

            gramians = read_gradients("runs/digits/one")
            gramians.cosines[-1], gramians.conflict_rate
    """
    path, table = _table(run, "gradients", GRADIENTS, "GradientRecorder")
    rule = f"no group is called '{group}'"
    return _gramians(path, table, _chosen(run, group, _names(table, "group"), rule, "Groups"))


def gradients_by_group(run: str | Path) -> dict[str, Gramians]:
    """The Gramians of every group, that of all layers first; see `read_gradients`.

    Args:
        run: The run's folder.
    """
    path, table = _table(run, "gradients", GRADIENTS, "GradientRecorder")
    return {group: _gramians(path, table, group) for group in _names(table, "group")}


def _gramians(path: Path, table: pa.Table, group: str) -> Gramians:
    tasks = _names(table, "task")
    if alone := [name for name in _names(table, "other") if name not in tasks]:
        rule = "must have a row of each task with itself"
        raise UserError(str(path), rule, f"none of '{alone[0]}'", "Delete it, and train again")
    table = table.filter(pc.equal(table["group"], group))
    steps, epochs, at = _steps(table)
    first, second = (_indices(table, column, tasks) for column in ("task", "other"))
    values = np.full((len(steps), len(tasks), len(tasks)), np.nan)
    values[at, first, second] = values[at, second, first] = table["inner"].to_numpy()
    return Gramians(tasks, group, steps, epochs, values)


def read_affinity(run: str | Path, form: str | None = None) -> Affinities:
    """The mean over training of the affinities that an `Affinity` recorded.

    Args:
        run: The run's folder.
        form: ``lookahead`` or ``first_order``; if None, the first of these that was recorded.

    Raises:
        UserError: If there are none, none of this form, or the file is damaged.

    Example:
        With the folder of a run that had the callback::

            affinities = read_affinity("runs/digits/one")
            group_tasks(affinities, 2)
    """
    path, table = _table(run, "affinity", AFFINITY, "Affinity")
    rule = f"no affinity of the form '{form}' was recorded"
    return _mean(path, table, _chosen(run, form, _forms(table), rule, "Recorded"))


def affinities_by_form(run: str | Path) -> dict[str, Affinities]:
    """The mean affinities of every form, ``lookahead`` first; see `read_affinity`.

    Args:
        run: The run's folder.
    """
    path, table = _table(run, "affinity", AFFINITY, "Affinity")
    return {form: _mean(path, table, form) for form in _forms(table)}


def _chosen(run: str | Path, name: str | None, recorded: Sequence[str], rule: str, what: str) -> str:
    """The name, or the first that was recorded if it is None; an error if it was not recorded."""
    if name is None:
        return recorded[0]
    if name not in recorded:
        raise UserError(str(run), rule, None, hint(name, recorded, what))
    return name


def _forms(table: pa.Table) -> list[str]:
    return sorted(_names(table, "form"), reverse=True)


def _mean(path: Path, table: pa.Table, form: str) -> Affinities:
    # The lookahead also has tasks that share no parameter with another task.
    tasks = _names(table, "task", "other")
    shared, own = _sizes(path, table.schema.metadata or {})
    table = table.filter(pc.equal(table["form"], form))
    values = table["affinity"].to_numpy()
    finite = np.isfinite(values)
    at = tuple(_indices(table, column, tasks)[finite] for column in ("task", "other"))
    total, count = np.zeros((2, len(tasks), len(tasks)))
    np.add.at(total, at, values[finite])
    np.add.at(count, at, 1)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return Affinities(tasks, form, mean, len(_steps(table)[0]), shared, own)


def _sizes(path: Path, notes: Mapping[bytes, bytes]) -> tuple[int | None, dict[str, int]]:
    """The numbers of shared parameters and of each task's own, from a file's metadata."""
    shared, own = notes.get(b"shared_parameters"), notes.get(b"task_parameters", b"{}")
    try:
        sizes = {str(task): int(size) for task, size in dict(json.loads(own)).items()}
        return (None if shared is None else int(shared)), sizes
    except (ValueError, TypeError) as error:
        rule = "must have numbers of parameters in its metadata"
        raise UserError(str(path), rule, f"{shared!r} and {own!r}", "Delete it, and train again") from error


def _table(run: str | Path, name: str, schema: pa.Schema, recorder: str) -> tuple[Path, pa.Table]:
    path = Path(run) / FOLDER / f"{name}.parquet"
    if not Path(run).is_dir():
        raise UserError(
            str(run), "must be a run's folder", "no such folder", "Name the folder that fit printed"
        )
    fix = f"Train with {{_target_: polytask.diagnostics.{recorder}}} in trainer.callbacks"
    if not path.exists():
        raise UserError(str(path), "the records do not exist", None, fix)
    table = read(path, schema)
    if not len(table):
        raise UserError(str(path), "must have records", "none", fix)
    return path, table


def _names(table: pa.Table, *columns: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for column in columns for name in table[column].unique().to_pylist()))


def _indices(table: pa.Table, column: str, tasks: Sequence[str]) -> NDArray[np.int64]:
    indices = {name: index for index, name in enumerate(tasks)}
    return np.array([indices[name] for name in table[column].to_pylist()], dtype=np.int64)


def _steps(table: pa.Table) -> tuple[Any, Any, Any]:
    steps, first, at = np.unique(table["step"].to_numpy(), return_index=True, return_inverse=True)
    return steps, table["epoch"].to_numpy()[first], at


def _values(table: pa.Table, column: str) -> Values:
    tasks = _names(table, "task")
    steps, epochs, at = _steps(table)
    values = np.full((len(steps), len(tasks)), np.nan)
    values[at, _indices(table, "task", tasks)] = table[column].to_numpy()
    return Values(tasks, steps, epochs, values)
