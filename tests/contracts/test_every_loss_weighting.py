"""What every loss weighting must do."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polytask import UserError
from tests.cases import LOSS_WEIGHTINGS, TASKS, frozen, named
from tests.unit.test_no_host_read import HostReads

everything = pytest.mark.parametrize("case", LOSS_WEIGHTINGS, ids=str)
# Fixed is given its tasks by name.
any_names = pytest.mark.parametrize(
    "case", [case for case in LOSS_WEIGHTINGS if case.name != "Fixed"], ids=str
)
alike = pytest.mark.parametrize("case", [case for case in LOSS_WEIGHTINGS if case.task_order], ids=str)
summing = pytest.mark.parametrize("case", [case for case in LOSS_WEIGHTINGS if case.total], ids=str)
SUBSETS = [TASKS, ("a", "c"), ("b",), TASKS, ("b", "c"), TASKS, TASKS, ("a",), TASKS, ("a", "b")]


class Run:
    """A model of three numbers, trained by a weighting on batches of changing tasks."""

    def __init__(self, weighting):
        self.weighting = weighting
        self.theta = torch.nn.Parameter(torch.tensor([0.3, -0.4, 0.5], dtype=torch.float64))
        self.optimizer = torch.optim.Adam([self.theta, *weighting.parameters()], lr=0.05)

    def losses(self, names, step):
        targets = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) + 0.1 * (step % 3)
        losses = (self.theta.sum() - targets).square() + 0.2 * self.theta.square() + 0.01
        return losses[[TASKS.index(name) for name in names]]

    def step(self, number):
        names = SUBSETS[number % len(SUBSETS)]
        total = self.weighting(self.losses(names, number), names)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.weighting.after_step(self.losses(names, number), names)
            if number % 3 == 2:
                self.weighting.on_epoch_end(self.losses(TASKS, number).float())
        return total.item()

    def steps(self, first, last):
        return [self.step(number) for number in range(first, last)]

    def save(self):
        file = io.BytesIO()
        torch.save(
            {
                "weighting": self.weighting.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "theta": self.theta,
            },
            file,
        )
        file.seek(0)
        return file

    def load(self, file):
        saved = torch.load(file, weights_only=True)
        self.weighting.load_state_dict(saved["weighting"])
        self.optimizer.load_state_dict(saved["optimizer"])
        with torch.no_grad():
            self.theta.copy_(saved["theta"])


def trained(case, steps=4):
    run = Run(named(case))
    run.steps(0, steps)
    return run.weighting


@everything
@pytest.mark.parametrize("names", [("a", "b", "c"), ("c",)])
def test_any_number_of_tasks(case, names):
    weighting = named(case)
    losses = torch.tensor([0.5, 2.0, 7.0])[: len(names)].requires_grad_()
    total = weighting(losses, names)
    total.backward()
    assert total.shape == ()
    assert total.isfinite()
    assert losses.grad.isfinite().all()
    assert (losses.grad > 0).all()


@any_names
def test_a_single_task(case):
    weighting = case.build()
    weighting.setup(["a"])
    assert weighting(torch.tensor([2.0])).isfinite()
    weight = weighting.weights(torch.tensor([2.0]))
    assert weight.shape == (1,)
    assert weight > 0


@summing
def test_effective_weights_sum_to_what_the_docs_say(case):
    weighting = trained(case)
    for names in {TASKS, ("a", "c"), ("b",)}:
        total = weighting.weights(torch.tensor([0.5, 2.0, 7.0])[: len(names)], names).sum().item()
        assert total == pytest.approx({"tasks": len(names), "one": 1}[case.total], rel=1e-6)


@everything
def test_weights_are_the_derivative_of_the_scalar(case):
    weighting = trained(case).double().eval()
    losses = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64, requires_grad=True)
    weighting(losses).backward()
    torch.testing.assert_close(weighting.weights(losses), losses.grad)


@everything
@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
    ids=str,
)
def test_dtypes(case, dtype, result):
    weighting = trained(case)
    losses = torch.tensor([0.5, 2.0, 7.0], dtype=dtype, requires_grad=True)
    total = weighting(losses)
    total.backward()
    assert total.dtype is result
    assert weighting.weights(losses).dtype is result
    assert losses.grad.dtype is dtype
    assert losses.grad.isfinite().all()


@everything
def test_a_model_of_bfloat16_trains(case):
    weighting = named(case).bfloat16()
    for factor in (1.0, 0.8, 0.5):
        losses = factor * torch.tensor([0.5, 2.0, 7.0], dtype=torch.bfloat16)
        assert weighting(losses).isfinite()
        weighting.after_step(0.9 * losses)
        weighting.on_epoch_end(losses.float())
    assert weighting.weights(losses).isfinite().all()


@everything
def test_a_stopped_run_resumes_bit_for_bit(case):
    whole, first, second = (Run(named(case)) for _ in range(3))
    expected = whole.steps(0, 16)
    begun = first.steps(0, 8)
    second.steps(0, 2)
    second.load(first.save())
    assert begun + second.steps(8, 16) == expected
    assert frozen(second.weighting) == frozen(whole.weighting)


@everything
def test_absent_tasks_keep_their_state(case):
    run = Run(named(case))
    run.steps(0, 6)
    before = {name: value.clone() for name, value in run.weighting.state_dict().items()}
    losses = torch.tensor([0.5, 2.0], requires_grad=True)
    run.optimizer.zero_grad()
    run.weighting(losses, ("a", "c")).backward()
    run.optimizer.step()
    run.weighting.after_step(losses.detach() / 2, ("a", "c"))
    run.weighting.on_epoch_end(losses.detach(), ("a", "c"))
    for name, value in run.weighting.state_dict().items():
        if name.endswith("task_b"):
            assert torch.equal(value, before[name]), name
        elif value.ndim and len(value) == 3:
            assert torch.equal(value[1], before[name][1]), name


@any_names
def test_present_tasks_do_not_feel_the_absent(case):
    """Two tasks of three are weighted as if there had never been a third."""
    alone, among = case.build(), case.build()
    alone.setup(["a", "c"])
    among.setup(TASKS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        losses = torch.rand(2, generator=generator) + 0.1
        torch.testing.assert_close(alone(losses), among(losses, ["a", "c"]))
        for weighting, names in ((alone, None), (among, ["a", "c"])):
            weighting.after_step(0.9 * losses, names)
            weighting.on_epoch_end(losses, names)


@everything
def test_asking_for_weights_and_evaluating_change_nothing(case):
    weighting = trained(case)
    before, losses = frozen(weighting), torch.tensor([0.5, 2.0, 7.0])
    first = weighting.weights(losses)
    assert torch.equal(weighting.weights(losses), first)
    weighting.eval()
    with torch.no_grad():
        weighting(losses)
    assert frozen(weighting) == before
    assert torch.equal(weighting.weights(losses), first)


@everything
def test_nothing_is_kept_from_the_graph(case):
    weighting = named(case)
    weighting(torch.tensor([0.5, 2.0, 7.0], requires_grad=True) * 1)
    assert not any(buffer.requires_grad for buffer in weighting.buffers())


@everything
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_is_equal_and_goes_on_alike(case, clone):
    weighting, losses = trained(case), torch.tensor([0.5, 2.0, 7.0])
    other = clone(weighting)
    assert frozen(other) == frozen(weighting)
    assert torch.equal(other(losses), weighting(losses))
    assert torch.equal(other(losses), weighting(losses))


@everything
def test_a_deferred_step_reads_nothing_on_the_host(case):
    weighting = named(case)
    weighting.deferred = True
    losses = torch.tensor([0.5, 2.0, 7.0], requires_grad=True)
    with HostReads() as reads:
        for names, present in ((None, losses), (("a", "c"), losses[:2])):
            weighting(present, names).backward()
            weighting.after_step(present.detach(), names)
    assert reads.seen == []


@alike
def test_tasks_may_change_places(case):
    losses, later = torch.tensor([0.5, 2.0, 7.0]), torch.tensor([0.4, 1.9, 3.0])
    # Unlike each other: of a difference that is rounding alone an optimizer makes a whole step.
    fall = torch.tensor([0.7, 0.8, 0.5])
    expected = None
    for order in itertools.permutations(range(3)):
        weighting = named(case, tuple(TASKS[i] for i in order))
        for values in (losses, later):
            weighting(values[list(order)])
            weighting.after_step((fall * values)[list(order)])
            weighting.on_epoch_end(values[list(order)])
        weights = torch.empty(3)
        weights[list(order)] = weighting.weights(later[list(order)])
        expected = weights if expected is None else expected
        torch.testing.assert_close(weights, expected)


@everything
def test_wrong_numbers_of_losses_and_unknown_tasks_are_errors(case):
    weighting = named(case)
    with pytest.raises(UserError, match=f"{case.name}: one loss is required for each of the tasks a, b, c"):
        weighting(torch.ones(2))
    with pytest.raises(UserError, match="no task is called 'd'"):
        weighting(torch.ones(2), ["a", "d"])
    with pytest.raises(UserError, match="must be used by one criterion only"):
        weighting.setup(TASKS)


@everything
def test_repr_names_the_method_and_no_tensor(case):
    text = repr(named(case))
    assert text.startswith(case.name + "(")
    assert "tensor" not in text


@everything
@settings(max_examples=20)
@given(exponents=st.lists(st.floats(-6, 6), min_size=3, max_size=3))
def test_losses_of_any_size_give_finite_weights(case, exponents):
    weighting = named(case)
    losses = torch.tensor([10.0**exponent for exponent in exponents])
    weighting(losses)
    weighting.after_step(0.5 * losses)
    weighting.on_epoch_end(losses)
    weighting.on_epoch_end(losses.flip(0))
    weights = weighting.weights(losses)
    assert weights.isfinite().all()
    assert (weights >= 0).all()
