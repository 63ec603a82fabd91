"""Weights from how fast each loss falls."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from polytask._checks import check_integer, check_number
from polytask._errors import UserError
from polytask.weighting._base import LossWeighting
from polytask.weighting._state import pick, put


class DWA(LossWeighting):
    r"""Dynamic weight average: a task whose loss falls more slowly weighs more.

    With the mean losses :math:`\bar L_i(e)` of the epochs and the window *n*,

    .. math:: w = T \operatorname{softmax}(r / \tau), \qquad
        r_i = \bar L_i(e - 1) / \bar L_i(e - n),

    :math:`r_i = 1` until task *i* has been seen in *n* epochs. The weights of the present tasks sum
    to their number *T*.

    Args:
        temperature: :math:`\tau`, no unit, above 0; large values make the weights equal.
        window_size: *n*, epochs from the oldest mean in use to now, 2 or more.

    Shape:
        - losses: ``(tasks,)``; an epoch's mean is 0 or more.
        - returns: ``()``.

    Raises:
        UserError: If an argument is out of range, or an epoch's mean loss is negative or NaN.

    Example:
        >>> import torch
        >>> weighting = DWA()
        >>> weighting.setup(["digit", "height"])
        >>> for means in ([4.0, 1.0], [2.0, 1.0]):
        ...     weighting.on_epoch_end(torch.tensor(means))
        >>> weighting.weights(torch.tensor([1.0, 1.0]))
        tensor([0.8756, 1.1244])

    When:
        Tasks learn at different speeds, and an epoch is a sensible clock.

    Reference:
        Liu, Johns, Davison. End-to-End Multi-Task Learning with Attention. CVPR 2019, equation 7.

    Deviations:
        The paper has a window of 2. A mean of exactly 0 gives the ratio 1 instead of a division by 0.
    """

    history: Tensor
    rates: Tensor

    def __init__(self, temperature: float = 2.0, window_size: int = 2) -> None:
        super().__init__()
        self.temperature = check_number(temperature, "DWA.temperature", above=0)
        self.window_size = check_integer(window_size, "DWA.window_size", 2, of="epochs")

    def setup(self, names: Iterable[str]) -> None:
        """Make an empty history."""
        super().setup(names)
        self.register_buffer("history", torch.full((len(self.names), self.window_size), math.nan))
        self.register_buffer("rates", torch.ones(len(self.names)))

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The weighted sum."""
        rates = pick(self.rates, indices).to(losses.dtype)
        return len(losses) * (torch.softmax(rates / self.temperature, 0) * losses).sum()

    @torch.no_grad()
    def on_epoch_end(self, losses: Tensor, names: Sequence[str] | None = None) -> None:
        """Add the epoch's mean losses to the window.

        Args:
            losses: Mean losses of the epoch.
            names: Which tasks these are of; None if of all.

        Raises:
            UserError: If a loss is below 0.
        """
        losses, indices = self._checked(losses, names)
        for name, loss in zip(self.names if names is None else names, losses.tolist(), strict=True):
            if not loss >= 0:
                raise UserError("DWA", f"the mean loss of task '{name}' must be at least 0", f"{loss:g}")
        history = pick(self.history, indices)
        history = torch.cat([history[:, 1:], losses.detach().to(history)[:, None]], 1)
        oldest, newest = history[:, 0], history[:, -1]
        put(self.rates, indices, torch.where(oldest > 0, newest / oldest, 1.0))
        put(self.history, indices, history)

    def extra_repr(self) -> str:
        """Temperature and window."""
        return f"temperature={self.temperature:g}, window_size={self.window_size}"
