"""How metrics are called."""

from typing import Any

from polytask.adapters._call_arguments import Argument, CallArguments
from polytask.adapters._transforms import TaskTransforms, Transforms


class MetricsAdapter:
    """How metrics are called, by position or by keyword.

    Args:
        pred_argument: The predictions' position or keyword; None leaves them out.
        target_argument: Likewise for the targets.
        input_argument: Likewise for the inputs.
        input_transforms: Applied to the inputs: a callable, a list of them, or a mapping by task.
        pred_transforms: Likewise for the predictions (``{"segmentation": Argmax()}``).
        target_transforms: Likewise for the targets.

    Raises:
        UserError: If positions leave a gap, or a transform is not callable.

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
    ) -> None:
        owner = type(self).__name__
        self._transforms = TaskTransforms(input_transforms, pred_transforms, target_transforms, owner)
        self._arguments = CallArguments(pred_argument, target_argument, input_argument, owner)

    @property
    def passes_inputs(self) -> bool:
        """Whether the metrics are called with the model's inputs."""
        return self._arguments.has_inputs

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

    def arguments(self, inputs: Any, pred: Any, target: Any) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments of a metric's call.

        Args:
            inputs: The model's inputs.
            pred: The task's prediction.
            target: The task's target.
        """
        return self._arguments.of(inputs, pred, target)
