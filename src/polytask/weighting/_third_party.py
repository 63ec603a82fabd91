"""A third-party method, with seeded random numbers and with a state that a checkpoint can hold."""

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from polytask._errors import Reason, RunError, UserError
from polytask.weighting._random_stream import RandomStream

_INSIDE_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (Tensor, torch.dtype, torch.device, str, int, float, type(None))


class ThirdPartyMethod(nn.Module):
    """A method of TorchJD, with seeded random numbers and with its state, if it has one.

    Args:
        method: The method.
        where: The weighting's name, for messages.
        seed: Seed of the method's random numbers; None means the seed of torch.
    """

    def __init__(self, method: nn.Module, where: str, seed: int | None) -> None:
        super().__init__()
        self.where, self.names = where, cast(tuple[str, ...], ())
        if next(method.parameters(), None) is not None:
            found = f"{type(method).__name__} with parameters"
            raise UserError(f"{where}.method", "must not have learned parameters", found)
        # torch does not find the module within a tuple, so that its buffers are not saved twice.
        self.held = (method,)
        self.draws = RandomStream(seed)
        self.state = ThirdPartyState(method, where) if _stateful(method) else None

    def setup(self, names: tuple[str, ...]) -> None:
        """Set the task names."""
        self.names = names
        if self.state is not None:
            self.state.names = names

    def forward(self, matrix: Tensor, indices: list[int] | None, shape: Sequence[int]) -> Tensor:
        """The method's result for a matrix.

        Args:
            matrix: The Gramian or the Jacobian of the present tasks.
            indices: Their indices among all tasks; None if all are present.
            shape: The shape that the result must have.
        """
        (method,), given = self.held, matrix
        if self.state is not None:
            self.state.check_all_present(indices)
            given = matrix.cpu().double()
            if not (given.isfinite().all() and given.any()):
                method = copy.deepcopy(method)
        with _global_generators(self.draws.step(), given.device):
            try:
                result = method(given)
            except Exception as error:
                tasks = ", ".join(self.names if indices is None else (self.names[i] for i in indices))
                rule = f"{type(method).__name__} failed for tasks {tasks}"
                raise RunError(self.where, rule, Reason.said(error)) from error
        if result.shape != tuple(shape):
            rule = f"{type(method).__name__} must return the shape {tuple(shape)}"
            raise UserError(self.where, rule, f"shape {tuple(result.shape)}")
        return cast(Tensor, result).to(matrix)

    def extra_repr(self) -> str:
        """The method."""
        return repr(self.held[0])


class ThirdPartyState(nn.Module):
    """The state of a method of TorchJD, which is what its ``reset`` removes, for `state_dict`.

    TorchJD keeps it in plain attributes and in buffers that do not always exist: torch's own `state_dict`
    would save a part of it and load none.

    Args:
        method: The method.
        where: The weighting's name, for messages.
    """

    def __init__(self, method: nn.Module, where: str) -> None:
        super().__init__()
        self.where, self.names = where, cast(tuple[str, ...], ())
        self.held = (method,)
        self._values()

    def check_all_present(self, indices: list[int] | None) -> None:
        """Raise if a task is absent from a step.

        Args:
            indices: Indices of the present tasks among all tasks; None if all are present.
        """
        if indices is None:
            return
        absent = ", ".join(name for i, name in enumerate(self.names) if i not in indices)
        raise UserError(
            self.where,
            f"{self._method} keeps one state for all tasks and requires each task in each step, in one order",
            f"a step without {absent}" if absent else "another order",
            "Use a weighting of polytask, which keeps its state by task",
        )

    @property
    def _method(self) -> str:
        return type(self.held[0]).__name__

    def _values(self) -> dict[str, dict[str, Any]]:
        parts = _stateful(self.held[0])
        now = {path: _own(part) for path, part in parts.items()}
        for part in parts.values():
            part.reset()
        values = {
            path: {name: value for name, value in now[path].items() if value is not _own(part)[name]}
            for path, part in parts.items()
        }
        self._put(values)
        for name, value in ((name, value) for own in values.values() for name, value in own.items()):
            if not _is_plain(value):
                rule = f"the state of {self._method} must consist of tensors and numbers"
                found = f"a {type(value).__name__} in '{name}', which a checkpoint cannot hold"
                raise UserError(f"{self.where}.method", rule, found, "Use another method")
        return values

    def _put(self, values: dict[str, dict[str, Any]]) -> None:
        parts = _stateful(self.held[0])
        for path, own in values.items():
            for name, value in own.items():
                setattr(parts[path], name, value)

    def get_extra_state(self) -> dict[str, Any]:
        """The method's name, the tasks and the values."""
        return {"method": self._method, "tasks": list(self.names), "values": self._values()}

    def set_extra_state(self, saved: dict[str, Any]) -> None:
        """Restore the state.

        Args:
            saved: What `get_extra_state` returned.

        Raises:
            UserError: If the state is of another method or of other tasks.
        """
        for key, mine in (("method", self._method), ("tasks", list(self.names))):
            if saved[key] != mine:
                raise UserError(self.where, f"the {key} of a saved state must be {mine}", saved[key])
        for part in _stateful(self.held[0]).values():
            part.reset()
        self._put(copy.deepcopy(saved["values"]))


def _stateful(method: nn.Module) -> dict[str, Any]:
    reset = sys.modules["torchjd"].Stateful
    return {path: part for path, part in method.named_modules() if isinstance(part, reset)}


def _own(part: nn.Module) -> dict[str, Any]:
    own = {name: value for name, value in vars(part).items() if name not in _INSIDE_MODULE}
    return {**own, **part._buffers}


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(entry) for entry in value)
    return isinstance(value, _PLAIN)


@contextmanager
def _global_generators(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """A context in which torch's global generators yield the random numbers of this one."""
    devices = [] if device.type in ("cpu", "meta") else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        torch.set_rng_state(generator.get_state())
        for other in devices:
            seeded = torch.Generator(other).manual_seed(generator.initial_seed())
            torch.get_device_module(other).set_rng_state(seeded.get_state(), other)
        yield
