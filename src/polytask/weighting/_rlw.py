"""Random weights."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polytask.weighting._base import LossWeighting
from polytask.weighting._random_stream import RandomStream
from polytask.weighting._state import pick, put


class RLW(LossWeighting):
    r"""Random loss weighting: new random weights for every batch.

    .. math:: \sum_i w_i L_i, \qquad w = T \operatorname{softmax}(z), \qquad z \sim N(0, I).

    The weights of the present tasks sum to their number *T*. They are new for each training batch, also
    within an accumulation window. In evaluation they are those of the last training batch.

    Args:
        seed: Seed of the random numbers; None means the seed of torch.

    Shape:
        - losses: ``(tasks,)``.
        - returns: ``()``.

    Raises:
        UserError: If the seed is not a whole number.

    Example:
        >>> import torch
        >>> weighting = RLW(seed=0)
        >>> weighting.setup(["digit", "height"])
        >>> _ = weighting(torch.tensor([1.0, 1.0]))
        >>> round(weighting.weights(torch.tensor([1.0, 1.0])).sum().item(), 4)
        2.0

    When:
        For comparison: what does not beat random weights does not balance.

    Reference:
        Lin, Ye, Zhang, Tsang. Reasonable Effectiveness of Random Weighting: A Litmus Test for
        Multi-Task Learning. TMLR 2022, section 3.

    Deviations:
        The paper's weights sum to 1.
    """

    drawn: Tensor

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.draws = RandomStream(seed)

    def setup(self, names: Iterable[str]) -> None:
        """Begin with equal weights."""
        super().setup(names)
        self.register_buffer("drawn", torch.zeros(len(self.names)))

    def observe(self, losses: Tensor, indices: list[int] | None) -> None:
        """Sample new weights."""
        drawn = torch.randn(len(losses), generator=self.draws.step())
        put(self.drawn, indices, drawn.to(self.drawn.device, non_blocking=True))

    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The weighted sum."""
        drawn = pick(self.drawn, indices).to(losses.dtype)
        return len(losses) * (torch.softmax(drawn, 0) * losses).sum()
