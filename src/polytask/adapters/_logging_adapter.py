"""What is written of predictions."""

from typing import Any

from polytask.adapters._transforms import TaskTransforms, Transforms


class LoggingAdapter:
    """What is written of inputs, predictions and targets, for example in ``predictions/``.

    Args:
        input_transforms: Applied to the inputs: a callable, a list of them, or a mapping by task.
        pred_transforms: Likewise for the predictions.
        target_transforms: Likewise for the targets.

    Raises:
        UserError: If a transform is not callable.

    Example:
        >>> import torch
        >>> adapter = LoggingAdapter(pred_transforms={"digit": lambda scores: scores.argmax(dim=1)})
        >>> adapter.transformed("digit", None, torch.tensor([[0.1, 0.9]]), None)[1]
        tensor([1])
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
