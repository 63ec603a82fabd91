"""The processes of a training, if there are several."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from polytask._errors import UserError

# Elements that are sent at once: enough to hide the latency, few enough to copy.
_CHUNK = 2**22


class Ranks:
    """All ranks of the default process group; each must call the same methods in the same order.

    Losses are added up over the ranks before a weighting receives them, so that each rank has those of the
    joined batch. The gradient of a joined loss on a rank is that of the rank's own part times the number of
    ranks: the mean of the ranks' gradients is the gradient of the joined batch.

    Args:
        device: The device of the tensors that are sent.

    Raises:
        UserError: If there is no process group.
    """

    def __init__(self, device: torch.device) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            fix = "Call torch.distributed.init_process_group first"
            raise UserError("ranks", "a process group is required", "none", fix)
        self.size = dist.get_world_size()
        self.device = device

    def join(
        self,
        names: Sequence[str],
        here: Sequence[str],
        sums: Sequence[Tensor],
        counts: Sequence[float | Tensor],
    ) -> tuple[tuple[str, ...], list[Tensor], list[float | Tensor]]:
        """Losses of the joined batch: the tasks that any rank has, their sums and counts.

        Reads the counts on the host, since a task may be present on another rank only.

        Args:
            names: All tasks, in order.
            here: The tasks that this rank has.
            sums: Their sums, scalars.
            counts: Their counts.
        """
        whole = torch.zeros(4, len(names), dtype=torch.float64, device=self.device)
        for name, value, count in zip(here, sums, counts, strict=True):
            column = names.index(name)
            whole[0, column], whole[1, column], whole[2, column] = value.detach(), count, 1.0
            whole[3, column] = value.dtype == torch.float64
        dist.all_reduce(whole)
        own = dict(zip(here, sums, strict=True))
        _, numbers, owners, wide = (dict(zip(names, row, strict=True)) for row in whole.tolist())
        present = [name for name in names if owners[name]]
        # A rank without labels has no other way to know the losses' type.
        kind = torch.float64 if any(wide.values()) else torch.float32
        totals = {name: whole[0, names.index(name)].to(kind) for name in present}
        joined = [_with_value(own[n] * self.size, totals[n]) if n in own else totals[n] for n in present]
        return tuple(present), joined, [numbers[name] for name in present]

    def mean_(self, values: Tensor) -> Tensor:
        """The mean over the ranks, in place.

        Args:
            values: A contiguous tensor.
        """
        for part in torch.split(values.view(-1), _CHUNK):
            dist.all_reduce(part)
        return values.div_(self.size)

    def first(self, values: Tensor) -> Tensor:
        """The values of the first rank."""
        values = values.contiguous()
        dist.broadcast(values, 0)
        return values

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sums of a few numbers over the ranks; read on the host."""
        whole = torch.tensor(values, device=self.device)
        dist.all_reduce(whole)
        return list(whole.tolist())

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; read on the host."""
        value = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(value)
        return bool(value.item())

    def gather(self, value: Any) -> list[Any]:
        """Plain data of every rank, in order."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def copy_buffers(self, module: nn.Module) -> None:
        """Copy the first rank's buffers, such as running statistics, to every rank."""
        for chunk in _chunks(module.buffers()):
            _unpack(self.first(_pack(chunk)), chunk)

    def copy_state(self, module: nn.Module) -> None:
        """Copy the first rank's state, including random seeds, to every rank."""
        state = [module.state_dict() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(state, 0)
        assert state[0] is not None
        module.load_state_dict(state[0])

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace ``.grad`` by its mean over the ranks; a parameter that no rank reached keeps None.

        Args:
            parameters: The same on every rank.
        """
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        found = [float(p.grad is not None) for p in trained]
        sums = self.sums(found + [float(p.grad is not None and not p.grad.is_sparse) for p in trained])
        reached, dense = sums[: len(trained)], sums[len(trained) :]
        gradients = []
        for parameter, ranks, ranks_with_dense in zip(trained, reached, dense, strict=True):
            if not ranks:
                continue
            if not ranks_with_dense:
                parameter.grad = self._mean_of_sparse(parameter)
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            elif parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
            gradients.append(parameter.grad)
        for chunk in _chunks(gradients):
            _unpack(self.mean_(_pack(chunk)), chunk)

    def _mean_of_sparse(self, parameter: Tensor) -> Tensor:
        """The mean of a gradient that is sparse on all ranks that have it."""
        own = None if parameter.grad is None else parameter.grad.coalesce()
        parts = self.gather(None if own is None else (own.indices().cpu(), own.values().cpu()))
        found = [part for part in parts if part is not None]
        indices = torch.cat([part[0] for part in found], 1).to(parameter.device)
        values = torch.cat([part[1] for part in found]).to(parameter.device) / self.size
        whole = torch.sparse_coo_tensor(indices, values, parameter.shape, check_invariants=False)
        return whole.coalesce()


def _with_value(source: Tensor, value: Tensor) -> Tensor:
    """A tensor with this value and the gradient of another tensor."""
    return value + (source - source.detach())


def _chunks(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Groups of tensors of one type and device, of limited size."""
    chunk: list[Tensor] = []
    size = 0
    for tensor in tensors:
        alike = not chunk or (tensor.dtype, tensor.device) == (chunk[0].dtype, chunk[0].device)
        if chunk and (not alike or size + tensor.numel() > _CHUNK):
            yield chunk
            chunk, size = [], 0
        chunk.append(tensor)
        size += tensor.numel()
    if chunk:
        yield chunk


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _unpack(values: Tensor, tensors: Sequence[Tensor]) -> None:
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, part in zip(tensors, torch.split(values, sizes), strict=True):
        tensor.detach().copy_(part.view(tensor.shape))
