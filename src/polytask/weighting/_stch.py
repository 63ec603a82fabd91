"""The smoothed largest loss."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from polytask._checks import check_integer, check_number
from polytask.weighting._bounded import BoundedLossWeighting
from polytask.weighting._state import pick, put
from polytask.weighting._values import values_by_task


class STCH(BoundedLossWeighting):
    r"""Smooth Tchebycheff scalarisation: the worst task counts most.

    With the preferences :math:`\lambda`, the nadir :math:`n_i` (the task's mean loss in its last
    warm-up epoch) and :math:`f_i = \log(L_i / n_i)`,

    .. math:: T \mu \log \sum_i e^{\lambda_i f_i / \mu},

    and :math:`\sum_i \log L_i` before all present tasks have a nadir. As :math:`\mu \to 0` it becomes
    the largest :math:`\lambda_i f_i`. With preferences of 1, :math:`\sum_i w_i L_i = T` for the
    weights of the *T* present tasks, in both phases. At :math:`\mu = 1` it is then a weighted sum
    with weights :math:`1/n_i`, up to a factor that is the same for all tasks.

    Args:
        mu: :math:`\mu`, no unit, above 0.
        warmup_epochs: Epochs before the nadir is taken from the last of them, 1 or more.
        preferences: :math:`\lambda_i` by task, no unit, above 0; 1 for the others.

    Shape:
        - losses: ``(tasks,)``, above 0.
        - returns: ``()``.

    Raises:
        UserError: If an argument is out of range, a preference is for no task, or a loss is not
            above 0.

    Example:
        >>> import torch
        >>> weighting = STCH(mu=0.5)
        >>> weighting.setup(["digit", "height"])
        >>> weighting.on_epoch_end(torch.tensor([1.0, 4.0]))
        >>> weighting.weights(torch.tensor([1.0, 2.0]))
        tensor([1.6000, 0.2000])

    When:
        The worst task counts, or a trade-off is wanted that no weighted sum reaches.

    Reference:
        Lin, Zhang, Yang, Liu, Wang, Zhang. Smooth Tchebycheff Scalarization for Multi-Objective
        Optimization. ICML 2024, section 3; nadir and logarithm from the authors' multi-task code.

    Deviations:
        The ideal point is 0. The authors' code warms up for five epochs, with :math:`\mu = 1`.
    """

    nadir: Tensor
    epochs: Tensor
    preference: Tensor

    def __init__(
        self, mu: float = 0.1, warmup_epochs: int = 1, preferences: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.mu = check_number(mu, "STCH.mu", above=0)
        self.warmup_epochs = check_integer(warmup_epochs, "STCH.warmup_epochs", 1, of="epochs")
        self.preferences = preferences

    def setup(self, names: Iterable[str]) -> None:
        """Begin without a nadir."""
        super().setup(names)
        preferences = values_by_task(self.preferences, self.names, "STCH.preferences", 1.0)
        for name, preference in zip(self.names, preferences, strict=True):
            check_number(preference, f"STCH.preferences.{name}", above=0)
        self.register_buffer("preference", torch.tensor(preferences), persistent=False)
        self.register_buffer("nadir", torch.full((len(self.names),), math.nan))
        self.register_buffer("epochs", torch.zeros(len(self.names), dtype=torch.int64))

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The smoothed maximum, or the sum of logarithms in the warm-up."""
        nadir = pick(self.nadir, indices).to(losses.dtype)
        logs = torch.log(losses)
        # A NaN in the branch that is not taken would still reach the gradient.
        fractions = logs - torch.log(torch.where(nadir.isnan(), 1.0, nadir))
        exponents = pick(self.preference, indices).to(losses.dtype) * fractions / self.mu
        smooth = len(losses) * self.mu * torch.logsumexp(exponents, 0)
        return torch.where(nadir.isnan().any(), logs.sum(), smooth)

    @torch.no_grad()
    def on_epoch_end(self, losses: Tensor, names: Sequence[str] | None = None) -> None:
        """Count the epoch, and set the nadir at the end of the warm-up."""
        losses, indices = self._checked(losses.detach(), names)
        epochs, nadir = pick(self.epochs, indices) + 1, pick(self.nadir, indices)
        put(self.epochs, indices, epochs)
        put(self.nadir, indices, torch.where(epochs == self.warmup_epochs, losses.to(nadir), nadir))

    def extra_repr(self) -> str:
        """Smoothing, warm-up and preferences."""
        preferences = f", preferences={dict(self.preferences)}" if self.preferences else ""
        return f"mu={self.mu:g}, warmup_epochs={self.warmup_epochs}{preferences}"
