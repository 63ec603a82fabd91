"""What adapters have in common: transforms, and the arguments of a call."""

from collections.abc import Mapping
from typing import Any, ClassVar

from polytask._errors import UserError
from polytask.adapters._call_arguments import Argument, CallArguments
from polytask.adapters._transforms import TaskTransforms, Transforms


class TransformAdapter:
    """The base of adapters that transform inputs, predictions and targets.

    Args:
        input_transforms: See `polytask.adapters.LoggingAdapter`.
        pred_transforms: Likewise.
        target_transforms: Likewise.

    Raises:
        UserError: If a transform is not callable.
    """

    def __init__(
        self,
        input_transforms: Transforms = None,
        pred_transforms: Transforms = None,
        target_transforms: Transforms = None,
    ) -> None:
        owner = type(self).__name__
        self._transforms = TaskTransforms(input_transforms, pred_transforms, target_transforms, owner)

    def tasks(self) -> set[str]:
        """The tasks that have a transform by name."""
        return self._transforms.tasks()

    def transformed(self, task: str, inputs: Any, pred: Any, target: Any) -> tuple[Any, Any, Any]:
        """Inputs, prediction and target of a task, transformed.

        Args:
            task: The task.
            inputs: The model's inputs.
            pred: The task's prediction.
            target: The task's target.
        """
        return self._transforms.of(task, inputs, pred, target)


class CallAdapter(TransformAdapter):
    """The base of adapters that also define how something is called with inputs, predictions and targets.

    Args:
        pred_argument: The predictions' position or keyword; None leaves them out.
        target_argument: Likewise for the targets.
        input_argument: Likewise for the inputs.
        input_transforms: See `polytask.adapters.MetricsAdapter`.
        pred_transforms: Likewise.
        target_transforms: Likewise.

    Attributes:
        inputs_by_task: Whether each task may have its own transforms of the inputs.

    Raises:
        UserError: If positions leave a gap, or a transform cannot be used.
    """

    inputs_by_task: ClassVar[bool] = True

    def __init__(
        self,
        pred_argument: Argument = 0,
        target_argument: Argument = 1,
        input_argument: Argument = None,
        *,
        input_transforms: Transforms = None,
        pred_transforms: Transforms = None,
        target_transforms: Transforms = None,
    ) -> None:
        super().__init__(input_transforms, pred_transforms, target_transforms)
        owner = type(self).__name__
        if isinstance(input_transforms, Mapping) and not self.inputs_by_task:
            where, rule = (
                f"{owner}.input_transforms",
                "must be a callable or a list: all tasks share the inputs",
            )
            raise UserError(where, rule, "a mapping by task")
        self._arguments = CallArguments(pred_argument, target_argument, input_argument, owner)

    def arguments(self, inputs: Any, pred: Any, target: Any) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments of the call.

        Args:
            inputs: The model's inputs.
            pred: The predictions.
            target: The targets.
        """
        return self._arguments.of(inputs, pred, target)
