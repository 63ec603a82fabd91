"""What every Gramian weighting must do."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polytask import RunError, UserError
from polytask.weighting import SolverWarning
from tests.cases import GRAMIAN_WEIGHTINGS, TASKS
from tests.gramians import gramian, jacobian

everything = pytest.mark.parametrize("case", GRAMIAN_WEIGHTINGS, ids=str)
symmetric = pytest.mark.parametrize(
    "case", [case for case in GRAMIAN_WEIGHTINGS if case.name not in ("MoDo", "SDMGrad")], ids=str
)
harmless = pytest.mark.parametrize("case", [case for case in GRAMIAN_WEIGHTINGS if case.harmless], ids=str)
homogeneous = pytest.mark.parametrize(
    "case", [case for case in GRAMIAN_WEIGHTINGS if case.homogeneous], ids=str
)
unwaiting = pytest.mark.parametrize("case", [case for case in GRAMIAN_WEIGHTINGS if not case.waits], ids=str)
alike = pytest.mark.parametrize("case", [case for case in GRAMIAN_WEIGHTINGS if not case.ordered], ids=str)
SUBSETS = [TASKS, ("a", "c"), ("b",), TASKS, ("c", "b"), TASKS]


def named(case):
    weighting = case.build()
    weighting.setup(TASKS)
    return weighting


def step(weighting, number, dtype=torch.float64):
    names = SUBSETS[number % len(SUBSETS)]
    losses = torch.linspace(1, 2, len(names), dtype=dtype) / (1 + number)
    return weighting(gramian("conflicting", len(names), seed=number).to(dtype), names, losses=losses)


def losses_of(tasks, dtype=torch.float64):
    return torch.linspace(0.5, 2, tasks, dtype=dtype)


@everything
@pytest.mark.parametrize("tasks", [1, 2, 9])
def test_weights_have_the_shape_of_the_tasks_and_are_finite(case, tasks):
    weights = case.build()(gramian("independent", tasks), losses=losses_of(tasks))
    assert weights.shape == (tasks,)
    assert weights.isfinite().all()
    assert weights.sum() > 0


@everything
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_gives_nearly_the_same_weights(case, dtype):
    rough = gramian("independent", 3).to(dtype)
    weights = case.build()(rough, losses=losses_of(3, dtype))
    expected = case.build()(rough.double(), losses=losses_of(3, dtype).double())
    assert weights.dtype == dtype
    torch.testing.assert_close(weights.double(), expected, rtol=1e-2, atol=1e-2)


@everything
def test_one_task_is_followed(case):
    weight = case.build()(torch.tensor([[4.0]]), losses=torch.tensor([2.0]))
    assert weight > 0


@everything
def test_gradients_of_zero_give_finite_weights(case):
    weights = case.build()(torch.zeros(3, 3), losses=losses_of(3, torch.float32))
    assert weights.isfinite().all()


@everything
@pytest.mark.parametrize("tasks", [3, 10])
def test_a_task_without_gradient_costs_the_others_nothing(case, tasks):
    rows = jacobian("independent", tasks)
    rows[1] = 0
    weights = case.build()(rows @ rows.mT, losses=losses_of(tasks))
    assert weights.isfinite().all()
    assert weights.abs().sum() > 0


@alike
def test_tasks_may_change_places(case):
    order = [2, 0, 1]
    given, losses = gramian("conflicting", 3), losses_of(3)
    weights = case.build()(given, losses=losses)
    moved = case.build()(given[order][:, order], losses=losses[order])
    torch.testing.assert_close(moved, weights[order], rtol=1e-6, atol=1e-9)


@homogeneous
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_longer_gradients_have_the_same_weights(case, scale):
    given = gramian("conflicting", 3)
    weights = case.build()(given, losses=losses_of(3))
    torch.testing.assert_close(
        case.build()(scale * given, losses=losses_of(3)), weights, rtol=1e-6, atol=1e-9
    )


@harmless
@settings(max_examples=20)
@given(tasks=st.integers(1, 6), seed=st.integers(0, 10_000), scale=st.floats(-4, 4))
def test_no_task_gets_worse(case, tasks, seed, scale):
    rows = jacobian("conflicting", tasks, seed) * 10**scale
    try:
        weights = case.build()(rows @ rows.mT, losses=losses_of(tasks))
    except SolverWarning:
        return
    update = rows.mT @ weights
    assert (rows @ update >= -1e-9 * rows.norm(dim=1).max() * update.norm()).all()


@everything
def test_absent_tasks_keep_their_state(case):
    weighting = named(case)
    step(weighting, 0)
    before = {
        name: value.clone() for name, value in weighting.named_buffers() if value.ndim and len(value) == 3
    }
    weighting(gramian("independent", 2), ("a", "c"), losses=losses_of(2))
    for name, value in weighting.named_buffers():
        if name in before:
            torch.testing.assert_close(value[1], before[name][1], rtol=0, atol=0, equal_nan=True, msg=name)


@everything
def test_a_state_dict_goes_on_exactly(case):
    first = named(case)
    for number in range(3):
        step(first, number)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = named(case)
    second.load_state_dict(torch.load(file, weights_only=True))
    for number in range(3, 9):
        assert torch.equal(step(first, number), step(second, number))


@everything
def test_nothing_is_a_parameter(case):
    assert list(named(case).parameters()) == []


@everything
def test_copies_and_pickles_go_on_alike(case):
    weighting = named(case)
    step(weighting, 0)
    others = [copy.deepcopy(weighting), pickle.loads(pickle.dumps(weighting))]
    expected = step(weighting, 1)
    assert all(torch.equal(step(other, 1), expected) for other in others)


@everything
def test_two_of_one_seed_agree(case):
    one, other = named(case), named(case)
    for number in range(4):
        assert torch.equal(step(one, number), step(other, number))


@everything
def test_its_repr_names_it(case):
    assert case.method in repr(named(case))


@everything
def test_the_graph_is_left_alone(case):
    rows = jacobian("independent", 3).requires_grad_()
    weights = case.build()(rows @ rows.mT, losses=losses_of(3))
    assert not weights.requires_grad


@everything
@pytest.mark.parametrize("shape", [(2, 2), (3,), (3, 4), (1, 3, 3)])
def test_a_gramian_of_another_shape_is_refused(case, shape):
    with pytest.raises(UserError, match=r"tasks a, b, c.*shape"):
        named(case)(torch.ones(shape), losses=torch.ones(3))


@everything
def test_other_losses_are_refused(case):
    with pytest.raises(UserError, match=r"one loss is required for each of the tasks a, b, c"):
        named(case)(torch.eye(3), losses=torch.ones(2))


@everything
def test_an_unknown_task_is_refused(case):
    with pytest.raises(UserError, match="'aa'"):
        named(case)(torch.eye(1), ["aa"], losses=torch.ones(1))


@everything
def test_losses_are_asked_for_where_needed(case):
    weighting = named(case)
    if weighting.needs_losses:
        with pytest.raises(UserError, match="the losses are required"):
            weighting(torch.eye(3))
    else:
        assert weighting(torch.eye(3)).isfinite().all()


@everything
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gramian_that_is_not_finite_is_an_error_and_teaches_nothing(case, value):
    weighting = named(case)
    step(weighting, 0)
    before = [buffer.clone() for buffer in weighting.buffers()]
    bad = torch.eye(2, dtype=torch.float64)
    bad[0, 1] = bad[1, 0] = value
    with pytest.raises(RunError, match=r"must be finite.*tasks a, c in step 2; 1 such step\."):
        weighting(bad, ("a", "c"), losses=losses_of(2))
    for buffer, old in zip(weighting.buffers(), before, strict=True):
        torch.testing.assert_close(buffer, old, rtol=0, atol=0, equal_nan=True)


@everything
def test_later_checks_name_the_first_bad_step_and_change_nothing_meanwhile(case):
    weighting = named(case)
    weighting.deferred = True
    step(weighting, 0)
    for bad in (1.0, torch.nan, torch.nan):
        weights = weighting(torch.eye(3) * bad, losses=losses_of(3))
    assert torch.equal(weights, torch.zeros(3))
    with pytest.raises(RunError, match=r"tasks a, b, c in step 3; 2 such steps"):
        weighting.check()
    weighting.check()


@symmetric
def test_a_matrix_that_is_not_symmetric_is_refused(case):
    with pytest.raises(UserError, match=r"symmetric.*tasks a, b, c"):
        named(case)(torch.tensor([[1.0, 0.5, 0], [-0.5, 1, 0], [0, 0, 1]]), losses=losses_of(3))


@symmetric
def test_a_negative_diagonal_is_refused(case):
    with pytest.raises(UserError, match="diagonal"):
        named(case)(torch.diag(torch.tensor([1.0, -1.0, 1.0])), losses=losses_of(3))


@unwaiting
@pytest.mark.parametrize("present", [8, 2])
def test_nothing_is_read_on_the_host_up_to_eight_tasks(case, present):
    names = [f"task{i}" for i in range(8)]
    weighting = case.build()
    weighting.setup(names)
    weighting.deferred = True
    # A meta tensor has no values: whatever reads one raises.
    weighting.to("meta")
    here = names[:present]
    given, losses = torch.eye(len(here), device="meta"), torch.ones(len(here), device="meta")
    for _ in range(2):
        weights = weighting(given, here, losses=losses)
    assert weights.device.type == "meta"
    assert weights.shape == (len(here),)


@unwaiting
def test_above_eight_tasks_the_gramian_is_copied_once_at_most(case, monkeypatch):
    copies = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copies.append(tensor.numel()) or tensor)
    weighting = case.build()
    weighting.deferred = True
    weighting(gramian("independent", 9), losses=losses_of(9))
    assert sum(size == 9 * 9 for size in copies) <= 1
