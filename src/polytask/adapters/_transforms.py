"""Transforms of inputs, predictions and targets, for all tasks or by task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polytask._errors import UserError

Transform = Callable[[Any], Any]
Transforms = Transform | Sequence[Transform] | Mapping[str, Transform | Sequence[Transform]] | None


class TaskTransforms:
    """Optional transforms of inputs, predictions and targets.

    Args:
        inputs: Applied to the inputs: a callable, a list of them, or a mapping by task.
        pred: Likewise for the predictions.
        target: Likewise for the targets.
        owner: The adapter's class, for messages.

    Attributes:
        plain: Whether there is no transform.

    Raises:
        UserError: If a transform is not callable.

    Example:
        >>> TaskTransforms(None, {"a": abs}, None, "LoggingAdapter").of("a", 1, -2, 3)
        (1, 2, 3)
    """

    def __init__(self, inputs: Transforms, pred: Transforms, target: Transforms, owner: str) -> None:
        self.inputs, self.pred, self.target = inputs, pred, target
        for kind, transforms in (("input", inputs), ("pred", pred), ("target", target)):
            _check(transforms, f"{owner}.{kind}_transforms")
        self.plain = inputs is None and pred is None and target is None

    def tasks(self) -> set[str]:
        """The tasks that have a transform by name."""
        given = (self.inputs, self.pred, self.target)
        return {name for transforms in given if isinstance(transforms, Mapping) for name in transforms}

    def of(self, task: str, inputs: Any, pred: Any, target: Any) -> tuple[Any, Any, Any]:
        """Inputs, prediction and target of a task, transformed."""
        if self.plain:
            return inputs, pred, target
        return (
            apply(self.inputs, task, inputs),
            apply(self.pred, task, pred),
            apply(self.target, task, target),
        )


def apply(transforms: Transforms, task: str, value: Any) -> Any:
    """The value after the transforms of a task; unchanged if there are none.

    Example:
        >>> apply({"a": [abs, str]}, "a", -1), apply({"a": abs}, "b", -1)
        ('1', -1)
    """
    if isinstance(transforms, Mapping):
        transforms = transforms.get(task)
    if transforms is None or value is None:
        return value
    for transform in transforms if isinstance(transforms, Sequence) else [transforms]:
        value = transform(value)
    return value


def _check(transforms: Any, where: str) -> None:
    if isinstance(transforms, Mapping):
        for task, own in transforms.items():
            _check(own, f"{where}.{task}")
        return
    for transform in transforms if isinstance(transforms, (list, tuple)) else [transforms]:
        if not (transform is None or callable(transform)):
            rule = "must be a callable, a list of callables, or a mapping by task"
            raise UserError(where, rule, repr(transform))
