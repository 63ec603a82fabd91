"""Uncertainty weights in closed form."""

import torch
from torch import Tensor

from polytask.weighting._bounded import BoundedLossWeighting
from polytask.weighting._values import check_number


class UWSO(BoundedLossWeighting):
    r"""Soft optimal uncertainty weighting: nothing is learned, small losses weigh more.

    The noise that minimises :math:`L_i/(2\sigma_i^2) + \log \sigma_i` is :math:`\sigma_i^2 = L_i`,
    so that the best weight is inversely proportional to the loss. A softmax tempers it,

    .. math:: \sum_i w_i L_i, \qquad
        w = \operatorname{softmax}\Bigl(\frac{1}{\tau \, \operatorname{sg}[L]}\Bigr),

    where sg stops the gradient. The weights of the present tasks sum to 1.

    Args:
        temperature: :math:`\tau`, in the unit of 1/loss, above 0; large values make the weights
            equal. Its best value depends on the size of the losses: tune it.

    Shape:
        - losses: ``(tasks,)``, above 0.
        - returns: ``()``.

    Raises:
        UserError: If the temperature or a loss is not above 0.

    Example:
        >>> import torch
        >>> weighting = UWSO(temperature=0.5)
        >>> weighting.setup(["digit", "height"])
        >>> weighting.weights(torch.tensor([1.0, 2.0]))
        tensor([0.7311, 0.2689])

    When:
        As `UW`, if the weights should follow the losses at once and nothing should be
        learned.

    Reference:
        Kirchdorfer, Elich, Kutsche, Stuckenschmidt, Schott, Köhler. Analytical Uncertainty-Based Loss
        Weighting in Multi-Task Learning. GCPR 2024, section 3.

    Deviations:
        None known; there is no default temperature in the paper.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_number(temperature, "UWSO.temperature", above=0)

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The weighted sum."""
        inverse = (1 / (self.temperature * losses.detach())).clamp(max=torch.finfo(losses.dtype).max)
        return (torch.softmax(inverse, 0) * losses).sum()

    def extra_repr(self) -> str:
        """The temperature."""
        return f"temperature={self.temperature:g}"
