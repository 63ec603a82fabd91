"""DSelect-k: gates that choose k of the experts, learned by gradient descent."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polytask._checks import is_finite
from polytask._errors import UserError
from polytask._tasks import TaskModules
from polytask.models._argument_checks import check_size, is_size
from polytask.models._base import ByTask, Heads
from polytask.models._choice import Choice
from polytask.models._experts import Factory, make_experts, mix
from polytask.models._gate import Gate, GateInput, checked, make_logits


class DSelectK(ByTask):
    r"""Experts that all tasks share, of which each task learns to use k.

    Experts are numbered in binary. Each of a task's k selectors has a logit :math:`z_j` for every digit, and
    assigns the weight :math:`r(z)_i` to expert *i*:

    .. math:: r(z)_i = \prod_{j :\, i_j = 1} S(z_j) \prod_{j :\, i_j = 0} (1 - S(z_j)), \qquad
        q = \sum_{s=1}^{k} \operatorname{softmax}(\alpha)_s \, r(z^s),

    where the smooth step S is exactly 0 below :math:`-\gamma/2`, exactly 1 above :math:`\gamma/2`, and a
    cubic between: selectors become one-hot in finite time, and q then weighs at most k experts. The output is
    :math:`\text{head}_t(\sum_i q_i f_i(x))`.

    A gate without an input is the same for all samples. In evaluation such a task runs only the experts whose
    weight is above 0, which is read on the host at each call; an export keeps those that it had when the
    model was last put into evaluation. Under `torch.compile` all experts run.

    Args:
        expert: Makes an expert when called, such as ``functools.partial(MLP, 64, [32], 16)``; in a config a
            ``_target_`` with ``_partial_: true``. All experts take the input and return tensors of one shape.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        num_experts: Number of experts n.
        k: The largest number of experts that a task uses.
        gate: None for gates without an input; values per sample of what the gates receive, for linear gates;
            or a callable that returns a module for the number of values to return,
            k (⌈log₂ n⌉ + 1): the digits' logits, selector by selector, and :math:`\alpha`. Logits of such a
            module that start beyond :math:`\pm\gamma/2` get no gradient.
        gamma: Width of the smooth step.
        gate_input: What the gates receive: None for the input, a key or index of it, or a module that is
            called with it.

    Shape:
        - Input: what the experts take.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.

    Raises:
        UserError: If k is above the number of experts, ``gamma`` is not above 0, the factories return no
            modules, or gate and experts do not fit each other.

    Example:
        >>> import functools, torch
        >>> from polytask.models import MLP, DSelectK, TaskHead
        >>> expert = functools.partial(MLP, 64, [32], 16)
        >>> heads = {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}
        >>> model = DSelectK(expert, heads, num_experts=8, k=2)
        >>> model(torch.rand(8, 64), "odd").shape
        torch.Size([8, 2])

    Reference:
        Hazimeh, Zhao, Chowdhery, Sathiamoorthy, Chen, Mazumder, Hong, Chi. DSelect-k: Differentiable
        Selection in the Mixture of Experts with Applications to Multi-Task Learning. NeurIPS 2021,
        equations 3 to 6.

    Deviations:
        If n is not a power of two, the codes from n on count for the first experts, so that the weights sum
        to one without the paper's penalty. The entropy penalty, an option of the paper, is left out.
    """

    def __init__(
        self,
        expert: Factory,
        heads: Heads,
        num_experts: int = 8,
        k: int = 2,
        gate: int | Factory | None = None,
        *,
        gamma: float = 1.0,
        gate_input: nn.Module | str | int | None = None,
    ) -> None:
        super().__init__(heads)
        if check_size(k, "k") > check_size(num_experts, "num_experts"):
            rule = f"must be at most the number of experts, {num_experts}"
            raise UserError("k", rule, k, "Raise num_experts or lower k")
        if not is_finite(gamma) or gamma <= 0:
            raise UserError("gamma", "must be a number above 0", repr(gamma))
        if gate is None and gate_input is not None:
            fix = "Set gate, or leave gate_input out"
            raise UserError("gate_input", "requires gates with an input", "no gate", fix)
        self.experts = make_experts(expert, num_experts)
        self.gate_input = GateInput(gate_input)
        self.gates = TaskModules(
            {task: Selector(gate, task, num_experts, k, float(gamma)) for task in self.task_names}
        )

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> dict[str, Any]:
        """For each task its mixture of the experts.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        chosen = self.task_names if tasks is None else tasks
        used = {task: self._used(task) for task in chosen}
        needed = sorted({index for indices in used.values() for index in indices})
        outputs = {index: self.experts[index](x) for index in needed}
        feature = self.gate_input(x)
        return {
            task: mix(self.gates[task](feature)[..., indices], [outputs[index] for index in indices])
            for task, indices in used.items()
        }

    def _used(self, task: str) -> list[int]:
        gate = self.gates[task]
        assert isinstance(gate, Selector)
        return list(range(len(self.experts))) if self.training else gate.chosen()


