"""Stacks of linear layers, of which `MLP`, `TaskHead` and `HardParameterSharing` consist."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise

from torch import nn

from polytask._errors import UserError
from polytask.models._argument_checks import check_dropout, check_size, check_sizes

Activation = nn.Module | Callable[[], nn.Module] | None


def dense(
    input_dim: int,
    hidden_dims: Sequence[int] | None,
    output_dim: int,
    activation: Activation = None,
    dropout: float = 0.0,
    activate_output: bool = False,
) -> nn.Sequential:
    """Linear layers with an activation after each but the last.

    Dropout is applied to the input of each linear layer after the first, or of the only one.
    The layers are named, not numbered, so that a checkpoint does not depend on the dropout.

    Raises:
        UserError: If a size, the activation or the dropout cannot be used.
    """
    widths = (
        check_size(input_dim, "input_dim"),
        *check_sizes(hidden_dims, "hidden_dims"),
        check_size(output_dim, "output_dim"),
    )
    probability = check_dropout(dropout)
    depth = len(widths) - 1
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (width, next_width) in enumerate(pairwise(widths), start=1):
        if probability and (index > 1 or depth == 1):
            layers[f"dropout{index}"] = nn.Dropout(probability)
        layers[f"linear{index}"] = nn.Linear(width, next_width)
        made = _build(activation)
        if index < depth or activate_output:
            layers[f"activation{index}"] = made
    return nn.Sequential(layers)


def _build(activation: Activation) -> nn.Module:
    if activation is None:
        return nn.ReLU()
    if isinstance(activation, nn.Module):
        return deepcopy(activation)
    fix = "Pass a module such as torch.nn.GELU()"
    if not callable(activation):
        raise UserError("activation", "must be a module or return one", repr(activation), fix)
    try:
        made = activation()
    except TypeError as error:
        rule = "must return a module when called without arguments"
        raise UserError("activation", rule, repr(activation), fix) from error
    if not isinstance(made, nn.Module):
        raise UserError("activation", "must return a torch.nn.Module", f"a {type(made).__name__}", fix)
    return made
