"""A backbone's forward that stops behind named modules and goes on with what it is handed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from polytask._errors import UserError, hint
from polytask.models._activation_checkpointing import check_not_run_again
from polytask.models._argument_checks import check_size

Taps = Sequence[str] | Mapping[str, int]


def check_taps(backbone: nn.Module, taps: Taps, where: str = "taps") -> tuple[str, ...]:
    """The names as a tuple, once each of them is a module of the backbone.

    Args:
        backbone: The module that is tapped.
        taps: Names as `torch.nn.Module.named_modules` gives them, or such names with numbers of channels.
        where: The argument they came from, for the message.

    Raises:
        UserError: If there is none, one stands twice, or there is no such module, with the nearest name.

    Example:
        >>> check_taps(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), ["1"])
        ('1',)
    """
    if isinstance(taps, str) or not isinstance(taps, Sequence | Mapping):
        raise UserError(where, "must be a list of module names", repr(taps), f"Write [{taps}]")
    names = tuple(taps)
    known = modules_by_name(backbone)
    if not names:
        raise UserError(
            where, "needs at least one module of the backbone", "none", hint("", known, "Modules")
        )
    tapped: dict[nn.Module, str] = {}
    for name in names:
        if name not in known:
            fix = hint(str(name), known, "Modules")
            raise UserError(f"{where}.{name}", f"no such module in {type(backbone).__name__}", None, fix)
        first = tapped.setdefault(known[name], name)
        if first != name or names.count(name) > 1:
            found = f"'{name}' twice" if first == name else f"'{first}' and '{name}', which are one"
            raise UserError(where, "a module is tapped once", found)
    return names


def modules_by_name(backbone: nn.Module) -> dict[str, nn.Module]:
    """All modules inside of the backbone; one that stands in two places by both of its names.

    Example:
        >>> layer = nn.ReLU()
        >>> list(modules_by_name(nn.Sequential(layer, layer)))
        ['0', '1']
    """
    return {name: module for name, module in backbone.named_modules(remove_duplicate=False) if name}


def check_channels(taps: Taps, where: str = "taps") -> dict[str, int]:
    """Channels by tap, once a number of them is given for each.

    Raises:
        UserError: If they are missing, or one is not an integer above 0.

    Example:
        >>> check_channels({"layer1": 64})
        {'layer1': 64}
    """
    if not isinstance(taps, Mapping):
        fix = "Write {layer1: 64, layer2: 128}"
        raise UserError(where, "needs the channels of what each module returns", repr(taps), fix)
    return {name: check_size(channels, f"{where}.{name}") for name, channels in taps.items()}


def channels_of(values: Tensor, channel_dim: int, tap: str) -> int:
    """How many channels the features at a tap have.

    Raises:
        UserError: If they have no such dimension.
    """
    if not -values.dim() <= channel_dim < values.dim():
        rule = f"needs features with a dimension {channel_dim} for their channels"
        raise UserError(f"tap '{tap}'", rule, f"shape {tuple(values.shape)}", "Set channel_dim")
    return values.shape[channel_dim]


def check_width(values: Tensor, channel_dim: int, tap: str, channels: int) -> None:
    """Raise if the features at a tap have another number of channels.

    Raises:
        UserError: With both numbers and the shape.
    """
    found = channels_of(values, channel_dim, tap)
    if found != channels:
        rule = f"the model was made for {channels} channels"
        raise UserError(
            f"tap '{tap}'", rule, f"{found} in shape {tuple(values.shape)}", f"Write {tap}: {found}"
        )


class _Pause(BaseException):
    """Leaves a forward at a tap; no `Exception`, which a backbone may catch."""

    def __init__(self, module: nn.Module, value: Any) -> None:
        self.module, self.value = module, value


@dataclass
class _Answer:
    """What a module's call returned, and in which version its tensors were then."""

    module: nn.Module
    output: Any

    def __post_init__(self) -> None:
        leaves = [self.output] if isinstance(self.output, Tensor) else tree_leaves(self.output)
        # Tensors of inference mode have no version.
        self.tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not leaf.is_inference()]
        self.settle()

    def settle(self) -> None:
        """Take the tensors as they are now."""
        self.versions = [tensor._version for tensor in self.tensors]

    def is_settled(self) -> bool:
        """Whether nothing changed the tensors in place."""
        return self.versions == [tensor._version for tensor in self.tensors]


