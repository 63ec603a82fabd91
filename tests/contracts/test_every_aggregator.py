"""What every Jacobian aggregator must do."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polytask import UserError
from tests.cases import AGGREGATORS, TASKS, frozen, named
from tests.unit.test_no_host_read import HostReads

everything = pytest.mark.parametrize("case", AGGREGATORS, ids=str)
# A method that drops signs keeps nothing by task, ours or another's.
keeping = pytest.mark.parametrize(
    "case", [case for case in AGGREGATORS if case.name not in ("GradDrop", "TorchJDAggregator")], ids=str
)
SUBSETS = [TASKS, ("a", "c"), ("b",), TASKS, ("b", "c"), TASKS]


def batch(number, tasks=3, parameters=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(number)
    jacobian = torch.randn(tasks, parameters, generator=generator, dtype=torch.float64)
    losses = torch.rand(tasks, generator=generator, dtype=torch.float64) + 0.1
    return jacobian.to(dtype), losses.to(dtype)


def steps(weighting, first, last):
    updates = []
    for number in range(first, last):
        names = SUBSETS[number % len(SUBSETS)]
        jacobian, losses = batch(number)
        columns = [TASKS.index(name) for name in names]
        updates.append(weighting(jacobian[columns], names, losses=losses[columns]).tolist())
    return updates


@everything
@pytest.mark.parametrize("tasks", [1, 2, 3, 8, 40])
def test_a_bare_jacobian_is_enough(case, tasks):
    weighting = case.build()
    jacobian, losses = batch(0, tasks)
    update = weighting(jacobian, losses=losses)
    assert update.shape == (6,)
    assert update.isfinite().all()
    assert update.any()
    assert weighting.names == tuple(f"task{i}" for i in range(tasks))


@everything
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtype_is_kept(case, dtype):
    weighting = case.build()
    for number in range(3):
        jacobian, losses = batch(number, dtype=dtype)
        update = weighting(jacobian, losses=losses)
        assert update.dtype is dtype
        assert update.isfinite().all()


@everything
def test_a_stopped_run_resumes_bit_for_bit(case):
    whole, first, second = (named(case) for _ in range(3))
    expected = steps(whole, 0, 12)
    begun = steps(first, 0, 7)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert begun + steps(second, 7, 12) == expected
    assert frozen(second) == frozen(whole)


@everything
def test_a_state_may_be_loaded_over_another(case):
    source, target = named(case), named(case)
    steps(source, 0, 4)
    steps(target, 0, 1)
    target.load_state_dict(source.state_dict())
    assert steps(target, 4, 6) == steps(source, 4, 6)


@keeping
def test_a_state_of_other_tasks_is_refused(case):
    source, target = named(case, ("a", "b")), named(case)
    source(*batch(0, 2)[:1], losses=batch(0, 2)[1])
    with pytest.raises(RuntimeError, match="size mismatch"):
        target.load_state_dict(source.state_dict())


@everything
def test_absent_tasks_keep_their_state(case):
    weighting = named(case)
    steps(weighting, 0, 3)
    before = {name: value.clone() for name, value in weighting.state_dict().items()}
    jacobian, losses = batch(9, 2)
    weighting(jacobian, ("a", "c"), losses=losses)
    for name, value in weighting.state_dict().items():
        if value.ndim and len(value) == 3:
            assert torch.equal(value[1], before[name][1]), name
            assert not torch.equal(value[0], before[name][0]) or name == "initial", name


@everything
def test_present_tasks_do_not_feel_the_absent(case):
    alone, among = named(case, ("a", "c")), named(case)
    for number in range(5):
        jacobian, losses = batch(number, 2)
        expected = alone(jacobian, losses=losses)
        torch.testing.assert_close(among(jacobian, ("a", "c"), losses=losses), expected)


@everything
def test_an_all_zero_jacobian_gives_zero(case):
    update = case.build()(torch.zeros(3, 4), losses=torch.ones(3))
    assert torch.equal(update, torch.zeros(4))


@everything
def test_parameters_that_no_task_reaches_stay(case):
    weighting = named(case)
    for number in range(3):
        jacobian, losses = batch(number)
        jacobian[:, 2] = 0
        update = weighting(jacobian, losses=losses)
        assert update[2] == 0
        assert update[[0, 1, 3, 4, 5]].isfinite().all()


@everything
def test_tasks_may_change_places(case):
    results = []
    for order in itertools.permutations(range(3)):
        weighting = named(case, tuple(TASKS[i] for i in order))
        for number in range(3):
            jacobian, losses = batch(number)
            update = weighting(jacobian[list(order)], losses=losses[list(order)])
        results.append(update)
    for update in results:
        torch.testing.assert_close(update, results[0])


@everything
def test_aligned_tasks_give_their_direction(case):
    jacobian = torch.tensor([[1.0, -2.0, 3.0]]) * torch.tensor([[1.0], [2.0], [0.5]])
    update = case.build()(jacobian, losses=torch.ones(3))
    assert torch.cosine_similarity(update, jacobian[0], dim=0).item() == pytest.approx(1)


@everything
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_goes_on_alike_and_apart(case, clone):
    weighting = named(case)
    steps(weighting, 0, 3)
    other = clone(weighting)
    updates = steps(weighting, 3, 5)
    assert frozen(other) != frozen(weighting)
    assert steps(other, 3, 5) == updates


@everything
def test_a_deferred_step_reads_nothing_on_the_host(case):
    weighting = named(case)
    weighting.deferred = True
    jacobian, losses = batch(0)
    with HostReads() as reads:
        weighting(jacobian, losses=losses)
        weighting(jacobian[:2], ("a", "c"), losses=losses[:2])
        weighting.head_weights(losses[:2], ("a", "c"))
    assert reads.seen == []


@everything
def test_no_parameters_and_nothing_from_the_graph(case):
    weighting = named(case)
    jacobian, losses = batch(0)
    update = weighting(jacobian.requires_grad_(), losses=losses.requires_grad_())
    assert not list(weighting.parameters())
    assert not update.requires_grad
    assert not any(buffer.requires_grad for buffer in weighting.buffers())


@everything
def test_head_weights_fit_the_tasks(case):
    weighting = named(case)
    jacobian, losses = batch(0)
    weighting(jacobian, losses=losses)
    weights = weighting.head_weights(losses[:2], ("a", "c"))
    assert weights.shape == (2,)
    assert (weights > 0).all()


@everything
def test_repr_names_the_method_and_no_tensor(case):
    text = repr(named(case))
    assert text.startswith(case.name + "(")
    assert "tensor" not in text


@everything
@pytest.mark.parametrize(
    ("jacobian", "losses", "words"),
    [
        (torch.ones(2, 4), torch.ones(3), "one row for each of the tasks a, b, c"),
        (torch.ones(3), torch.ones(3), r"shape \(3,\)"),
        (torch.ones(3, 4), torch.ones(2), "one loss is required for each of the tasks a, b, c"),
    ],
)
def test_wrong_shapes_are_errors(case, jacobian, losses, words):
    with pytest.raises(UserError, match=words):
        named(case)(jacobian, losses=losses)


@keeping
def test_a_changed_number_of_parameters_is_an_error(case):
    weighting = named(case)
    weighting(torch.ones(3, 4), losses=torch.ones(3))
    with pytest.raises(UserError, match="5 parameters after 4"):
        weighting(torch.ones(3, 5), losses=torch.ones(3))


@everything
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), exponents=st.lists(st.floats(-6, 6), min_size=3, max_size=3))
def test_rows_of_any_size_give_a_finite_update(case, seed, exponents):
    weighting = named(case)
    for number in range(3):
        jacobian, losses = batch(seed + number)
        scaled = jacobian * torch.tensor([[10.0**exponent] for exponent in exponents])
        assert weighting(scaled, losses=losses).isfinite().all()