class Selector(Gate, Choice):
    """A task's gate of `DSelectK`.

    Args:
        gate: See `DSelectK`.
        task: The gate's task.
        experts: Number of experts.
        k: Number of selectors.
        gamma: Width of the smooth step.
    """

    codes: Tensor

    def __init__(self, gate: int | Factory | None, task: str, experts: int, k: int, gamma: float) -> None:
        digits = math.ceil(math.log2(experts))
        self.size = size = k * (digits + 1)
        logits = None if gate is None else make_logits(gate, size)
        super().__init__(logits, task, [f"expert{index}" for index in range(experts)])
        self.digits, self.k, self.gamma = digits, k, gamma
        codes = torch.arange(2**digits)
        self.register_buffer("codes", codes.unsqueeze(1) >> torch.arange(digits) & 1, persistent=False)
        # Logits start in the steep part of the smooth step.
        near = gamma / 100
        if gate is None:
            bits = torch.empty(size - k).uniform_(-near, near)
            self.values = nn.Parameter(torch.cat([bits, torch.zeros(k)]))
        elif is_size(gate):
            self._flatten_start(size - k, near)

    def forward(self, x: Any) -> Tensor:
        """Weights ``(rows, experts)``, or ``(experts,)`` of a gate without an input; they sum to one.

        Args:
            x: What the gate receives.
        """
        values = self.values if self.logits is None else checked(self.logits(x), self.size)
        bits, alpha = values[..., : -self.k], values[..., -self.k :]
        steps = smooth_step(bits.reshape(*bits.shape[:-1], self.k, self.digits), self.gamma).unsqueeze(-2)
        shares = torch.where(self.codes.bool(), steps, 1 - steps).prod(dim=-1)
        by_code = (torch.softmax(alpha, dim=-1).to(shares.dtype).unsqueeze(-1) * shares).sum(dim=-2)
        return fold(by_code, len(self.experts))

    def choose(self) -> list[int]:
        """The experts with a weight above 0; all if the weights are not known without an input or values."""
        if self.logits is not None or torch.compiler.is_dynamo_compiling() or not self._is_whole():
            return list(range(len(self.experts)))
        return [index for index, weight in enumerate(self.forward(None).tolist()) if weight > 0]

    def _is_whole(self) -> bool:
        # Between calls, a strategy that shards parameters keeps a part of them, or none.
        values = self.values
        return type(values) is nn.Parameter and values.numel() == self.size and not values.is_meta

    @torch.no_grad()
    def _flatten_start(self, rows: int, near: float) -> None:
        assert self.logits is not None
        for parameter in self.logits.parameters():
            parameter[:rows].uniform_(-near, near)


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """The cubic from 0 at ``-gamma / 2`` to 1 at ``gamma / 2``, and constant outside.

    Args:
        t: Any numbers.
        gamma: Its width.

    Example:
        >>> smooth_step(torch.tensor([-0.5, 0.0, 0.25, 2.0]), 1.0)
        tensor([0.0000, 0.5000, 0.8438, 1.0000])
    """
    t = (t / gamma).clamp(-0.5, 0.5)
    return -2 * t**3 + 1.5 * t + 0.5


def fold(by_code: Tensor, experts: int) -> Tensor:
    """The experts' weights; codes from ``experts`` on count for the first experts."""
    kept, rest = by_code[..., :experts], by_code[..., experts:]
    return kept + torch.nn.functional.pad(rest, (0, experts - rest.shape[-1]))
