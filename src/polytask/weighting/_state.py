"""What weightings keep for each task: numbers, learned numbers, and an optimizer of such numbers."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polytask._tasks import PREFIX


def pick(state: Tensor, indices: list[int] | None) -> Tensor:
    """The present tasks' part of a state, which has one row for each of all tasks."""
    return state if indices is None else state[indices]


def put(state: Tensor, indices: list[int] | None, values: Tensor) -> None:
    """Write the present tasks' part of a state; the other tasks keep theirs."""
    if indices is None:
        state.copy_(values)
    else:
        state[indices] = values.to(state.dtype)


class TaskScalars(nn.Module):
    """One learned number for each task, each in a separate parameter.

    A task that is absent gets no gradient, so that the optimizer does not change its number and its
    moments, as it would for an entry of a vector.

    Args:
        values: Initial value by task.

    Shape:
        - returns: ``(tasks,)``.

    Example:
        >>> scalars = TaskScalars({"digit": 0.0, "depth": 1.0})
        >>> scalars.values([1])
        tensor([1.], grad_fn=<StackBackward0>)
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        super().__init__()
        self.keys = [PREFIX + name for name in values]
        for key, value in zip(self.keys, values.values(), strict=True):
            self.register_parameter(key, nn.Parameter(torch.tensor(value)))

    def values(self, indices: list[int] | None = None) -> Tensor:
        """The present tasks' numbers.

        Args:
            indices: Their indices among all tasks; None if all are present.
        """
        keys = self.keys if indices is None else [self.keys[index] for index in indices]
        return torch.stack([self.get_parameter(key) for key in keys])


class TaskAdam(nn.Module):
    """Adam for one number per task, in buffers, so that no optimizer of the model changes them.

    Each task counts its own steps; an absent task's number and moments stay unchanged.

    Args:
        tasks: How many tasks there are.
        lr: Step size.
        weight_decay: Factor of the number itself, added to its gradient.

    Example:
        >>> adam, value = TaskAdam(2, lr=0.1), torch.zeros(2)
        >>> adam.step(value, torch.tensor([3.0]), [1])
        >>> value
        tensor([ 0.0000, -0.1000])

    Reference:
        Kingma, Ba. Adam: A Method for Stochastic Optimization. ICLR 2015, algorithm 1.
    """

    first: Tensor
    second: Tensor
    steps: Tensor

    def __init__(self, tasks: int, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        self.register_buffer("first", torch.zeros(tasks))
        self.register_buffer("second", torch.zeros(tasks))
        self.register_buffer("steps", torch.zeros(tasks, dtype=torch.int64))

    @torch.no_grad()
    def step(self, value: Tensor, gradient: Tensor, indices: list[int] | None = None) -> None:
        """Change the present tasks' numbers in place.

        Args:
            value: All tasks' numbers, ``(tasks,)``.
            gradient: The present tasks' gradient.
            indices: Their indices among all tasks; None if all are present.
        """
        old = pick(value, indices)
        gradient = gradient.to(old.dtype) + self.weight_decay * old
        first = pick(self.first, indices).lerp(gradient, 0.1)
        second = pick(self.second, indices).lerp(gradient.square(), 0.001)
        steps = pick(self.steps, indices) + 1
        root = (second / _one_minus_power(0.999, steps, old)).sqrt() + 1e-8
        put(value, indices, old - self.lr * first / _one_minus_power(0.9, steps, old) / root)
        for state, new in ((self.first, first), (self.second, second), (self.steps, steps)):
            put(state, indices, new)


def _one_minus_power(base: float, exponents: Tensor, like: Tensor) -> Tensor:
    # 1 - 0.999 in float32 has four digits.
    return -torch.expm1(math.log(base) * exponents.to(like.dtype))
