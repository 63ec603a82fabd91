"""A row of numbers for each task, with one number for each shared parameter."""

from typing import Any

import torch
from torch import Tensor, nn

from polytask._errors import UserError
from polytask.weighting._state import pick, put


class TaskRows(nn.Module):
    """A row for each task, 0 at first; the first Jacobian sets its length.

    Args:
        tasks: The number of tasks.

    Shape:
        - rows: ``(tasks, parameters)``.

    Example:
        >>> rows = TaskRows(2)
        >>> rows.read(torch.ones(1, 3), [1])
        tensor([[0., 0., 0.]])
        >>> rows.write(torch.ones(1, 3), [1])
        >>> rows.rows
        tensor([[0., 0., 0.],
                [1., 1., 1.]])
    """

    rows: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(tasks, 0))

    def read(self, like: Tensor, indices: list[int] | None) -> Tensor:
        """The present tasks' rows.

        Args:
            like: The Jacobian, whose length, type and device new rows have.
            indices: The present tasks' indices among all tasks; None if all are present.

        Raises:
            UserError: If the number of parameters has changed.
        """
        if not self.rows.shape[1]:
            self.rows = like.new_zeros(len(self.rows), like.shape[1])
        if self.rows.shape[1] != like.shape[1]:
            raise UserError(
                "weighting",
                "the number of shared parameters must not change, since a number is kept for each",
                f"{like.shape[1]} parameters after {self.rows.shape[1]}",
                "Pass the whole Jacobian each time, with 0 for parameters that a task does not reach",
            )
        return pick(self.rows, indices)

    def write(self, values: Tensor, indices: list[int] | None) -> None:
        """Replace the present tasks' rows.

        Args:
            values: New rows.
            indices: The present tasks' indices among all tasks; None if all are present.
        """
        put(self.rows, indices, values)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}rows")
        if saved is not None and len(saved) == len(self.rows):
            self.rows = self.rows.new_zeros(saved.shape, dtype=saved.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args)
