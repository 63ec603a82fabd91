"""Long rows in float32 have the Gramian that float64 gives, up to the rounding of one number."""

import pytest
import torch
from torch import nn

from polytask.gradients import Engine
from polytask.gradients._inner_products import product
from polytask.weighting import GramianSolution, GramianStep, GramianWeighting


@pytest.mark.parametrize("values", [1, 2**15, 2**15 + 1, 3_000_000])
def test_long_rows_are_added_up_exactly_enough(values: int) -> None:
    rows = torch.randn(3, values, generator=torch.Generator().manual_seed(0))
    exact = rows.double() @ rows.double().mT
    norms = exact.diagonal().sqrt()
    assert product(rows).dtype is torch.float32
    assert ((product(rows).double() - exact).abs() / torch.outer(norms, norms)).max() < 3e-7


class Kept(GramianWeighting):
    def solve(self, step: GramianStep) -> GramianSolution:
        self.seen = step.gramian
        return GramianSolution(torch.ones(len(step.gramian), dtype=step.gramian.dtype))


@pytest.mark.parametrize("kind", ["explicit", "layers"])
def test_a_large_net_has_the_gramian_of_float64(kind: str) -> None:
    torch.manual_seed(0)
    # With fewer rows than inputs, a linear layer needs no explicit rows; a convolution does.
    body: nn.Module = nn.Linear(1500, 1000)
    x = torch.randn(4 if kind == "layers" else 1600, 1500)
    weighting = Kept()
    engine = Engine(body, weighting)
    heads = torch.randn(2, 1000) / 30

    def losses(inputs: torch.Tensor, to: torch.dtype) -> dict[str, torch.Tensor]:
        outputs = body(inputs)
        return {name: (outputs @ head.to(to)).square().mean() for name, head in zip("ab", heads, strict=True)}

    values = losses(x, torch.float32)
    engine.backward(values)
    body.double()
    exact = losses(x.double(), torch.float64)
    rows = [
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss, list(body.parameters()), retain_graph=True)]
        )
        for loss in exact.values()
    ]
    expected = torch.stack(rows) @ torch.stack(rows).mT
    norms = expected.diagonal().sqrt()
    assert ((weighting.seen - expected).abs() / torch.outer(norms, norms)).max() < 2e-6
