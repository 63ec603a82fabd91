"""Finds inputs, targets and task ids in the batches of a loader."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polytask._checks import is_integer
from polytask._errors import UserError, hint, nearest
from polytask._tasks import check_known
from polytask.batch import (
    Accessor,
    Batch,
    JoinedBatch,
    Targets,
    TaskBatches,
    access,
    check_accessor,
    count_rows,
    find,
    take_rows,
)


class BatchAdapter:
    """Finds inputs, targets and task ids in the batches of a loader.

    An accessor is an index, a key, a dotted path of keys, indices and attributes (``labels.digit``),
    or a callable from the batch to the value.

    Args:
        input_accessor: The accessor of the inputs; or a mapping from a name to an accessor, which gives
            the model a dict of inputs.
        target_accessor: The accessor of the targets (a dict by task, a list in task order, or one tensor
            if there is one task or the batch carries task ids); or a mapping from task to
            accessor. A task whose key is not in a batch is absent from it.
        task_accessor: The accessor of the task ids: one integer for the batch or one for each row;
            id *i* is the *i*-th task of the criterion.
        id_accessor: The accessor of the rows' own ids, which predictions and messages name: numbers or
            strings, one for each row; or a mapping from the name of a column to an accessor. The column of
            a single accessor is ``id``.

    Raises:
        UserError: If an accessor has the wrong type.

    Example:
        >>> adapter = BatchAdapter("image", {"digit": "labels.digit"})
        >>> batch = {"image": torch.zeros(2, 3), "labels": {"digit": torch.tensor([7, -100])}}
        >>> adapted = adapter(batch, ("digit",))
        >>> adapted.size, adapted.targets.counts, adapted.targets.partial["digit"].rows
        (2, {'digit': 1}, tensor([0]))
    """

    def __init__(
        self,
        input_accessor: Accessor | Mapping[str, Accessor] = 0,
        target_accessor: Accessor | Mapping[str, Accessor] | None = 1,
        task_accessor: Accessor | None = None,
        id_accessor: Accessor | Mapping[str, Accessor] | None = None,
    ) -> None:
        where = type(self).__name__
        check_accessor(input_accessor, f"{where}.input_accessor", by_name=True)
        if target_accessor is not None:
            check_accessor(target_accessor, f"{where}.target_accessor", by_name=True)
        if task_accessor is not None:
            check_accessor(task_accessor, f"{where}.task_accessor")
        if id_accessor is not None:
            check_accessor(id_accessor, f"{where}.id_accessor", by_name=True)
        self.input_accessor = input_accessor
        self.target_accessor = target_accessor
        self.task_accessor = task_accessor
        self.id_accessor = id_accessor

    def __call__(
        self,
        batch: Any,
        names: Sequence[str],
        ignore_index: Mapping[str, int] | None = None,
        need_targets: bool = True,
    ) -> Batch:
        """Inputs, targets and task ids, the labels counted on the host.

        Args:
            batch: What the loader yields.
            names: All tasks, in order; empty if a third-party criterion does not name them.
            ignore_index: The integer that means "no label", by task.
            need_targets: Whether targets are read; predicting needs none.

        Raises:
            UserError: If the batch lacks one of them, an id is out of range, or numbers of rows differ.
        """
        if isinstance(batch, TaskBatches):
            check_known(batch, names, "TaskLoader")
            return JoinedBatch.of(
                {
                    name: self._parts(own, names, ignore_index, need_targets, name)
                    for name, own in batch.items()
                }
            )
        return self._parts(batch, names, ignore_index, need_targets)

    def _parts(
        self,
        batch: Any,
        names: Sequence[str],
        ignore_index: Mapping[str, int] | None,
        need_targets: bool,
        task: str | None = None,
    ) -> Batch:
        """The parts of one batch; of the batch of one task if the task is given."""
        inputs = self._inputs(batch)
        size = count_rows(inputs)
        rows: dict[str, Tensor | None] | None = {task: None} if task else self._rows(batch, names, size)
        ids = self._own_ids(batch)
        if not need_targets:
            return Batch(inputs, None, size, rows, ids=ids)
        targets = self._targets(batch, names)
        if rows is not None:
            targets = _routed(targets, rows, names)
        elif names:
            targets = _named(targets, names)
        if not isinstance(targets, Mapping) or not names:
            return Batch(inputs, targets, size, rows, ids=ids)
        return Batch(inputs, Targets.count(targets, ignore_index), size, rows, ids=ids)

    def _inputs(self, batch: Any) -> Any:
        if isinstance(self.input_accessor, Mapping):
            return {
                name: access(batch, accessor, f"adapters.batch.input_accessor.{name}")
                for name, accessor in self.input_accessor.items()
            }
        if isinstance(batch, Tensor) and is_integer(self.input_accessor):
            return batch
        return access(batch, self.input_accessor, "adapters.batch.input_accessor")

    def _targets(self, batch: Any, names: Sequence[str]) -> Any:
        where = "adapters.batch.target_accessor"
        accessor = self.target_accessor
        if isinstance(accessor, Mapping):
            if names:
                check_known(accessor, names, where)
            return _present(batch, accessor)
        if accessor is None or isinstance(batch, Tensor):
            raise UserError(
                where, "targets are required in this stage", f"a {type(batch).__name__} without them"
            )
        return access(batch, accessor, where)

    def _own_ids(self, batch: Any) -> dict[str, Any]:
        given = self.id_accessor
        if given is None:
            return {}
        where = "adapters.batch.id_accessor"
        if isinstance(given, Mapping):
            return {name: access(batch, own, f"{where}.{name}") for name, own in given.items()}
        return {"id": access(batch, given, where)}

    def _rows(self, batch: Any, names: Sequence[str], size: int) -> dict[str, Tensor | None] | None:
        if self.task_accessor is None:
            return None
        where = "adapters.batch.task_accessor"
        if not names:
            raise UserError(where, "task ids require a criterion that names its tasks", "none")
        ids = _ids(access(batch, self.task_accessor, where), size)
        present = torch.unique(ids).tolist()
        for i in present:
            if not 0 <= i < len(names):
                raise UserError(where, f"ids must be 0 to {len(names) - 1} for {', '.join(names)}", f"id {i}")
        if len(present) == 1:
            return {names[present[0]]: None}
        return {names[i]: (ids == i).nonzero().flatten() for i in present}

    def __repr__(self) -> str:
        return (
            f"BatchAdapter(input_accessor={self.input_accessor!r}, target_accessor={self.target_accessor!r}, "
            f"task_accessor={self.task_accessor!r}, id_accessor={self.id_accessor!r})"
        )


def _ids(given: Any, size: int) -> Tensor:
    where, rule = "adapters.batch.task_accessor", "must be one integer for the batch, or one for each row"
    try:
        ids = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(where, rule, type(given).__name__) from error
    if ids.is_floating_point() or ids.ndim > 1 or (ids.ndim == 1 and len(ids) not in (1, size)):
        found = f"{tuple(ids.shape)} {str(ids.dtype).removeprefix('torch.')} for {size} rows"
        raise UserError(where, rule, found)
    return ids


def _present(batch: Any, accessors: Mapping[str, Accessor]) -> dict[str, Any]:
    targets = {}
    for name, accessor in accessors.items():
        if callable(accessor):
            found, target = True, accessor(batch)
        else:
            found, target = find(batch, accessor)
        if found and target is not None:
            targets[name] = target
    return targets


def _named(targets: Any, names: Sequence[str]) -> Any:
    """Targets by task: from a dict, from a list in task order, or from the tensor of the only task."""
    if isinstance(targets, Mapping):
        absent = [name for name in names if name not in targets]
        unknown = [str(name) for name in targets if name not in names]
        if absent and unknown and len(absent) == len(names):
            near = nearest(absent[0], unknown)
            fix = "Map the tasks to them in adapters.batch.target_accessor"
            raise UserError(
                "targets",
                f"must contain one of the tasks {', '.join(names)}",
                ", ".join(unknown),
                fix if near is None else f"Did you mean '{near}'? {fix}",
            )
        for name in absent:
            if nearest(name, unknown) is not None:
                rule = f"must contain task '{name}'"
                raise UserError("targets", rule, ", ".join(unknown), hint(name, unknown))
        return {name: targets[name] for name in names if name in targets}
    if isinstance(targets, Tensor) and len(names) == 1:
        return {names[0]: targets}
    if isinstance(targets, (list, tuple)) and len(targets) == len(names):
        return dict(zip(names, targets, strict=True))
    found = f"{len(targets)} targets" if isinstance(targets, (list, tuple)) else type(targets).__name__
    raise UserError(
        "targets",
        f"must be a dict by task, or a list in the order {', '.join(names)}",
        found,
        "Set adapters.batch.target_accessor to a mapping by task",
    )


def _routed(targets: Any, rows: Mapping[str, Tensor | None], names: Sequence[str]) -> dict[str, Any]:
    """Each task's rows of the targets."""
    by_task = _named(targets, names) if isinstance(targets, (Mapping, list, tuple)) else None
    return {
        name: take_rows(targets if by_task is None else by_task[name], chosen)
        for name, chosen in rows.items()
        if by_task is None or name in by_task
    }
