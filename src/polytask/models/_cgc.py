"""Customised gate control: shared experts and experts of one task."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from polytask.models._argument_checks import check_count
from polytask.models._base import ByTask, Heads
from polytask.models._experts import Factory, counts_by_task
from polytask.models._extraction import Extraction
from polytask.models._gate import GateInput


class CGC(ByTask):
    r"""Shared experts and experts of single tasks; each task mixes its own experts with the shared ones.

    With the experts :math:`f_i` of task *t* and the shared ones,

    .. math:: \text{output}_t = \text{head}_t\Big(\sum_{i \,\in\, \text{own}_t \cup \text{shared}}
        g^t(x)_i \, f_i(x)\Big), \qquad g^t(x) = \operatorname{softmax}(W^t x + b^t).

    Without shared experts the tasks are separate. A chosen task runs its own experts and the shared ones.

    Args:
        expert: Makes an expert when called, such as ``functools.partial(MLP, 64, [32], 16)``; in a config a
            ``_target_`` with ``_partial_: true``. All experts take the input and return tensors of one shape.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        gate: Values per sample of what the gates receive, for linear gates; or a callable that returns a
            module for the number of experts that the gate weighs.
        shared_experts: Number of experts that all tasks share; may be 0.
        task_experts: Number of experts of each task, one for all or by task; may be 0.
        gate_input: What the gates receive: None for the input, a key or index of it, or a module that is
            called with it.

    Shape:
        - Input: what the experts take.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.

    Raises:
        UserError: If a task is left without an expert, the factories return no modules, or gate and experts
            do not fit each other.

    Example:
        >>> import functools, torch
        >>> from polytask.models import CGC, MLP, TaskHead
        >>> expert = functools.partial(MLP, 64, [32], 16)
        >>> model = CGC(expert, {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}, gate=64)
        >>> model(torch.rand(8, 64), "odd").shape
        torch.Size([8, 2])

    Reference:
        Tang, Liu, Zhao, Gong. Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model
        for Personalized Recommendations. RecSys 2020, equations 1 to 4.

    Deviations:
        The gates have a bias.
    """

    def __init__(
        self,
        expert: Factory,
        heads: Heads,
        gate: int | Factory,
        shared_experts: int = 1,
        task_experts: int | Mapping[str, int] = 1,
        *,
        gate_input: nn.Module | str | int | None = None,
    ) -> None:
        super().__init__(heads)
        own = counts_by_task(task_experts, self.task_names, "task_experts")
        self.gate_input = GateInput(gate_input)
        self.level = Extraction(expert, gate, own, check_count(shared_experts, "shared_experts"))

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> dict[str, Any]:
        """For each task its mixture of its own and the shared experts.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        chosen = self.task_names if tasks is None else tasks
        feature = self.gate_input(x)
        mixed, _ = self.level(dict.fromkeys(chosen, x), x, dict.fromkeys(chosen, feature), None)
        return dict(mixed)
