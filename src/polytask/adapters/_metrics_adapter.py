"""How metrics are called."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polytask._errors import UserError
from polytask.adapters._base import CallAdapter
from polytask.adapters._call_arguments import Argument
from polytask.adapters._transforms import Transforms
from polytask.batch import Accessor, TaskBatches, access, check_accessor, describe, find


class MetricsAdapter(CallAdapter):
    """How metrics are called, by position or by keyword.

    Args:
        pred_argument: The predictions' position or keyword; None leaves them out.
        target_argument: Likewise for the targets.
        input_argument: Likewise for the inputs.
        input_transforms: Applied to the inputs: a callable, a list of them, or a mapping by task.
        pred_transforms: Likewise for the predictions (``{"segmentation": Argmax()}``).
        target_transforms: Likewise for the targets.
        batch_arguments: Further arguments, by keyword: the accessor of a part of the batch with a number for
            each row, or for each element of the target (``{"indexes": "query_id"}``). A metric is called with
            those of them that its ``update`` has, a function with those that it has after the first two.

    Raises:
        UserError: If positions leave a gap, a transform is not callable, or an accessor has the wrong type.

    Example:
        >>> adapter = MetricsAdapter(pred_argument="preds", target_argument="target")
        >>> adapter.arguments(None, 1, 2)
        ([], {'preds': 1, 'target': 2})
    """

    def __init__(
        self,
        pred_argument: Argument = 0,
        target_argument: Argument = 1,
        input_argument: Argument = None,
        *,
        input_transforms: Transforms = None,
        pred_transforms: Transforms = None,
        target_transforms: Transforms = None,
        batch_arguments: Mapping[str, Accessor] | None = None,
    ) -> None:
        super().__init__(
            pred_argument,
            target_argument,
            input_argument,
            input_transforms=input_transforms,
            pred_transforms=pred_transforms,
            target_transforms=target_transforms,
        )
        self.batch_arguments = _accessors(batch_arguments, f"{type(self).__name__}.batch_arguments")

    @property
    def passes_inputs(self) -> bool:
        """Whether the metrics are called with the model's inputs."""
        return self._arguments.has_inputs

    def columns(self, batch: Any) -> dict[str, Any]:
        """The further arguments in a batch, by keyword; by task if the batch is made of one for each task.

        Args:
            batch: What the loader yields.

        Raises:
            UserError: If the batch lacks one, or it is not made of numbers.

        Example:
            >>> adapter = MetricsAdapter(batch_arguments={"indexes": "query"})
            >>> adapter.columns({"x": torch.zeros(2), "query": [7, 8]})
            {'indexes': tensor([7, 8])}
        """
        if not isinstance(batch, TaskBatches):
            return {
                name: _numbers(access(batch, accessor, _where(name)), name)
                for name, accessor in self.batch_arguments.items()
            }
        return {task: self._found(own) for task, own in batch.items()}

    def _found(self, batch: Any) -> dict[str, Any]:
        """The further arguments of one task's batch; each of its metrics says what it lacks."""
        columns = {}
        for name, accessor in self.batch_arguments.items():
            found, value = (True, accessor(batch)) if callable(accessor) else find(batch, accessor)
            if found:
                columns[name] = _numbers(value, name)
        return columns


def _accessors(given: Any, where: str) -> dict[str, Accessor]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UserError(where, "must be a mapping from arguments to accessors", type(given).__name__)
    for name, accessor in given.items():
        check_accessor(accessor, f"{where}.{name}")
    return dict(given)


def _numbers(value: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(_where(name), "must be numbers, one for each row", describe(value)) from error


def _where(name: str) -> str:
    return f"adapters.metrics.batch_arguments.{name}"
