"""How the criterion is called, and what it returns."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from polytask._checks import is_integer, is_number
from polytask._errors import UserError
from polytask.adapters._base import CallAdapter
from polytask.adapters._transforms import Transforms, apply
from polytask.losses import MultiTaskLoss, Targets


class CriterionAdapter(CallAdapter):
    """How the criterion is called, by position or by keyword.

    Args:
        pred_argument: The outputs' position or keyword; None leaves them out.
        target_argument: Likewise for the targets.
        input_argument: Likewise for the inputs.
        input_transforms: Applied to the inputs, which all tasks share: a callable or a list of them.
        pred_transforms: Applied to each task's output: a callable, a list of them, or a mapping by
            task.
        target_transforms: Likewise for the targets; a missing label stays missing.

    Raises:
        UserError: If positions leave a gap, or a transform is not callable.

    Example:
        >>> adapter = CriterionAdapter(pred_transforms={"height": lambda height: height.squeeze(-1)})
        >>> outputs, targets = {"height": torch.tensor([[1.0]])}, {"height": torch.tensor([3.0])}
        >>> total, losses = adapter(MultiTaskLoss({"height": nn.MSELoss()}), None, outputs, targets)
        >>> total
        tensor(4.)
    """

    inputs_by_task: ClassVar[bool] = False

    def __call__(
        self, criterion: nn.Module, inputs: Any, outputs: Any, targets: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and the losses by task as far as the criterion returns them.

        Args:
            criterion: The criterion.
            inputs: The model's inputs.
            outputs: The model's outputs by task.
            targets: The targets by task.

        Raises:
            UserError: If the criterion returns neither a tensor nor a dict with ``total``, or a
                transform turns missing labels into others.
        """
        transforms = self._transforms
        if not transforms.plain:
            inputs = apply(transforms.inputs, "", inputs)
            outputs = _each(transforms.pred, outputs, "pred_transforms")
            changed = _each(transforms.target, targets, "target_transforms")
            targets = _recounted(targets, changed, criterion) if isinstance(targets, Targets) else changed
        positional, named = self.arguments(inputs, outputs, targets)
        if isinstance(criterion, MultiTaskLoss) and _takes_return_dict(type(criterion).forward):
            named["return_dict"] = True
        return _read(criterion(*positional, **named), criterion)


@functools.cache
def _takes_return_dict(forward: Callable[..., Any]) -> bool:
    return "return_dict" in inspect.signature(forward).parameters


def _each(transforms: Transforms, values: Any, name: str) -> Any:
    """The values by task, transformed; the single value if tasks have no names."""
    if transforms is None:
        return values
    if isinstance(values, Mapping):
        return {task: apply(transforms, task, value) for task, value in values.items()}
    if isinstance(transforms, Mapping):
        where, rule = f"adapters.criterion.{name}", "by task require a dict by task"
        raise UserError(where, rule, type(values).__name__, "Pass one transform for all tasks")
    return apply(transforms, "", values)


def _recounted(targets: Targets, changed: Mapping[str, Any], criterion: nn.Module) -> Targets:
    """Targets after their transforms: elements may be more or fewer, missing labels stay missing."""
    ignore_index = criterion.measurement.ignore_index if isinstance(criterion, MultiTaskLoss) else None
    partly = {
        name: target
        for name, target in changed.items()
        if name not in targets.full and target is not targets[name]
    }
    counted = Targets.count(partly, ignore_index)
    for name in counted.full:
        raise UserError(
            "adapters.criterion.target_transforms",
            "must keep missing labels missing",
            f"none missing in task '{name}'",
            "Fill in labels in the data set",
        )
    sizes = {name: changed[name].numel() if isinstance(changed[name], Tensor) else 1 for name in targets.full}
    counts = {**targets.counts, **sizes, **counted.counts}
    kept = {name: target for name, target in changed.items() if name not in partly or name in counted}
    partial = {name: labels for name, labels in targets.partial.items() if name in kept}
    return Targets(kept, counts, partial | counted.partial)


def _read(value: Any, criterion: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    total: Any = value
    losses: Mapping[str, Any] = {}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping):
        total, losses = value
    elif isinstance(value, Mapping):
        if "total" not in value:
            raise UserError(
                "criterion",
                f"the dict of {type(criterion).__name__} must have a 'total', the tensor to minimise",
                f"the keys {', '.join(map(str, value))}",
            )
        total, losses = value["total"], value
    if isinstance(criterion, MultiTaskLoss) and not isinstance(total, Tensor) and is_integer(total, 0, 0):
        # The sum of no losses, if no rank has a label.
        total = torch.zeros(())
    if not isinstance(total, Tensor) or total.numel() != 1:
        rule = f"{type(criterion).__name__} must return one number, or a dict with 'total'"
        raise UserError("criterion", rule, _kind(total))
    return total.reshape(()), {name: _number(loss, name) for name, loss in losses.items() if name != "total"}


def _number(loss: Any, name: str) -> Tensor:
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss
    if is_number(loss):
        return torch.tensor(float(loss))
    raise UserError("criterion", f"the loss '{name}' must be one number", _kind(loss))


def _kind(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
