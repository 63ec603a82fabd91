"""The solvers on Gramians, against optimality conditions and brute force."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polytask import _linalg
from polytask._linalg._nnls import _interior, _pivot
from tests.gramians import KINDS, gramian, jacobian

kinds = pytest.mark.parametrize("kind", KINDS)
SIZES = (1, 2, 3, 8, 12, 40)


def parts(kind, tasks, seed=0):
    norms, cosine = _linalg.cosines(gramian(kind, tasks, seed))
    return norms, _linalg.shrink(cosine, torch.finfo(torch.float64).eps)


def worst(x, matrix, right):
    return torch.minimum(x, x @ matrix - right).abs().max().item()


def gap(weights, given):
    """By how much the squared length may be above its minimum, in units of the shortest gradient's."""
    slopes = given @ weights
    return ((weights @ slopes - slopes.min()) / given.diagonal().min()).item()


@kinds
@pytest.mark.parametrize("tasks", SIZES)
def test_the_quadratic_program_meets_its_optimality_conditions(kind, tasks):
    _, cosine = parts(kind, tasks)
    x, solved = _linalg.nonnegative(cosine, -cosine)
    assert solved.all()
    assert (x >= 0).all()
    assert worst(x, cosine, -cosine) <= 1e-8 * max(1.0, x.max().item())


@pytest.mark.parametrize("kind", ["dependent", "ill", "conflicting"])
def test_the_interior_point_and_the_supports_agree(kind):
    _, cosine = parts(kind, 8)
    x, _ = _linalg.nonnegative(cosine, -cosine)
    other, residual = _interior(cosine, -cosine)
    assert residual.max() < 1e-8
    values = [0.5 * (y @ cosine * y).sum(1) + (cosine * y).sum(1) for y in (x, other)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-7, atol=1e-8)


def test_pivoting_that_meets_a_singular_support_leaves_an_infinite_residual():
    matrix = torch.ones(3, 3, dtype=torch.float64)
    _, residual = _pivot(matrix, torch.ones(1, 3, dtype=torch.float64))
    assert not residual.isfinite().any()


def test_a_singular_problem_above_eight_unknowns_goes_to_the_interior_point():
    matrix = torch.ones(10, 10, dtype=torch.float64)
    x, solved = _linalg.nonnegative(matrix, torch.ones(1, 10, dtype=torch.float64))
    assert solved.all()
    assert x.sum().item() == pytest.approx(1, abs=1e-8)


def test_a_problem_without_solution_says_so():
    matrix = torch.zeros(2, 2, dtype=torch.float64)
    x, solved = _linalg.nonnegative(matrix, torch.ones(1, 2, dtype=torch.float64))
    assert not solved.any()
    assert x.isfinite().all()
    assert not _linalg.nonnegative(torch.zeros(9, 9).double(), torch.ones(1, 9).double())[1].any()


@kinds
@pytest.mark.parametrize("tasks", SIZES)
def test_the_point_of_least_norm_has_no_duality_gap(kind, tasks):
    given = gramian(kind, tasks)
    weights, solved = _linalg.min_norm(*parts(kind, tasks))
    assert solved
    assert weights.sum().item() == pytest.approx(1)
    assert (weights >= 0).all()
    assert gap(weights, given) <= 1e-8


@settings(max_examples=60)
@given(tasks=st.integers(1, 20), seed=st.integers(0, 10_000), rank=st.integers(1, 20), spread=st.floats(0, 5))
def test_the_point_of_least_norm_of_any_gradients(tasks, seed, rank, spread):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, rank, generator=generator, dtype=torch.float64)
    rows = rows * torch.logspace(0, -spread, tasks, dtype=torch.float64)[:, None]
    given = rows @ rows.mT
    norms, cosine = _linalg.cosines(given)
    weights, solved = _linalg.min_norm(norms, _linalg.shrink(cosine, 2.2e-16))
    assert solved
    assert gap(weights, given) <= 1e-8


def test_all_zero_gradients_share():
    weights, solved = _linalg.min_norm(torch.zeros(4).double(), torch.eye(4).double())
    assert solved
    torch.testing.assert_close(weights, torch.full((4,), 0.25).double())


def test_a_zero_gradient_is_the_point_of_least_norm():
    weights, _ = _linalg.min_norm(torch.tensor([1.0, 0.0, 2.0]).double(), torch.eye(3).double())
    torch.testing.assert_close(weights, torch.tensor([0.0, 1, 0]).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["independent", "ill", "conflicting", "scales", "tiny", "huge", "similar"])
