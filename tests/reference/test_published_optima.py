"""CAGrad and Nash-MTL against the optima of their published problems, found by SciPy from the gradients."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from polytask.weighting import CAGrad, FairGrad, NashMTL, SolverWarning
from tests.gramians import KINDS, jacobian

kinds = pytest.mark.parametrize("kind", KINDS)
sizes = pytest.mark.parametrize("tasks", [1, 2, 3, 8, 40])


def coordinates(rows):
    """The gradients in an orthonormal basis of what they span."""
    left, values, _ = np.linalg.svd(rows.numpy(), full_matrices=False)
    kept = values > 1e-12 * values[0]
    return left[:, kept] * values[kept]


def steepest(rows, c):
    """The d that maximises the least g_i'd with |d - g0| <= c |g0|, by sequential quadratic programs."""
    average = rows.mean(0)
    constraints = [
        {
            "type": "ineq",
            "fun": lambda x: rows @ x[:-1] - x[-1],
            "jac": lambda x: np.hstack([rows, -np.ones((len(rows), 1))]),
        },
        {
            "type": "ineq",
            "fun": lambda x: c**2 * average @ average - (x[:-1] - average) @ (x[:-1] - average),
            "jac": lambda x: np.append(-2 * (x[:-1] - average), 0.0),
        },
    ]
    found = minimize(
        lambda x: -x[-1],
        np.append(average, (rows @ average).min()),
        jac=lambda x: np.append(np.zeros_like(average), -1.0),
        constraints=constraints,
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-15},
    )
    return found.x[:-1]


@kinds
@sizes
@pytest.mark.parametrize("c", [0.4, 0.9])
def test_cagrad_is_the_steepest_in_the_ball(kind, tasks, c):
    rows = jacobian(kind, tasks)
    weights = CAGrad(c)(rows @ rows.mT).numpy()
    basis = coordinates(rows)
    # In units in which the numbers that the peer compares are near 1.
    scaled = basis / np.linalg.norm(basis.mean(0))
    shortest = np.linalg.norm(scaled, axis=1).min()
    ours, theirs = scaled.T @ weights, steepest(scaled / min(shortest, 1.0), c) * min(shortest, 1.0)
    assert np.linalg.norm(ours - theirs) <= 1e-4 * max(np.linalg.norm(ours), np.linalg.norm(theirs))
    assert (scaled @ ours).min() >= (scaled @ theirs).min() - 1e-7


def helping(units):
    """A direction that helps each task, as far as it can be had in a box; None where there is none."""
    tasks, size = units.shape
    found = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=np.hstack([-units, np.ones((tasks, 1))]),
        b_ub=np.zeros(tasks),
        bounds=[(-1, 1)] * size + [(None, None)],
    )
    return found.x[:-1] if found.x[-1] > 1e-9 else None


def bargain(units):
    """The unit vector that maximises the product of the gains, or None where no product is above 0."""
    start = helping(units)
    if start is None:
        return None

    # The logarithms grow by a constant with the length: half its square may stand for the ball.
    def loss(x):
        gains = units @ x
        return 0.5 * x @ x - np.log(gains).sum() if (gains > 0).all() else np.inf

    found = minimize(
        loss,
        start / np.linalg.norm(start),
        jac=lambda x: x - units.T @ (1 / (units @ x)),
        hess=lambda x: np.eye(len(x)) + (units.T / (units @ x) ** 2) @ units,
        method="trust-exact",
        options={"gtol": 1e-9, "maxiter": 5000},
    )
    return found.x / np.linalg.norm(found.x)


@kinds
@sizes
def test_nash_maximises_the_product_of_the_gains(kind, tasks):
    rows = jacobian(kind, tasks)
    norms = rows.norm(dim=1, keepdim=True)
    units = coordinates(rows / norms)
    theirs = bargain(units)
    if theirs is None:
        with pytest.warns(SolverWarning, match="no update helps every task"):
            assert not NashMTL()(rows @ rows.mT).any()
        return
    ours = units.T @ (NashMTL(max_norm=None)(rows @ rows.mT) * norms[:, 0]).numpy()
    assert np.linalg.norm(ours) == pytest.approx(tasks**0.5, rel=1e-6)
    ours = ours / np.linalg.norm(ours)
    assert np.log(units @ ours).sum() >= np.log(units @ theirs).sum() - 1e-8
    assert np.linalg.norm(ours - theirs) <= 1e-4


@sizes
@pytest.mark.parametrize("method", [NashMTL, FairGrad])
def test_dependent_gradients_have_a_bargain_where_a_direction_helps_each(method, tasks):
    rows = jacobian("dependent", tasks)
    given = rows @ rows.mT
    units = coordinates(rows / rows.norm(dim=1, keepdim=True))
    if helping(units) is None:
        with pytest.warns(SolverWarning, match=f"condition .* for tasks .*task{tasks - 1} in step 1"):
            assert torch.equal(method()(given), torch.zeros(tasks).double())
    else:
        weights = NashMTL(max_norm=None)(given) if method is NashMTL else method()(given)
        torch.testing.assert_close(given @ weights, 1 / weights, rtol=1e-4, atol=0)


def test_both_answers_are_sampled():
    found = [helping(coordinates(jacobian("dependent", tasks))) is None for tasks in (1, 2, 3, 8, 40)]
    assert len(set(found)) == 2
