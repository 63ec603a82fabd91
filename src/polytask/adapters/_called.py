"""How criteria and metrics are called, and what is written down."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from polytask._checks import is_integer, is_number
from polytask._errors import UserError
from polytask.adapters._transforms import Transformed, Transforms, apply
from polytask.losses import MultiTaskLoss, Targets

Argument = int | str | None


class _Called(Transformed):
    """Calls something with prediction, target and inputs where its signature wants them."""

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
        if isinstance(input_transforms, Mapping) and not self.inputs_by_task:
            where, rule = f"{type(self).__name__}.input_transforms", "are for the inputs of all tasks at once"
            raise UserError(where, rule, "a mapping by task", "Give a callable or a list of them")
        self.places = (pred_argument, target_argument, input_argument)
        for place in self.places:
            if not (place is None or isinstance(place, str) or is_integer(place)):
                rule = "must be a position, the name of an argument, or None"
                raise UserError(type(self).__name__, rule, repr(place))
        positions = sorted((place, i) for i, place in enumerate(self.places) if is_integer(place))
        self._positional = [i for _, i in positions]
        self._named = {place: i for i, place in enumerate(self.places) if isinstance(place, str)}
        if [place for place, _ in positions] != list(range(len(positions))):
            found = [place for place, _ in positions]
            raise UserError(type(self).__name__, "positions are 0, 1, … without gaps", found)
        if len(self._named) < sum(isinstance(place, str) for place in self.places):
            raise UserError(type(self).__name__, "each argument is named once", list(self.places))

    def arguments(self, inputs: Any, pred: Any, target: Any) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments of the call."""
        values = (pred, target, inputs)
        return [values[i] for i in self._positional], {name: values[i] for name, i in self._named.items()}


class CriterionAdapter(_Called):
    """How the criterion is called, by position or by name.

    Args:
        pred_argument: Where the outputs go: a position, an argument's name, or None for nowhere.
        target_argument: Where the targets go.
        input_argument: Where the inputs go.
        input_transforms: Applied to the inputs, which all tasks share: a callable or a list of them.
        pred_transforms: Applied to each task's output: a callable, a list of them, or a mapping by
            task.
        target_transforms: Likewise for the targets; a missing label stays one.

    Raises:
        UserError: Where positions leave a gap, or a transform cannot be called.

    Example:
        >>> adapter = CriterionAdapter(pred_transforms={"height": lambda height: height.squeeze(-1)})
        >>> outputs, targets = {"height": torch.tensor([[1.0]])}, {"height": torch.tensor([3.0])}
        >>> total, losses = adapter(MultiTaskLoss({"height": nn.MSELoss()}), None, outputs, targets)
        >>> total
        tensor(4.)
    """

    inputs_by_task = False

    def __call__(
        self, criterion: nn.Module, inputs: Any, outputs: Any, targets: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total and the losses by task, which are empty where the criterion does not tell.

        Raises:
            UserError: Where the criterion returns neither a tensor nor a dict with ``total``, or a
                transform turns missing labels into others.
        """
        if not self.plain:
            inputs = apply(self.input_transforms, "", inputs)
            outputs = _each(self.pred_transforms, outputs, "pred_transforms")
            changed = _each(self.target_transforms, targets, "target_transforms")
            targets = _recounted(targets, changed, criterion) if isinstance(targets, Targets) else changed
        positional, named = self.arguments(inputs, outputs, targets)
        if isinstance(criterion, MultiTaskLoss) and _takes_return_dict(type(criterion).forward):
            named["return_dict"] = True
        return _read(criterion(*positional, **named), criterion)


@functools.cache
def _takes_return_dict(forward: Callable[..., Any]) -> bool:
    return "return_dict" in inspect.signature(forward).parameters


def _each(transforms: Transforms, values: Any, name: str) -> Any:
    """The values by task, transformed; the one value where they have no names."""
    if transforms is None:
        return values
    if isinstance(values, Mapping):
        return {task: apply(transforms, task, value) for task, value in values.items()}
    if isinstance(transforms, Mapping):
        where, rule = f"adapters.criterion.{name}", "by task need a dict by task"
        raise UserError(where, rule, type(values).__name__, "Give one for all")
    return apply(transforms, "", values)


def _recounted(targets: Targets, changed: Mapping[str, Any], criterion: nn.Module) -> Targets:
    """Targets after their transforms: another number of elements, the same labels missing."""
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
            "have to keep missing labels missing",
            f"none missing any more in task '{name}'",
            "Fill labels in in the data set",
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
                f"{type(criterion).__name__} returns a dict, which needs a 'total' to be trained",
                f"the keys {', '.join(map(str, value))}",
                "Add 'total', the tensor to minimise",
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


class MetricsAdapter(_Called):
    """How metrics are called, by position or by name.

    Args:
        pred_argument: Where the predictions go: a position, an argument's name, or None for nowhere.
        target_argument: Where the targets go.
        input_argument: Where the inputs go.
        input_transforms: Applied to the inputs: a callable, a list of them, or a mapping by task.
        pred_transforms: Likewise for the predictions (``{"segmentation": Argmax()}``).
        target_transforms: Likewise for the targets.

    Raises:
        UserError: Where positions leave a gap.

    Example:
        >>> adapter = MetricsAdapter(pred_argument="preds", target_argument="target")
        >>> adapter.arguments(None, 1, 2)
        ([], {'preds': 1, 'target': 2})
    """


class LoggingAdapter(Transformed):
    """What is written down of inputs, predictions and targets, in ``predictions/`` first of all.

    Args:
        input_transforms: Applied to the inputs: a callable, a list of them, or a mapping by task.
        pred_transforms: Likewise for the predictions.
        target_transforms: Likewise for the targets.

    Example:
        >>> adapter = LoggingAdapter(pred_transforms={"digit": lambda scores: scores.argmax(dim=1)})
        >>> adapter.transformed("digit", None, torch.tensor([[0.1, 0.9]]), None)[1]
        tensor([1])
    """
