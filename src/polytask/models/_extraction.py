"""A level of shared and task experts; `CGC` has one, `PLE` several."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from polytask._errors import UserError
from polytask._tasks import TaskModules
from polytask.models._experts import Factory, make_experts, mix
from polytask.models._gate import SHARED, Gate, make_logits


class Extraction(nn.Module):
    """Shared and task experts, gates that mix both for each task, and optionally one that mixes all.

    Args:
        expert: Makes an expert when called.
        gate: See `make_logits`.
        own: Number of experts by task.
        shared: Number of shared experts.
        level: Prefix of the experts' names.
        mixes_shared: Whether the level also has an output of its shared part.

    Raises:
        UserError: If a task has no expert to use.
    """

    def __init__(
        self,
        expert: Factory,
        gate: int | Factory,
        own: Mapping[str, int],
        shared: int,
        level: str = "",
        mixes_shared: bool = False,
    ) -> None:
        super().__init__()
        for task, count in own.items():
            if count + shared == 0:
                rule = "must be at least 1 if no expert is shared"
                raise UserError(f"task_experts.{task}", rule, "0", "Raise task_experts or shared_experts")
        self.shared = make_experts(expert, shared)
        self.own = TaskModules({task: make_experts(expert, count) for task, count in own.items()})
        common = [f"{level}shared{index}" for index in range(shared)]
        mine = {task: [f"{level}own{index}" for index in range(count)] for task, count in own.items()}
        self.gates = TaskModules(
            {
                task: Gate(make_logits(gate, len(names) + shared), task, [*names, *common])
                for task, names in mine.items()
            }
        )
        self.shared_gate: Gate | None = None
        if mixes_shared:
            every = [f"{task}_{name}" for task, names in mine.items() for name in names] + common
            self.shared_gate = Gate(make_logits(gate, len(every)), SHARED, every)

    def forward(
        self, by_task: Mapping[str, Any], shared: Any, features: Mapping[str, Any], shared_feature: Any
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The mixture of each task, and that of the shared part.

        Args:
            by_task: The input of each task's experts; only the experts of these tasks run.
            shared: The input of the shared experts.
            features: The input of each task's gate, for the tasks whose mixture is requested.
            shared_feature: The input of the shared part's gate.
        """
        common = [expert(shared) for expert in self.shared]
        own = {task: [expert(x) for expert in self._own(task)] for task, x in by_task.items()}
        mixed = {task: mix(self.gates[task](x), own[task] + common) for task, x in features.items()}
        if self.shared_gate is None:
            return mixed, None
        every = [output for outputs in own.values() for output in outputs] + common
        return mixed, mix(self.shared_gate(shared_feature), every)

    def _own(self, task: str) -> Sequence[nn.Module]:
        experts = self.own[task]
        assert isinstance(experts, nn.ModuleList)
        return list(experts)
