"""A model's buffers, as they were before the forward of a batch that is skipped."""

import torch
from torch import Tensor, nn


class SavedBuffers:
    """Keeps copies of a model's buffers, such as the running statistics of batch norm.

    Args:
        model: The model.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> saved = SavedBuffers(norm)
        >>> saved.save()
        >>> _ = norm(torch.full((2, 1), torch.nan))
        >>> saved.restore()
        >>> norm.running_mean
        tensor([0.])
    """

    def __init__(self, model: nn.Module) -> None:
        self._named_buffers = model.named_buffers
        self._copies: list[tuple[str, Tensor]] = []

    @torch.no_grad()
    def save(self) -> None:
        """Copy all buffers."""
        self._copies = [(name, buffer.clone()) for name, buffer in self._named_buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Give the buffers the values that were saved."""
        saved = dict(self._copies)
        for name, buffer in self._named_buffers():
            if name in saved and saved[name].shape == buffer.shape:
                buffer.copy_(saved[name])
