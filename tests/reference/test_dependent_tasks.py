"""Tasks whose gradients depend on each other exactly, in rows as long as a network's.

The rows are A Q with a small matrix A of integers and orthonormal Q, so that their Gramian is A Aᵀ, which has
no rounding; that of the rows themselves has the rounding of a million products.
"""

from functools import cache

import pytest
import torch

from tests.cases import GRAMIAN_WEIGHTINGS, GramianCase, named

WIDTH = 1024
SEEDS = range(20)
COEFFICIENTS = {
    "sum": [[1, 0], [0, 1], [1, 1]],
    "mixed": [[2, 1], [1, 3], [3, 4]],
    "twice the same": [[1, 2], [1, 2], [0, 1]],
    "all parallel": [[1, 0], [2, 0], [3, 0]],
    "in conflict": [[1, 0], [-1, 2], [0, 2]],
}


# Where a method has no single answer.
AMBIGUOUS = {
    ("MGDA-norm", "all parallel"): "all weights solve the normalised problem",
    ("SDMGrad", "sum"): "with its own step size, 20 steps jump between two corners of the simplex",
}


@cache
def directions(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(WIDTH * WIDTH, 2, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(columns).Q.T


@cache
def rounded(kind: str, seed: int) -> torch.Tensor:
    rows = torch.tensor(COEFFICIENTS[kind], dtype=torch.float64) @ directions(seed)
    return rows @ rows.T


@pytest.mark.slow
@pytest.mark.parametrize("kind", COEFFICIENTS)
@pytest.mark.parametrize("case", GRAMIAN_WEIGHTINGS, ids=lambda case: case.name)
def test_an_update_does_not_depend_on_the_rounding_of_the_gramian(case: GramianCase, kind: str) -> None:
    if reason := AMBIGUOUS.get((case.name, kind)):
        pytest.skip(reason)
    rows = torch.tensor(COEFFICIENTS[kind], dtype=torch.float64)
    losses = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    exact = rows.T @ named(case)(rows @ rows.T, losses=losses)
    for seed in SEEDS:
        update = rows.T @ named(case)(rounded(kind, seed), losses=losses)
        torch.testing.assert_close(update, exact, rtol=0, atol=1e-6 * exact.norm().item())