@pytest.mark.parametrize("tasks", SIZES)
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_bargaining_equations_hold(kind, tasks, power):
    _, cosine = parts(kind, tasks)
    y, solved = _linalg.balance(cosine, torch.ones(tasks).double(), power)
    assert solved
    assert (y > 0).all()
    torch.testing.assert_close(cosine @ y, y**-power, rtol=1e-6, atol=0)


def test_bargaining_between_opposed_gradients_has_no_solution():
    cosine = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double()
    _, solved = _linalg.balance(cosine, torch.ones(2).double(), 1.0)
    assert not solved


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tasks", SIZES)
@pytest.mark.parametrize("radius", [0.4, 0.9, 1.5])
def test_the_direction_in_the_ball_has_no_duality_gap(kind, tasks, radius):
    rows = jacobian(kind, tasks)
    rows = rows / rows.norm(dim=1).max()
    z, solved = _linalg.steepest_in_ball(*parts(kind, tasks), radius)
    assert solved
    average = rows.mean(0)
    moved = rows.mT @ z
    limit = radius * average.norm()
    assert moved.norm() <= limit * (1 + 1e-6)
    share = z / z.sum()
    most = share @ rows @ average + limit * (rows.mT @ share).norm()
    reached = (rows @ (average + moved)).min()
    assert most - reached <= 1e-7 * average.norm()


@pytest.mark.parametrize("seed", range(6))
def test_a_support_that_is_hard_to_find_is_found(seed):
    z, solved = _linalg.steepest_in_ball(*parts("ill", 20, seed), 0.9)
    assert solved
    assert (z >= 0).all()


@pytest.mark.parametrize("copies", [1, 4])
def test_where_no_direction_helps_all_none_is_harmed(copies):
    angles = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3]).double()
    rows = torch.stack([angles.cos(), angles.sin(), torch.zeros(3).double()], 1)
    rows[0] *= 1.5
    rows = rows.repeat(copies, 1)
    norms, cosine = _linalg.cosines(rows @ rows.mT)
    z, solved = _linalg.steepest_in_ball(norms, cosine, 1.5)
    assert solved
    update = rows.mean(0) + rows.mT @ z
    assert (rows @ update).min() >= -1e-8


def test_opposed_gradients_with_an_average_of_zero_stay():
    z, solved = _linalg.steepest_in_ball(
        torch.ones(2).double(), torch.tensor([[1.0, -1], [-1, 1]]).double(), 0.5
    )
    assert solved
    assert z.abs().max() == 0


@settings(max_examples=50)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_the_projection_on_the_simplex_is_the_nearest_point(values):
    point = torch.tensor(values, dtype=torch.float64)
    nearest = _linalg.onto_simplex(point)
    assert nearest.sum().item() == pytest.approx(1)
    assert (nearest >= 0).all()
    # No vertex lies on the far side of the plane through the nearest point.
    assert ((point - nearest) @ (torch.eye(len(point)).double() - nearest).mT <= 1e-9).all()


def test_cosines_of_tiny_and_huge_gradients_do_not_under_or_overflow():
    for scale in (1e-300, 1e300):
        norms, cosine = _linalg.cosines(scale * torch.tensor([[4.0, 1.0], [1.0, 1.0]]).double())
        torch.testing.assert_close(cosine, torch.tensor([[1.0, 0.5], [0.5, 1]]).double())
        assert norms.isfinite().all()
        assert (norms > 0).all()


def test_a_zero_gradient_is_orthogonal_to_all():
    _, cosine = _linalg.cosines(torch.tensor([[0.0, 0.0], [0.0, 4.0]]).double())
    assert torch.equal(cosine, torch.eye(2).double())


def test_eigenvalues_below_the_rounding_do_not_count():
    matrix = torch.diag(torch.tensor([1.0, 1e-9, 0.0])).double()
    assert _linalg.spectrum(matrix, 1e-7).kept.tolist() == [False, False, True]
    assert _linalg.spectrum(matrix, 1e-12).kept.tolist() == [False, True, True]


def test_the_pseudo_inverse_is_torchs():
    given = gramian("dependent", 5)
    vector = torch.arange(5).double()
    expected = torch.linalg.pinv(given, hermitian=True, rtol=1e-12) @ vector
    torch.testing.assert_close(_linalg.spectrum(given, 1e-13).inverse_times(vector), expected)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (torch.diag(torch.tensor([4.0, 2.0])), 2.0),
        (torch.zeros(2, 2), math.inf),
        (torch.full((2, 2), math.nan), math.nan),
    ],
)
def test_condition(matrix, expected):
    assert _linalg.condition(matrix) == pytest.approx(expected, nan_ok=True)


def test_all_supports_are_there_once():
    from polytask._linalg._nnls import supports

    rows = {tuple(row) for row in supports(3, torch.device("cpu")).tolist()}
    assert rows == set(itertools.product([False, True], repeat=3))
