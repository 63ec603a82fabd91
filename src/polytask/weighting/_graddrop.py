"""One sign for each parameter, chosen at random with a probability of its purity."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from polytask.weighting._base import JacobianAggregator
from polytask.weighting._random_stream import RandomStream
from polytask.weighting._state import pick
from polytask.weighting._values import check_number, values_by_task


class GradDrop(JacobianAggregator):
    r"""Gradient sign dropout: of each parameter's gradients, only those of one sign are kept.

    For each parameter *p*, with the positive sign purity and a uniform random number :math:`U_p`,

    .. math:: P_p = \tfrac12 \Bigl(1 + \frac{\sum_i J_{ip}}{\sum_i |J_{ip}|}\Bigr), \qquad
        d_p = \sum_i \bigl(\ell_i + (1 - \ell_i) M_{ip}\bigr) J_{ip},

    where :math:`M_{ip}` is 1 for positive entries if :math:`P_p > U_p`, for negative entries if
    :math:`P_p < U_p`, else 0. A parameter that is 0 for all tasks stays 0. There are no task
    weights; if all signs agree, the update is the sum.

    Args:
        leak: :math:`\ell_i` by task, from 0 (all dropped) to 1 (nothing dropped); 0 for the others.
        seed: Seed of the random numbers; None means the seed of torch.

    Shape:
        - jacobian: ``(tasks, parameters)``.
        - returns: ``(parameters,)``.

    Raises:
        UserError: If a leak is not between 0 and 1, or is for no task.

    Example:
        >>> import torch
        >>> GradDrop(seed=0)(torch.tensor([[1.0, -2.0, 0.0], [3.0, -1.0, 0.0]]))
        tensor([ 4., -3.,  0.])

    When:
        Conflicts should be settled parameter by parameter.

    Reference:
        Chen, Ngiam, Huang, Luong, Kretzschmar, Chai, Anguelov. Just Pick a Sign: Optimizing Deep
        Multitask Models with Gradient Sign Dropout. NeurIPS 2020, algorithm 1, lines 10 to 15.

    Deviations:
        Applied to the parameters' gradients; the paper uses the representation's, multiplied by the sign of
        its input and summed over the batch. The purity is compared as it is (the paper's *f* is the
        identity).
    """

    leaks: Tensor

    def __init__(self, leak: Mapping[str, float] | None = None, *, seed: int | None = None) -> None:
        super().__init__()
        self.leak = leak
        self.draws = RandomStream(seed)

    def setup(self, names: Iterable[str]) -> None:
        """Bring the leaks into the order of the tasks."""
        super().setup(names)
        leaks = values_by_task(self.leak, self.names, "GradDrop.leak", 0.0)
        for name, leak in zip(self.names, leaks, strict=True):
            check_number(leak, f"GradDrop.leak.{name}", least=0, most=1)
        self.register_buffer("leaks", torch.tensor(leaks), persistent=False)

    def aggregate(self, jacobian: Tensor, indices: list[int] | None, losses: Tensor | None) -> Tensor:
        """The sum of the gradients that are kept."""
        purity = 0.5 * (1 + jacobian.sum(0) / jacobian.abs().sum(0))
        uniform = torch.rand(
            purity.shape,
            generator=self.draws.step(purity.device),
            dtype=purity.dtype,
            device=purity.device,
        )
        kept = torch.where(jacobian > 0, purity > uniform, purity < uniform)
        leaks = pick(self.leaks, indices).to(jacobian.dtype)[:, None]
        return ((leaks + (1 - leaks) * kept) * jacobian).sum(0)