class StagedForward:
    """One forward of a backbone that stops behind each tap.

    To go on, the backbone's code runs again from its start, and every module that has returned already
    answers from memory: no module runs twice. What the code does between modules is repeated, so it has
    to lead the same way again, and must not change in place what a module returned.

    Args:
        backbone: The backbone.
        taps: Names of its modules.
        x: Its input.

    Example:
        >>> import torch
        >>> forward = StagedForward(nn.Sequential(nn.Flatten(), nn.ReLU()), ["0"], -torch.ones(1, 2))
        >>> forward.advance()
        ('0', tensor([[-1., -1.]]))
        >>> forward.resume(torch.ones(1, 2))
        >>> forward.advance()
        (None, tensor([[1., 1.]]))
    """

    def __init__(self, backbone: nn.Module, taps: Sequence[str], x: Any) -> None:
        self.backbone, self.x = backbone, x
        self.taps = {backbone.get_submodule(name): name for name in taps}
        self.passed: list[str] = []
        self._stop: nn.Module | None = None
        self._answers: list[_Answer] = []
        self._place = 0
        self._learns = False
        self._modules = list(backbone.modules())

    def advance(self) -> tuple[str | None, Any]:
        """The next tap and what it returned; None and the backbone's output at the end.

        Raises:
            UserError: If a tap was never called, or the backbone cannot be stopped.
        """
        self._place = 0
        self._learns = torch.is_grad_enabled()
        try:
            with _untraced_calls(), _every_call(), self._watched():
                output = self.backbone(self.x)
        except _Pause as pause:
            self._stop = pause.module
            self.passed.append(self.taps[pause.module])
            return self.passed[-1], pause.value
        for name in self.taps.values():
            if name not in self.passed:
                raise UserError(f"tap '{name}'", "has to be called in the backbone's forward", "no call")
        return None, output

    def resume(self, value: Any) -> None:
        """Hand on a value in place of what the tap returned.

        Args:
            value: What the backbone goes on with.
        """
        assert self._stop is not None
        self._answers.append(_Answer(self._stop, value))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        # Calls and not forwards, so that hooks are called once as well. Made anew each time, since a walk
        # that held on to its own methods would keep its tensors until garbage is collected.
        for module in self._modules:
            module.__dict__["_call_impl"] = partial(self._call, module, module._call_impl)
        try:
            yield
        finally:
            for module in self._modules:
                del module.__dict__["_call_impl"]

    def _call(self, module: nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = self._place
        if start < len(self._answers) and self._answers[start].module is module:
            self._place += 1
            return self._remembered(self._answers[start])
        # What a module does in place is done once, unlike what is done between modules.
        settled = [answer for answer in self._answers[:start] if answer.is_settled()]
        output = call(*args, **kwargs)
        if self._place < len(self._answers):
            rule = "has to call the same modules in the same order each time"
            raise UserError(type(self.backbone).__name__, rule, "another way when it went on from a tap")
        del self._answers[start:]
        for answer in settled:
            answer.settle()
        if module in self.taps:
            if self._learns:
                check_not_run_again(f"tap '{self.taps[module]}'")
            raise _Pause(module, output)
        self._answers.append(_Answer(module, output))
        self._place = len(self._answers)
        return output

    def _remembered(self, answer: _Answer) -> Any:
        if not answer.is_settled():
            rule = "must not change features in place between two taps outside of a module"
            found = f"a changed output of a {type(answer.module).__name__}"
            raise UserError(type(self.backbone).__name__, rule, found, "Write x = x + y for x += y")
        return answer.output


@contextmanager
def _untraced_calls() -> Iterator[None]:
    """Keep a tracer from following calls of modules: its stack of them outlives a forward that is left."""
    call, own = nn.Module.__call__, nn.Module._wrapped_call_impl
    if call is own:
        yield
        return
    nn.Module.__call__ = own  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = call  # type: ignore[method-assign]


@contextmanager
def _every_call() -> Iterator[None]:
    """Have transformer layers call their modules in evaluation too, where they may use the weights alone."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def features_at(backbone: nn.Module, taps: Sequence[str], x: Any) -> list[Any]:
    """What the backbone's modules return, in the order of the taps; what comes after the last does not run.

    Args:
        backbone: The backbone.
        taps: Names of its modules, in the order in which it calls them.
        x: Its input.

    Raises:
        UserError: If a tap was not called, or not in this order.

    Example:
        >>> import torch
        >>> features_at(nn.Sequential(nn.ReLU(), nn.Linear(9, 9)), ["0"], -torch.ones(1, 1))
        [tensor([[0.]])]
    """
    forward = StagedForward(backbone, taps, x)
    values = []
    for tap in taps:
        found, value = forward.advance()
        if found != tap:
            rule = "taps are listed in the order of their calls, each called once"
            raise UserError("taps", rule, f"'{found}' where '{tap}' is listed")
        values.append(value)
        forward.resume(value)
    return values
