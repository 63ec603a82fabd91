"""How much each expert counts for each task, observed while a model runs."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from polytask._errors import UserError
from polytask.models._gate import Gate


class ExpertLoad:
    """Mean weight that the gates of a model assign to each expert, by task, over the samples in training.

    Observes `MMoE`, `CGC`, `PLE` and `DSelectK`. The sums stay on the device until `shares` is called. The
    gate of a `PLE` level's shared part is listed under ``sharing``.

    Args:
        model: The model.

    Raises:
        UserError: If the model has no gates.

    Example:
        >>> import functools
        >>> from polytask.models import CGC, MLP
        >>> heads = {"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)}
        >>> model = CGC(functools.partial(MLP, 2, [], 3), heads, gate=2)
        >>> with ExpertLoad(model) as load:
        ...     _ = model(torch.rand(5, 2), "a")
        ...     shares = load.shares()
        >>> {task: list(by_expert) for task, by_expert in shares.items()}
        {'a': ['own0', 'shared0']}
        >>> round(sum(shares["a"].values()), 6)
        1.0
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._gates = [module for module in model.modules() if isinstance(module, Gate)]
        if not self._gates:
            found = f"a {type(model).__name__} without gates"
            raise UserError("model", "must have gates, such as those of polytask.models.MMoE", found)
        self._sums: dict[Gate, Tensor] = {}
        self._handles = [gate.register_forward_hook(self._add) for gate in self._gates]

    @torch.no_grad()
    def _add(self, gate: Gate, args: Any, weights: Tensor) -> None:
        if not gate.training:
            return
        rows = weights.detach().reshape(-1, len(gate.experts)).to(torch.float32)
        counted = torch.cat([rows.sum(dim=0), rows.new_full((1,), len(rows))])
        self._sums[gate] = self._sums[gate] + counted if gate in self._sums else counted

    def shares(self, add: Callable[[Tensor], Tensor] | None = None) -> dict[str, dict[str, float]]:
        """Mean weights by task and expert since the last `reset`; they sum to one at each level of a task.

        Args:
            add: Adds a tensor up over processes that each saw a part of the samples. It is called once, with
                the same number of values in each process.
        """
        sizes = [len(gate.experts) + 1 for gate in self._gates]
        device = next(self._model.parameters(), torch.empty(0)).device
        parts = [
            self._sums.get(gate, torch.zeros(size)).to(device)
            for gate, size in zip(self._gates, sizes, strict=True)
        ]
        counted = torch.cat(parts) if add is None else add(torch.cat(parts))
        found: dict[str, dict[str, float]] = {}
        for gate, part in zip(self._gates, torch.split(counted.cpu(), sizes), strict=True):
            *sums, rows = part.tolist()
            if rows:
                by_expert = dict(zip(gate.experts, (value / rows for value in sums), strict=True))
                found.setdefault(gate.task, {}).update(by_expert)
        return found

    def reset(self) -> None:
        """Discard the samples so far."""
        self._sums.clear()

    def close(self) -> None:
        """Stop observing."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Self:
        """This object."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop observing."""
        self.close()
