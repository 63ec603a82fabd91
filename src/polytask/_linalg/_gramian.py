"""What every solver needs from a Gramian: float64, norms, cosines, eigenvalues."""

from typing import NamedTuple

import torch
from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)


def exact(tensor: Tensor, on_host: bool = False) -> Tensor:
    """The values in float64, detached; on the CPU if requested, or if their device has no float64.

    Example:
        >>> exact(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float64
    """
    tensor = tensor.detach()
    return (tensor.cpu() if on_host or tensor.device.type in WITHOUT_FLOAT64 else tensor).double()


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 for a denominator of 0.

    Example:
        >>> divide(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0]))
        tensor([0.5000, 0.0000])
    """
    return torch.where(denominator == 0, 0.0, numerator / torch.where(denominator == 0, 1.0, denominator))


def cosines(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients' norms, and the cosines between them.

    A gradient of 0 counts as orthogonal to all others, so that the whole diagonal is 1 and no matrix is
    singular because of it.

    Args:
        gramian: ``(tasks, tasks)``, float64.

    Returns:
        Norms ``(tasks,)`` and cosines ``(tasks, tasks)``.

    Example:
        >>> norms, cosine = cosines(torch.tensor([[4.0, -1.0], [-1.0, 1.0]]))
        >>> norms.tolist(), cosine.tolist()
        ([2.0, 1.0], [[1.0, -0.5], [-0.5, 1.0]])
    """
    norms = gramian.diagonal().clamp(min=0).sqrt()
    # Divided by one norm after the other: the product of two tiny norms would underflow.
    cosine = divide(divide(gramian, norms[:, None]), norms[None, :]).clamp(-1, 1)
    return norms, torch.where(torch.eye(len(norms), dtype=torch.bool, device=norms.device), 1.0, cosine)


def shrink(cosine: Tensor, rounding: float) -> Tensor:
    """The cosines, reduced by the rounding of the Gramian from which they were computed.

    Rounding can push the smallest eigenvalue below 0, so that a convex problem would no longer be convex.

    Args:
        cosine: ``(tasks, tasks)``, diagonal 1.
        rounding: Unit of rounding of the given Gramian.
    """
    identity = torch.eye(len(cosine), dtype=cosine.dtype, device=cosine.device)
    margin = len(cosine) * rounding
    return (cosine + margin * identity) / (1 + margin)


class Spectrum(NamedTuple):
    """Eigenvalues in ascending order, eigenvectors in columns, and which eigenvalues count."""

    values: Tensor
    vectors: Tensor
    kept: Tensor

    def apply(self, factors: Tensor, vector: Tensor) -> Tensor:
        """The matrix with these eigenvectors and ``factors`` as eigenvalues, times the vector."""
        return self.vectors @ (torch.where(self.kept, factors, 0.0) * (self.vectors.mT @ vector))

    def inverse_times(self, vector: Tensor) -> Tensor:
        """The pseudo-inverse, times the vector."""
        return self.apply(1 / torch.where(self.kept, self.values, 1.0), vector)


def spectrum(matrix: Tensor, rounding: float) -> Spectrum:
    """The eigenvalues and eigenvectors; eigenvalues count if above ``tasks · rounding`` times the largest.

    Args:
        matrix: ``(tasks, tasks)``, symmetric and finite.
        rounding: Unit of rounding of the values from which the matrix was computed.
    """
    values, vectors = torch.linalg.eigh(matrix)
    return Spectrum(values, vectors, values > len(matrix) * rounding * values[-1].clamp(min=0))


def condition(gramian: Tensor) -> float:
    """Largest by smallest eigenvalue; infinite if the smallest is 0 or below, NaN for NaN or infinity.

    Reads on the host.

    Example:
        >>> condition(torch.diag(torch.tensor([4.0, 2.0])))
        2.0
    """
    if not bool(gramian.isfinite().all()):
        return float("nan")
    values = torch.linalg.eigvalsh(gramian.cpu())
    smallest, largest = values[0].item(), values[-1].item()
    return largest / smallest if smallest > 0 else float("inf")
