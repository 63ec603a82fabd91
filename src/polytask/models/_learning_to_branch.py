"""Learning to branch."""

import math
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from polytask._checks import check_number
from polytask.models._base import Heads
from polytask.models._choice import Choice
from polytask.models._taps import Taps
from polytask.models._towers import BackboneByTask, Mixing, Towers

# Below this temperature, a tower continues with nearly one tower's features, as in evaluation.
_COLD = 0.5
_ROUNDING = 1e-6


class LearningToBranch(Towers):
    r"""A search for a tree of layers: behind each tap, every tower learns which features it continues with.

    In training a tower continues with a random mixture of all towers' features,

    .. math:: \tilde x_t = \sum_s d_{ts} x_s, \qquad
        d_t = \mathrm{softmax}\left((\log\pi_t + g) / \tau\right),

    with Gumbel noise *g*, learned :math:`\log\pi`, and a temperature :math:`\tau` that falls step by step.
    In evaluation it continues with the features of the likeliest tower alone, and towers on which no
    requested task depends do not run. The likeliest tower is read on the host at each call; an export keeps
    that of the time when the model was last put into evaluation. `branches` returns the tree.

    Args:
        backbone: A module that is copied, with its weights, for each task; or by task modules that return
            features of the same shapes at the taps.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        taps: Names of the backbone's modules behind which the tree may branch.
        temperature: :math:`\tau` of the first step, above 0.
        decay: Factor of :math:`\tau` after each forward in training, above 0 and at most 1. It has to be so
            small that :math:`\tau` reaches ``lowest`` within the training: the default takes 4600 steps.
        lowest: The smallest :math:`\tau`, above 0.

    Shape:
        - Input: what the backbone takes.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.
        - The tapped modules return one tensor.

    Raises:
        UserError: If a tap is not a module of the backbone, is not called or does not return one tensor, the
            towers' features differ in shape, or a number is out of its range.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, LearningToBranch, TaskHead
        >>> heads = {"digit": TaskHead(16, 10), "odd": TaskHead(16, 2)}
        >>> model = LearningToBranch(MLP(64, [32], 16), heads, taps=["layers.activation1"])
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(8, 64)).items()}
        {'digit': (8, 10), 'odd': (8, 2)}
        >>> model.branches()
        {'layers.activation1': {'digit': 'digit', 'odd': 'odd'}}

    Reference:
        Guo, Lee, Ulbricht, "Learning to Branch for Multi-Task Learning", ICML 2020, equation 3.

    Deviations:
        Every level has as many nodes as there are tasks. At the start a tower's own features are likeliest,
        by 1 in :math:`\log\pi`, since copies of one backbone would otherwise differ by noise alone. A tower
        that continues from another one still runs as far as the tap: for a smaller model, build the tree that
        `branches` returns and train it from scratch, as the paper does.
    """

    def __init__(
        self,
        backbone: BackboneByTask,
        heads: Heads,
        taps: Taps,
        *,
        temperature: float = 10.0,
        decay: float = 0.999,
        lowest: float = 0.1,
    ) -> None:
        _check_positive(temperature, "temperature", math.inf)
        _check_positive(decay, "decay", 1.0)
        _check_positive(lowest, "lowest", math.inf)
        super().__init__(backbone, heads, taps, partial(_Branching, temperature=float(temperature)))
        self.start, self.decay, self.lowest = float(temperature), float(decay), float(lowest)

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """By task, the output of its tower.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        found = super().represent(x, tasks)
        for unit in self._branchings() if self.training else ():
            # A new tensor, since the graph still needs the one that this step used.
            unit.temperature = (unit.temperature * self.decay).clamp(min=self.lowest)
        return found

    def on_training_end(self) -> None:
        r"""Warn if :math:`\tau` is still high: the features in evaluation are then others than in training.

        `polytask.System` calls it at the end of a training.

        Warns:
            UserWarning: If :math:`\tau` is above 0.5 and above ``lowest``, with a ``decay`` that fits the
                number of training steps so far.
        """
        now = max((float(unit.temperature) for unit in self._branchings()), default=0.0)
        if len(self.task_names) == 1 or now <= max(self.lowest, _COLD) * (1 + _ROUNDING):
            return
        fix = "Set decay below 1"
        if now < self.start and self.lowest < self.start:
            steps = math.log(now / self.start) / math.log(self.decay)
            fix = f"With decay={(self.lowest / self.start) ** (1 / steps):.4g} it is {self.lowest:g} by now"
        cold = f"{max(self.lowest, _COLD):g}"
        warnings.warn(
            f"{type(self).__name__}: the temperature must fall to {cold} in training, since evaluation "
            f"continues with the likeliest tower alone, got {now:.3g} at the end. {fix}.",
            stacklevel=2,
        )

    def _branchings(self) -> list["_Branching"]:
        return [unit for unit in self.units if isinstance(unit, _Branching)]

    def branches(self) -> dict[str, dict[str, str]]:
        """By tap and task, the tower whose features the task's tower continues with."""
        tree = {}
        for tap, unit in zip(self.taps, self._branchings(), strict=True):
            parents = (self.task_names[parent] for parent in unit.choose())
            tree[tap] = dict(zip(self.task_names, parents, strict=True))
        return tree


class _Branching(Mixing, Choice):
    """The features that each tower continues with; ``log_odds`` is ``(tasks, tasks)``."""

    temperature: Tensor

    def __init__(self, tap: str, tasks: Sequence[str], temperature: float) -> None:
        super().__init__(tap)
        self.log_odds = nn.Parameter(torch.eye(len(tasks)))
        self.register_buffer("temperature", torch.tensor(temperature))

    def choose(self) -> list[int]:
        """For each tower, the likeliest one."""
        parents: list[int] = self.log_odds.argmax(dim=1).tolist()
        return parents

    def sources(self, tower: int, towers: int) -> Iterable[int]:
        """All towers in training, the chosen one afterwards."""
        return range(towers) if self.training else [self.chosen()[tower]]

    def forward(self, features: Sequence[Tensor], tower: int) -> Tensor:
        """The mixture for one tower."""
        if not self.training:
            return features[0]
        odds = self.log_odds[tower]
        # The negative logarithm of an exponential variable has a Gumbel distribution.
        noise = -torch.log(torch.empty_like(odds).exponential_())
        weights = torch.softmax((odds + noise) / self.temperature, dim=0)
        return torch.einsum("s,s...->...", weights.to(features[0].dtype), torch.stack(list(features)))


def _check_positive(value: object, where: str, most: float) -> None:
    check_number(value, where, above=0, most=most)
