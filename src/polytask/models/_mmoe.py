"""Multi-gate mixture of experts."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from polytask._tasks import TaskModules
from polytask.models._argument_checks import check_size
from polytask.models._base import ByTask, Heads
from polytask.models._experts import Factory, make_experts, mix
from polytask.models._gate import Gate, GateInput, make_logits


class MMoE(ByTask):
    r"""Experts that all tasks share, mixed by one gate per task.

    With experts :math:`f_1 \dots f_n` and gates :math:`g^t(x) \in \mathbb{R}^n`,

    .. math:: \text{output}_t = \text{head}_t\Big(\sum_i g^t(x)_i \, f_i(x)\Big), \qquad
        g^t(x) = \operatorname{softmax}(W^t x + b^t).

    With one expert it is hard parameter sharing. Every task uses all experts, so a chosen task runs them all,
    but one gate and one head only.

    Args:
        expert: Makes an expert when called, such as ``functools.partial(MLP, 64, [32], 16)``; in a config a
            ``_target_`` with ``_partial_: true``. All experts take the input and return tensors of one shape.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        gate: Values per sample of what the gates receive, for linear gates; or a callable that returns a
            module for the number of experts, such as ``functools.partial(MLP, 64, [16])``.
        num_experts: Number of experts.
        gate_input: What the gates receive: None for the input, a key or index of it, or a module that is
            called with it.

    Shape:
        - Input: what the experts take.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.
        - A gate returns (rows, experts), with more leading dimensions if the experts' outputs have them.

    Raises:
        UserError: If the factories return no modules, a number is not above zero, or gate and experts do not
            fit each other.

    Example:
        >>> import functools, torch
        >>> from polytask.models import MLP, MMoE, TaskHead
        >>> expert = functools.partial(MLP, 64, [32], 16)
        >>> model = MMoE(expert, {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}, gate=64, num_experts=4)
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(8, 64)).items()}
        {'digit': (8, 10), 'odd': (8, 2)}

    Reference:
        Ma, Zhao, Yi, Chen, Hong, Chi. Modeling Task Relationships in Multi-task Learning with Multi-gate
        Mixture-of-Experts. KDD 2018, equations 6 and 7.

    Deviations:
        The gates have a bias.
    """

    def __init__(
        self,
        expert: Factory,
        heads: Heads,
        gate: int | Factory,
        num_experts: int = 8,
        *,
        gate_input: nn.Module | str | int | None = None,
    ) -> None:
        super().__init__(heads)
        self.experts = make_experts(expert, check_size(num_experts, "num_experts"))
        names = [f"expert{index}" for index in range(num_experts)]
        self.gate_input = GateInput(gate_input)
        self.gates = TaskModules(
            {task: Gate(make_logits(gate, num_experts), task, names) for task in self.task_names}, "gates"
        )

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> dict[str, Any]:
        """For each task its mixture of the experts.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        outputs = [expert(x) for expert in self.experts]
        feature = self.gate_input(x)
        chosen = self.task_names if tasks is None else tasks
        return {task: mix(self.gates[task](feature), outputs) for task in chosen}
