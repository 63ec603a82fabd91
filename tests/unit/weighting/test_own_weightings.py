"""Mistakes in a weighting of one's own are named where they are."""

from typing import Any

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask.weighting import GramianSolution, GramianWeighting, JacobianAggregator, LossWeighting, Weighting


def returns(base: type[Weighting], hook: str, value: Any) -> Weighting:
    """A weighting of which one method returns what a function makes of its first argument."""
    own: Any = type("Own", (base,), {hook: lambda self, *given: value(given[0])})
    weighting: Weighting = own()
    return weighting


BAD = {
    "two weights": (GramianWeighting, "solve", lambda step: GramianSolution(torch.ones(2))),
    "a matrix": (GramianWeighting, "solve", lambda step: GramianSolution(step.gramian)),
    "a list": (GramianWeighting, "solve", lambda step: GramianSolution([1.0, 1.0, 1.0])),
    "no solution": (GramianWeighting, "solve", lambda step: torch.ones(3)),
    "nothing": (GramianWeighting, "solve", lambda step: None),
    "a weight for each task": (JacobianAggregator, "aggregate", lambda jacobian: jacobian.mean(1)),
    "a row": (JacobianAggregator, "aggregate", lambda jacobian: jacobian.mean(0, keepdim=True)),
    "no update": (JacobianAggregator, "aggregate", lambda jacobian: None),
    "a vector": (LossWeighting, "scalar", lambda losses: losses * 2),
    "a number": (LossWeighting, "scalar", lambda losses: 1.0),
}


def losses(weighting: Weighting) -> None:
    torch.manual_seed(0)
    model = MultiHead(MLP(8, [16], 8), {task: nn.Linear(8, 1) for task in "abc"})
    engine = Engine(model, weighting)
    engine.backward({task: out.square().mean() for task, out in model(torch.randn(4, 8)).items()})


@pytest.mark.parametrize("case", BAD)
def test_what_a_method_returns_is_checked(case: str) -> None:
    base, hook, value = BAD[case]
    with pytest.raises(UserError, match=rf"Own\.{hook}: must return (a|an|one) "):
        losses(returns(base, hook, value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_weights_of_any_precision_do(dtype: torch.dtype) -> None:
    losses(returns(GramianWeighting, "solve", lambda step: GramianSolution(torch.ones(3, dtype=dtype))))
