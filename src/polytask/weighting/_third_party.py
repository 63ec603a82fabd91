"""A method of another package, with seeded draws and with a state that a checkpoint can hold."""

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from polytask._errors import RunError, UserError
from polytask.weighting._random_stream import RandomStream

_INSIDE_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (Tensor, torch.dtype, torch.device, str, int, float, type(None))


class ThirdPartyMethod(nn.Module):
    """A method of TorchJD, with seeded draws, and with its state where it has one."""

    def __init__(self, method: nn.Module, where: str, seed: int | None) -> None:
        super().__init__()
        self.where, self.names = where, cast(tuple[str, ...], ())
        if next(method.parameters(), None) is not None:
            raise UserError(f"{where}.method", "must have no parameters to learn", type(method).__name__)
        # Within a tuple torch sees no module, and saves none of its buffers beside the state.
        self.held = (method,)
        self.draws = RandomStream(seed)
        self.state = ThirdPartyState(method, where) if _stateful(method) else None

    def setup(self, names: tuple[str, ...]) -> None:
        """Take the task names."""
        self.names = names
        if self.state is not None:
            self.state.names = names

    def forward(self, matrix: Tensor, indices: list[int] | None, shape: Sequence[int]) -> Tensor:
        """What the method makes of a matrix.

        Args:
            matrix: The Gramian or the Jacobian of the present tasks.
            indices: Their indices among all tasks; None if all are present.
            shape: What the result must have.
        """
        (method,), given = self.held, matrix
        if self.state is not None:
            self.state.check_all_present(indices)
            given = matrix.cpu().double()
            if not (given.isfinite().all() and given.any()):
                method = copy.deepcopy(method)
        with _global_draws(self.draws.step(), given.device):
            try:
                result = method(given)
            except Exception as error:
                tasks = ", ".join(self.names if indices is None else (self.names[i] for i in indices))
                rule = f"{type(method).__name__} raised an error for tasks {tasks}"
                raise RunError(self.where, rule, " ".join(str(error).split())) from error
        if result.shape != tuple(shape):
            rule = f"{type(method).__name__} must return the shape {tuple(shape)}"
            raise UserError(self.where, rule, f"shape {tuple(result.shape)}")
        return cast(Tensor, result).to(matrix)

    def extra_repr(self) -> str:
        """The method."""
        return repr(self.held[0])


class ThirdPartyState(nn.Module):
    """What the ``reset`` of a method of TorchJD takes away, for `state_dict`.

    TorchJD keeps it in buffers that come and go and in plain attributes, of which torch alone would
    save a part and load none.
    """

    def __init__(self, method: nn.Module, where: str) -> None:
        super().__init__()
        self.where, self.names = where, cast(tuple[str, ...], ())
        self.held = (method,)
        self._values()

    def check_all_present(self, indices: list[int] | None) -> None:
        """Refuse a step without some task.

        Args:
            indices: Indices of the present tasks among all tasks; None if all are present.
        """
        if indices is None:
            return
        absent = ", ".join(name for i, name in enumerate(self.names) if i not in indices)
        raise UserError(
            self.where,
            f"{self._method} keeps one state for all tasks, and needs each task in each step in one order",
            f"no {absent}" if absent else "another order",
            "Take a weighting of polytask, which keeps its state by task",
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
                rule = f"{self._method} keeps '{name}', which a checkpoint cannot hold"
                raise UserError(f"{self.where}.method", rule, type(value).__name__, "Take another method")
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
        """Take up what `get_extra_state` gave.

        Args:
            saved: The method's name, the tasks and the values.

        Raises:
            UserError: If it is of another method, or of other tasks.
        """
        for key, mine in (("method", self._method), ("tasks", list(self.names))):
            if saved[key] != mine:
                raise UserError(self.where, f"a state is taken up by the same {key}, {mine}", saved[key])
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
def _global_draws(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Meanwhile torch's global generators draw what this one would."""
    places = [] if device.type in ("cpu", "meta") else [device]
    with torch.random.fork_rng(places, device_type=device.type if places else "cuda"):
        torch.set_rng_state(generator.get_state())
        for place in places:
            seeded = torch.Generator(place).manual_seed(generator.initial_seed())
            torch.get_device_module(place).set_rng_state(seeded.get_state(), place)
        yield
