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
"""Is called with a module, what it took and what it returned; returns what the backbone goes on with."""


def named(names: Sequence[str], units: nn.Module) -> dict[str, Unit]:
    """The units in a module list by the names of the modules that they stand behind."""
    return dict(zip(names, units.children(), strict=True))


def one_by_one(
    backbone: nn.Module, x: Any, units: Mapping[str, Mapping[str, Unit]], noun: str
) -> dict[str, Any]:
    """By task what the backbone returns with the units of the task in place.

    Args:
        backbone: The backbone.
        x: Its input.
        units: By task, units by the name of a module of the backbone.
        noun: What such a name is called, for messages.

    Raises:
        UserError: If one of the modules is not called.
    """
    outputs = {}
    for task, mine in units.items():
        with _in_place(backbone, mine, noun) as called:
            outputs[task] = backbone(x)
        for name in mine:
            if name not in called:
                rule = "has to be called in the backbone's forward"
                fix = "Name one that is called; attention may use the weights of a module without calling it"
                raise UserError(f"{noun} '{name}'", rule, "no call", fix)
    return outputs


@contextmanager
def _in_place(backbone: nn.Module, units: Mapping[str, Unit], noun: str) -> Iterator[set[str]]:
    """The names of the modules that were called while the units were in place."""
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
