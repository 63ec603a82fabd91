"""A backbone's forward, changed behind some of its modules for each task."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from polytask._errors import UserError
from polytask.models._activation_checkpointing import check_not_run_again

Unit = nn.Module
"""Called with a module, its input and its output; returns the output that the backbone continues with."""


def named(names: Sequence[str], units: nn.Module) -> dict[str, Unit]:
    """The units in a module list, by the names of the modules that they follow."""
    return dict(zip(names, units.children(), strict=True))


def one_by_one(
    backbone: nn.Module, x: Any, units: Mapping[str, Mapping[str, Unit]], noun: str
) -> dict[str, Any]:
    """By task the output of the backbone with the task's units installed.

    Args:
        backbone: The backbone.
        x: Its input.
        units: By task, units by the name of a module of the backbone.
        noun: The term for such a name, for messages.

    Raises:
        UserError: If one of the modules is not called.
    """
    outputs = {}
    for task, mine in units.items():
        with _installed(backbone, mine, noun) as called:
            outputs[task] = backbone(x)
        for name in mine:
            if name not in called:
                rule = "must be called in the backbone's forward"
                fix = "Name one that is called; attention may use the weights of a module without calling it"
                raise UserError(f"{noun} '{name}'", rule, "no call", fix)
    return outputs


@contextmanager
def _installed(backbone: nn.Module, units: Mapping[str, Unit], noun: str) -> Iterator[set[str]]:
    """A context in which the units are installed; yields the names of the modules that are called in it."""
    called: set[str] = set()
    learns = torch.is_grad_enabled()

    def change(name: str, unit: Unit, module: nn.Module, args: Any, named: Any, output: Any) -> Any:
        called.add(name)
        if learns:
            check_not_run_again(f"{noun} '{name}'")
        return unit(module, next(iter((*args, *named.values())), None), output)

    handles = [
        backbone.get_submodule(name).register_forward_hook(partial(change, name, unit), with_kwargs=True)
        for name, unit in units.items()
    ]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()
