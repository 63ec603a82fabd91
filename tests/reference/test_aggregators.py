"""Jacobian aggregators against TorchJD and against their formulas written anew in NumPy."""

import numpy as np
import pytest
import torch
from torchjd import aggregation

from polytask.weighting import DBMTL, ExcessMTL, GradDrop, MoCo
from tests.gramians import random_numbers

sizes = pytest.mark.parametrize("tasks", [1, 2, 3, 8, 40])
kinds = pytest.mark.parametrize(
    "kind", ["plain", "rank_one", "conflicting", "tiny", "huge", "ill_conditioned"]
)


def jacobians(tasks, kind="plain", steps=6, parameters=12):
    generator = torch.Generator().manual_seed(tasks)
    rows = torch.randn(steps, tasks, parameters, generator=generator, dtype=torch.float64)
    if kind == "rank_one":
        rows = rows[:, :, :1] * rows[:, :1]
    if kind == "conflicting":
        rows[:, tasks // 2 :] = -rows[:, : tasks - tasks // 2] + 0.1 * rows[:, tasks // 2 :]
    sizes = {"tiny": -8, "huge": 8}.get(kind, 0)
    scale = torch.full((tasks, 1), 10.0**sizes, dtype=torch.float64)
    if kind == "ill_conditioned":
        scale = 10 ** torch.linspace(-4, 4, tasks, dtype=torch.float64)[:, None]
    return rows * scale


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


@sizes
@kinds
def test_graddrop_is_torchjds_with_the_same_draws(tasks, kind):
    leaks = torch.linspace(0, 1, tasks).double()
    ours = GradDrop({f"task{i}": leak for i, leak in enumerate(leaks.tolist())}, seed=3)
    theirs = aggregation.GradDrop(leak=leaks)
    state = torch.get_rng_state()
    for step, jacobian in enumerate(jacobians(tasks, kind)):
        torch.set_rng_state(random_numbers(3, step).get_state())
        expected = theirs(jacobian)
        torch.testing.assert_close(ours(jacobian), expected, rtol=1e-6, atol=1e-9 * jacobian.abs().max())
    torch.set_rng_state(state)


@sizes
@pytest.mark.parametrize("kind", ["plain", "rank_one", "conflicting", "huge"])
def test_excess_mtl_is_torchjds_with_one_step_of_warm_up_times_the_tasks(tasks, kind):
    ours, theirs = ExcessMTL(0.3), aggregation.ExcessMTL(0.3, n_warmup_steps=1)
    for jacobian in jacobians(tasks, kind):
        expected, size = tasks * theirs(jacobian), jacobian.abs().max().item()
        torch.testing.assert_close(ours(jacobian), expected, rtol=1e-4, atol=1e-6 * size)


@sizes
@kinds
def test_excess_mtl_follows_equations_6_to_9_in_numpy(tasks, kind):
    """Also where TorchJD's 1e-7, added to the first value, is felt."""
    weighting = ExcessMTL(0.7)
    weighting.setup([f"task{i}" for i in range(tasks)])
    weighting.double()
    sums, weights, first = 0, np.ones(tasks), None
    for number, jacobian in enumerate(jacobians(tasks, kind).numpy()):
        sums = sums + jacobian**2
        excess = (jacobian**2 / np.sqrt(sums + 1e-7)).sum(1)
        first = np.maximum(excess, 1e-7) if first is None else first
        if number:
            weights = weights * np.exp(0.7 * excess / first)
            weights = tasks * weights / weights.sum()
        update, expected = weighting(torch.from_numpy(jacobian)).numpy(), weights @ jacobian
        np.testing.assert_allclose(update, expected, rtol=1e-9, atol=1e-12 * abs(expected).max())
        heads = weighting.head_weights(torch.ones(tasks).double()).numpy()
        np.testing.assert_allclose(heads, weights, rtol=1e-9, atol=1e-300)


@sizes
@kinds
def test_moco_follows_algorithm_1_in_numpy(tasks, kind):
    weighting = MoCo(beta=0.5, beta_decay=0.5, gamma=0.1, gamma_decay=0.25, rho=0.2)
    weighting.setup([f"task{i}" for i in range(tasks)])
    weighting.double()
    average, shares = 0, np.full(tasks, 1 / tasks)
    for k, jacobian in enumerate(jacobians(tasks, kind).numpy(), 1):
        average = average - 0.5 / k**0.5 * (average - jacobian)
        step = 0.1 / k**0.25 * (average @ average.T + 0.2 * np.eye(tasks)) @ shares
        shares = softmax(shares - step)
        update = weighting(torch.from_numpy(jacobian)).numpy()
        np.testing.assert_allclose(update, average.T @ shares, rtol=1e-6, atol=1e-8 * abs(average).max())


@sizes
@kinds
def test_db_mtl_follows_algorithm_1_in_numpy(tasks, kind):
    weighting, rng, average = DBMTL(beta=0.9, beta_decay=0.5), np.random.default_rng(0), 0
    for k, jacobian in enumerate(jacobians(tasks, kind).numpy(), 1):
        losses = rng.uniform(0.1, 5, tasks)
        beta = 0.9 / k**0.5
        average = beta * average + (1 - beta) * jacobian / (losses + 1e-8)[:, None]
        norms = np.linalg.norm(average, axis=1)
        expected = (norms.max() / (norms + 1e-8)) @ average
        update = weighting(torch.from_numpy(jacobian), losses=torch.from_numpy(losses))
        np.testing.assert_allclose(update.numpy(), expected, rtol=1e-9, atol=1e-12 * abs(expected).max())
