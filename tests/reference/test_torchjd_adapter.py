"""A method of TorchJD gives through the adapter what it gives alone."""

import pytest
import torch
from torchjd import aggregation

from polytask.weighting import TorchJDAggregator, TorchJDWeighting
from tests.gramians import KINDS, jacobian, random_numbers

STEPS = 4
kinds = pytest.mark.parametrize("kind", KINDS)
sizes = pytest.mark.parametrize("tasks", [1, 2, 3, 8])


def alone(method, matrices, seed):
    """TorchJD's results, with torch's own generator brought to where the adapter's draws begin."""
    results = []
    with torch.random.fork_rng([]):
        for step, matrix in enumerate(matrices):
            torch.set_rng_state(random_numbers(seed, step).get_state())
            results.append(method(matrix))
    return results


def compare(adapted, method, matrices, seed):
    for given, expected in zip(matrices, alone(method, matrices, seed), strict=True):
        assert torch.equal(adapted(given), expected)


@sizes
@kinds
@pytest.mark.parametrize(
    "build",
    [
        aggregation.AlignedMTL,
        aggregation.DualProj,
        aggregation.GradVac,
        aggregation.IMTLG,
        aggregation.PCD,
        aggregation.PCGrad,
        aggregation.UPGrad,
    ],
)
def test_weights_of_a_gramian(build, kind, tasks):
    rows = [jacobian(kind, tasks, seed) for seed in range(STEPS)]
    grams = [given @ given.mT for given in rows]
    # Rounding leaves a product less symmetric than the adapter, which uses the mean of both halves.
    grams = [(gram + gram.mT) / 2 for gram in grams]
    compare(TorchJDWeighting(build(), seed=3), build().gramian_weighting, grams, 3)


@sizes
@kinds
@pytest.mark.parametrize(
    "build",
    [
        aggregation.ConFIG,
        aggregation.ExcessMTL,
        aggregation.GradDrop,
        aggregation.Mean,
        aggregation.Random,
        aggregation.Sum,
    ],
)
def test_the_update_from_a_jacobian(build, kind, tasks):
    rows = [jacobian(kind, tasks, seed) for seed in range(STEPS)]
    compare(TorchJDAggregator(build(), seed=3), build(), rows, 3)


@kinds
@pytest.mark.parametrize("build", [aggregation.IMTLG, aggregation.UPGrad, aggregation.PCGrad])
def test_the_update_is_that_of_the_aggregator_on_the_whole_jacobian(build, kind):
    rows = jacobian(kind, 3)
    (expected,) = alone(build(), [rows], 3)
    update = rows.mT @ TorchJDWeighting(build(), seed=3)(rows @ rows.mT)
    torch.testing.assert_close(update, expected, rtol=1e-6, atol=1e-9 * rows.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_is_kept_in_double_precision_whatever_comes(dtype):
    weighting, method = TorchJDWeighting(aggregation.PCD()), aggregation.PCDWeighting()
    for seed in range(STEPS):
        rows = jacobian("conflicting", 3, seed)
        given = (rows @ rows.mT).to(dtype)
        assert torch.equal(weighting(given), method(given.double()).to(dtype))
