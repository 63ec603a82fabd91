"""Weights from learned homoscedastic uncertainty."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from polytask._errors import UserError, hint
from polytask._tasks import check_known
from polytask.weighting._base import LossWeighting
from polytask.weighting._state import TaskScalars, pick
from polytask.weighting._values import values_by_task

# The factor of exp(-s) L: a Gaussian likelihood has 1/2 of it, a softmax likelihood all of it.
_FACTORS = {"regression": 0.5, "classification": 1.0}


class UW(LossWeighting):
    r"""Uncertainty weighting: every task learns the noise :math:`\sigma_i` of its labels.

    With :math:`s_i = \log \sigma_i^2`, one learned number per task,

    .. math:: \sum_i a_i e^{-s_i} L_i + \tfrac12 s_i, \qquad
        a_i = \tfrac12 \text{ (regression)}, \; 1 \text{ (classification)}.

    The weights :math:`a_i e^{-s_i}` are not normalised. The scalar may become negative, which is
    harmless. If weight decay is used, put the parameters into an optimizer group without it.

    Args:
        task_types: ``regression`` or ``classification`` by task; the others are regressions.
        init_log_vars: Initial :math:`s_i` by task, no unit; 0 for the others.

    Shape:
        - losses: ``(tasks,)``, 0 or more.
        - returns: ``()``.

    Raises:
        UserError: If a task or a type is not known, or a number is not finite.

    Example:
        >>> import torch
        >>> weighting = UW({"digit": "classification"}, {"height": 2.0})
        >>> weighting.setup(["digit", "height"])
        >>> weighting(torch.tensor([1.0, 2.0])).detach()
        tensor(2.1353)
        >>> {task: round(sigma, 3) for task, sigma in weighting.get_uncertainties().items()}
        {'digit': 1.0, 'height': 2.718}

    When:
        The losses are likelihoods with different noise, such as regressions in different
        units.

    Reference:
        Kendall, Gal, Cipolla. Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics. CVPR 2018, equations 7 and 10.

    Deviations:
        None.
    """

    factors: Tensor

    def __init__(
        self,
        task_types: Mapping[str, Literal["regression", "classification"]] | None = None,
        init_log_vars: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.task_types = dict(task_types or {})
        self.init_log_vars = init_log_vars
        for name, kind in self.task_types.items():
            if kind not in _FACTORS:
                raise UserError(
                    f"UW.task_types.{name}",
                    "must be 'regression' or 'classification'",
                    repr(kind),
                    hint(str(kind), _FACTORS),
                )

    def setup(self, names: Iterable[str]) -> None:
        """Make one log variance for each task."""
        super().setup(names)
        check_known(self.task_types, self.names, "UW.task_types")
        initial = values_by_task(self.init_log_vars, self.names, "UW.init_log_vars", 0.0)
        self.log_vars = TaskScalars(dict(zip(self.names, initial, strict=True)))
        factors = [_FACTORS[self.task_types.get(name, "regression")] for name in self.names]
        self.register_buffer("factors", torch.tensor(factors), persistent=False)

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The sum of the negative log likelihoods."""
        log_vars = self.log_vars.values(indices).to(losses.dtype)
        return (pick(self.factors, indices) * torch.exp(-log_vars) * losses + 0.5 * log_vars).sum()

    def get_uncertainties(self) -> dict[str, float]:
        r"""The learned noise :math:`\sigma_i = e^{s_i / 2}` by task, in the unit of the targets."""
        sigmas = torch.exp(0.5 * self.log_vars.values().detach())
        return dict(zip(self.names, sigmas.tolist(), strict=True))
