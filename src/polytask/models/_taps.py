"""A backbone's forward that stops behind named modules and continues with other values."""

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
    """The names as a tuple, after each was checked to be a module of the backbone.

    Args:
        backbone: The module that is tapped.
        taps: Names as `torch.nn.Module.named_modules` gives them, or such names with numbers of channels.
        where: The argument's name, for messages.

    Raises:
        UserError: If there is none, one is given twice, or there is no such module, with the nearest name.

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
            where, "at least one module of the backbone is required", "none", hint("", known, "Modules")
        )
    tapped: dict[nn.Module, str] = {}
    for name in names:
        if name not in known:
            fix = hint(str(name), known, "Modules")
            rule = f"must be a module of {type(backbone).__name__}"
            raise UserError(where, rule, repr(name), fix)
        first = tapped.setdefault(known[name], name)
        if first != name or names.count(name) > 1:
            found = f"'{name}' twice" if first == name else f"'{first}' and '{name}', which are one"
            raise UserError(where, "a module must be tapped once only", found)
    return names


def modules_by_name(backbone: nn.Module) -> dict[str, nn.Module]:
    """All modules inside the backbone; one that has two names under both.

    Example:
        >>> layer = nn.ReLU()
        >>> list(modules_by_name(nn.Sequential(layer, layer)))
        ['0', '1']
    """
    return {name: module for name, module in backbone.named_modules(remove_duplicate=False) if name}


def check_channels(taps: Taps, where: str = "taps") -> dict[str, int]:
    """Channels by tap, after the number of channels of each was checked.

    Raises:
        UserError: If they are missing, or one is not an integer above 0.

    Example:
        >>> check_channels({"layer1": 64})
        {'layer1': 64}
    """
    if not isinstance(taps, Mapping):
        fix = "Write {layer1: 64, layer2: 128}"
        rule = "must be a mapping from modules to the channels of their outputs"
        raise UserError(where, rule, repr(taps), fix)
    return {name: check_size(channels, f"{where}.{name}") for name, channels in taps.items()}


def channels_of(values: Tensor, channel_dim: int, tap: str) -> int:
    """The number of channels of the features at a tap.

    Raises:
        UserError: If they have no such dimension.
    """
    if not -values.dim() <= channel_dim < values.dim():
        rule = f"features must have a dimension {channel_dim} for their channels"
        raise UserError(f"tap '{tap}'", rule, f"shape {tuple(values.shape)}", "Set channel_dim")
    return values.shape[channel_dim]


def check_width(values: Tensor, channel_dim: int, tap: str, channels: int) -> None:
    """Raise if the features at a tap have another number of channels.

    Raises:
        UserError: If they have, with both numbers and the shape.
    """
    found = channels_of(values, channel_dim, tap)
    if found != channels:
        rule = f"features must have {channels} channels"
        raise UserError(
            f"tap '{tap}'", rule, f"{found} in shape {tuple(values.shape)}", f"Write {tap}: {found}"
        )


class _Pause(BaseException):
    """Leaves a forward at a tap; not an `Exception`, which a backbone may catch."""

    def __init__(self, module: nn.Module, value: Any) -> None:
        self.module, self.value = module, value


@dataclass
class _CallResult:
    """The output of a module's call, and the versions of its tensors at that time."""

    module: nn.Module
    output: Any

    def __post_init__(self) -> None:
        leaves = [self.output] if isinstance(self.output, Tensor) else tree_leaves(self.output)
        # Tensors of inference mode have no version.
        self.tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not leaf.is_inference()]
        self.settle()

    def settle(self) -> None:
        """Record the current versions of the tensors."""
        self.versions = [tensor._version for tensor in self.tensors]

    def is_settled(self) -> bool:
        """Whether the tensors were not changed in place."""
        return self.versions == [tensor._version for tensor in self.tensors]


class StagedForward:
    """One forward of a backbone that stops behind each tap.

    To continue, the backbone's code runs again from its start, and every module that has already returned
    returns the same output from memory: no module runs twice. Code between modules is repeated, so that it
    must call the same modules again, and must not change a module's output in place.

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
        self._results: list[_CallResult] = []
        self._position = 0
        self._learns = False
        self._modules = list(backbone.modules())

    def advance(self) -> tuple[str | None, Any]:
        """The next tap and its output; None and the backbone's output at the end.

        Raises:
            UserError: If a tap was never called, or the backbone cannot be stopped.
        """
        self._position = 0
        self._learns = torch.is_grad_enabled()
        try:
            with _untraced_calls(), _every_call(), self._intercepted():
                output = self.backbone(self.x)
        except _Pause as pause:
            self._stop = pause.module
            self.passed.append(self.taps[pause.module])
            return self.passed[-1], pause.value
        for name in self.taps.values():
            if name not in self.passed:
                raise UserError(f"tap '{name}'", "must be called in the backbone's forward", "no call")
        return None, output

    def resume(self, value: Any) -> None:
        """Continue with a value instead of the tap's output.

        Args:
            value: The value.
        """
        assert self._stop is not None
        self._results.append(_CallResult(self._stop, value))

    @contextmanager
    def _intercepted(self) -> Iterator[None]:
        # Calls and not forwards, so that hooks are called once as well. Created each time, since an object
        # that references its own methods would keep its tensors until garbage is collected.
        for module in self._modules:
            module.__dict__["_call_impl"] = partial(self._call, module, module._call_impl)
        try:
            yield
        finally:
            for module in self._modules:
                del module.__dict__["_call_impl"]

    def _call(self, module: nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = self._position
        if start < len(self._results) and self._results[start].module is module:
            self._position += 1
            return self._remembered(self._results[start])
        # In-place operations of a module run once, unlike those between modules.
        settled = [result for result in self._results[:start] if result.is_settled()]
        output = call(*args, **kwargs)
        if self._position < len(self._results):
            rule = "must call the same modules in the same order each time"
            found = "another order when it continued from a tap"
            raise UserError(type(self.backbone).__name__, rule, found)
        del self._results[start:]
        for result in settled:
            result.settle()
        if module in self.taps:
            if self._learns:
                check_not_run_again(f"tap '{self.taps[module]}'")
            raise _Pause(module, output)
        self._results.append(_CallResult(module, output))
        self._position = len(self._results)
        return output

    def _remembered(self, result: _CallResult) -> Any:
        if not result.is_settled():
            rule = "must not change features in place between two taps outside of a module"
            found = f"a changed output of a {type(result.module).__name__}"
            raise UserError(type(self.backbone).__name__, rule, found, "Write x = x + y for x += y")
        return result.output


@contextmanager
def _untraced_calls() -> Iterator[None]:
    """A context in which tracers do not follow calls of modules, since they do not notice a pause."""
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
    """A context in which transformer layers call their modules in evaluation too, without the fast path."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def features_at(backbone: nn.Module, taps: Sequence[str], x: Any) -> list[Any]:
    """The outputs of the backbone's modules at the taps, in their order; what follows the last does not run.

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
            rule = "taps must be listed in the order of their calls, each called once"
            raise UserError("taps", rule, f"a call of '{found}' before '{tap}'")
        values.append(value)
        forward.resume(value)
    return values
