"""Progressive layered extraction: levels of shared and task experts."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from polytask._errors import UserError
from polytask.models._argument_checks import check_count
from polytask.models._base import ByTask, Heads
from polytask.models._experts import Factory, counts_by_task
from polytask.models._extraction import Extraction
from polytask.models._gate import GateInput


class PLE(ByTask):
    r"""Levels of shared and task experts; tasks separate from each other level by level.

    At each level the experts of a task take the task's mixture of the level below, the shared experts the
    shared mixture, which is one of *all* experts below. With :math:`z^t_0 = z^s_0 = x`,

    .. math:: z^t_l = \sum_{i \,\in\, \text{own}_t \cup \text{shared}} g^t_l(z^t_{l-1})_i \, f_{l,i}, \qquad
        z^s_l = \sum_{i \,\in\, \text{all}} g^s_l(z^s_{l-1})_i \, f_{l,i}, \qquad
        \text{output}_t = \text{head}_t(z^t_L).

    The last level has no shared mixture; with one level it is `CGC`. A chosen task runs its own and the
    shared experts of the last level, and of the levels below all experts that its shared part mixes.

    Args:
        experts: For each level a callable that returns an expert, such as
            ``functools.partial(MLP, 64, [], 16)``; in a config a ``_target_`` with ``_partial_: true``.
            Experts of a level return tensors of one shape, which those of the next level take.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        gates: For each level the values per sample of what its gates receive, for linear gates; or a callable
            that returns a module for the number of experts that the gate weighs.
        shared_experts: Number of experts that all tasks share at each level; may be 0 if there is only one
            level.
        task_experts: Number of experts of each task at each level, one for all or by task; may be 0.
        gate_input: What the gates of all levels receive: a key or index of the input, or a module that is
            called with it. None means the input at the first level, and at the others the mixture that the
            level takes.

    Shape:
        - Input: what the experts of the first level take.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.

    Raises:
        UserError: If experts and gates are not one for each level, a task is left without an expert, or
            gate and experts do not fit each other.

    Example:
        >>> import functools, torch
        >>> from polytask.models import MLP, PLE, TaskHead
        >>> first = functools.partial(MLP, 64, [], 32, activate_output=True)
        >>> second = functools.partial(MLP, 32, [], 16, activate_output=True)
        >>> heads = {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}
        >>> model = PLE([first, second], heads, gates=[64, 32])
        >>> model(torch.rand(8, 64), "odd").shape
        torch.Size([8, 2])

    Reference:
        Tang, Liu, Zhao, Gong. Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model
        for Personalized Recommendations. RecSys 2020, equations 5 and 6.

    Deviations:
        The gates have a bias.
    """

    def __init__(
        self,
        experts: Sequence[Factory],
        heads: Heads,
        gates: Sequence[int | Factory],
        shared_experts: int = 1,
        task_experts: int | Mapping[str, int] = 1,
        *,
        gate_input: nn.Module | str | int | None = None,
    ) -> None:
        super().__init__(heads)
        depth = _depth(experts, gates)
        own = counts_by_task(task_experts, self.task_names, "task_experts")
        shared = check_count(shared_experts, "shared_experts")
        if depth > 1 and shared == 0:
            rule = "must be at least 1 if there are several levels"
            raise UserError("shared_experts", rule, "0", "Use Separate or one level")
        self.gate_input = None if gate_input is None else GateInput(gate_input)
        self.levels = nn.ModuleList(
            Extraction(expert, gate, own, shared, f"level{level}_", mixes_shared=level < depth)
            for level, (expert, gate) in enumerate(zip(experts, gates, strict=True), start=1)
        )

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> dict[str, Any]:
        """For each task its mixture at the last level.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        chosen = self.task_names if tasks is None else tasks
        depth = len(self.levels)
        by_task, shared = dict.fromkeys(chosen if depth == 1 else self.task_names, x), x
        feature = None if self.gate_input is None else self.gate_input(x)
        for number, level in enumerate(self.levels, start=1):
            # The last level runs the chosen tasks' experts only, and takes only their mixtures from below.
            mixed = chosen if number >= depth - 1 else self.task_names
            features = {task: by_task[task] if feature is None else feature for task in mixed}
            by_task, shared = level(by_task, shared, features, shared if feature is None else feature)
        return by_task


def _depth(experts: object, gates: object) -> int:
    for value, where in ((experts, "experts"), (gates, "gates")):
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise UserError(where, "must be a list with an entry for each level", repr(value))
    assert isinstance(experts, Sequence)
    assert isinstance(gates, Sequence)
    if len(experts) != len(gates):
        rule = "must have one entry for each level"
        raise UserError("gates", rule, f"{len(gates)} for {len(experts)} levels")
    return len(experts)
