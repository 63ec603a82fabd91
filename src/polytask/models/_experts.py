"""Experts from a factory, and their mixture."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from polytask._errors import Reason, UserError
from polytask._tasks import check_known
from polytask.models._argument_checks import check_count

Factory = Callable[..., nn.Module]


def make(factory: Factory, where: str, *args: int) -> nn.Module:
    """A module from a factory.

    Args:
        factory: A callable that returns a module.
        where: The argument's name, for messages.
        args: The arguments of the call.

    Raises:
        UserError: If it is a module itself, cannot be called with these arguments, or returns something else.
    """
    fix = "Pass functools.partial(MLP, ...); in a config write _partial_: true"
    if isinstance(factory, nn.Module) or not callable(factory):
        found = f"a {type(factory).__name__}"
        rule = "must return a module when called, so that each one is initialised separately"
        raise UserError(where, rule, found, fix)
    try:
        made = factory(*args)
    except TypeError as error:
        raise UserError(where, f"must accept the arguments {args}", Reason.said(error), fix) from error
    if not isinstance(made, nn.Module):
        raise UserError(where, "must return a torch.nn.Module", f"a {type(made).__name__}", fix)
    return made


def make_experts(factory: Factory, count: int, where: str = "expert") -> nn.ModuleList:
    """A number of experts, each with its own parameters.

    Raises:
        UserError: If the factory returns no modules, or one module twice.
    """
    made = [make(factory, where) for _ in range(count)]
    if len({id(module) for module in made}) < len(made):
        raise UserError(where, "must return a new module at every call", "the same one twice")
    return nn.ModuleList(made)


def counts_by_task(value: int | Mapping[str, int], tasks: Sequence[str], where: str) -> dict[str, int]:
    """A number of experts for each task, from one number for all or one by task.

    Raises:
        UserError: If a task is unknown or left out, or a number is not an integer of at least 0.
    """
    given = value if isinstance(value, Mapping) else dict.fromkeys(tasks, value)
    check_known(given, tasks, where)
    for task in tasks:
        if task not in given:
            raise UserError(f"{where}.{task}", "is required", "nothing", "Set the task's number of experts")
    return {task: check_count(given[task], f"{where}.{task}") for task in tasks}


def mix(weights: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """The experts' outputs, summed with weights.

    Args:
        weights: ``(*rows, experts)``, where ``rows`` are leading dimensions of the outputs; may be empty.
        outputs: One tensor for each expert, ``(*rows, ...)``.

    Raises:
        UserError: If the experts do not return tensors of one shape, or those do not fit the weights.
    """
    shape = _common_shape(outputs)
    rows, experts = weights.shape[:-1], weights.shape[-1]
    if experts != len(outputs) or shape[: len(rows)] != rows or len(rows) >= len(shape):
        rule = f"must return a tensor of shape (rows, {len(outputs)}) for experts that return {tuple(shape)}"
        raise UserError("gate", rule, f"shape {tuple(weights.shape)}")
    stacked = torch.stack(tuple(outputs), dim=len(rows)).flatten(len(rows) + 1)
    return (weights.unsqueeze(-2) @ stacked).reshape(shape)


def _common_shape(outputs: Sequence[Tensor]) -> torch.Size:
    for output in outputs:
        if not isinstance(output, Tensor) or output.shape != outputs[0].shape or output.dim() < 2:
            found = [
                tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in outputs
            ]
            rule = "all experts must return tensors of one shape (rows, ...)"
            raise UserError("expert", rule, ", ".join(str(each) for each in found))
    return outputs[0].shape
