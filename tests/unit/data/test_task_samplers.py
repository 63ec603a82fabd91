import numpy as np
import pytest
import torch

from polytask.data import Annealed, FixedProbabilities, Proportional, RoundRobin, Temperature, Uniform
from tests.errors import refusal

SIZES = {"a": 1, "b": 4, "c": 20}
ALL = [
    Uniform(),
    RoundRobin(),
    Proportional(),
    Temperature(2.0),
    Temperature(cap=5),
    Annealed(3),
    FixedProbabilities({"a": 2.0, "b": 1.0, "c": 1.0}),
]
every = pytest.mark.parametrize("sampler", ALL, ids=repr)


def own(seed=0):
    return torch.Generator().manual_seed(seed)


@every
@pytest.mark.parametrize("number", [0, 1, 7])
def test_probabilities_add_up_to_one(sampler, number):
    probabilities = sampler.probabilities(SIZES, number)
    assert probabilities.shape == (3,)
    assert float(probabilities.sum()) == pytest.approx(1.0)
    assert (probabilities > 0).all()


@every
@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_tasks_of_a_step_are_different(sampler, tasks):
    drawn = sampler.draw(SIZES, 0, 0, (50, tasks), own())
    assert drawn.shape == (50, tasks)
    assert all(len(set(step)) == tasks for step in drawn.tolist())
    assert {0, 1, 2} >= set(drawn.flatten().tolist())


@every
def test_draws_repeat_by_seed_and_leave_torchs_numbers_alone(sampler):
    before = torch.get_rng_state()
    one, other = (sampler.draw(SIZES, 0, 0, (40, 1), own()) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


@every
def test_draws_are_as_frequent_as_they_are_likely(sampler):
    drawn = sampler.draw(SIZES, 0, 0, (30_000, 1), own())
    frequencies = torch.bincount(drawn.flatten(), minlength=3) / len(drawn)
    torch.testing.assert_close(frequencies, sampler.probabilities(SIZES, 0), atol=0.015, rtol=0)


def test_round_robin_goes_on_from_step_to_step_and_begins_elsewhere_in_each_epoch():
    sampler, names = RoundRobin(), dict.fromkeys("abcde", 1)
    whole = sampler.draw(names, 0, 0, (10, 2), own())
    assert torch.equal(sampler.draw(names, 0, 4, (6, 2), own()), whole[4:])
    assert torch.bincount(whole.flatten()).tolist() == [4, 4, 4, 4, 4]
    assert int(sampler.draw(names, 3, 0, (1, 1), own())) == 3


def test_closed_forms():
    def shares(sampler, number=0):
        return sampler.probabilities(SIZES, number).tolist()

    assert shares(Proportional()) == pytest.approx([0.04, 0.16, 0.8])
    assert shares(Temperature(cap=4)) == pytest.approx([1 / 9, 4 / 9, 4 / 9])
    assert shares(Temperature(1e9)) == pytest.approx(shares(Uniform()))
    roots = [1, 2, 20**0.5]
    assert shares(Temperature(2.0)) == pytest.approx([root / sum(roots) for root in roots])
    annealed = Annealed(4, start=1.0, end=0.5)
    assert shares(annealed) == pytest.approx(shares(Proportional()))
    assert shares(annealed, 3) == shares(annealed, 99) == pytest.approx(shares(Temperature(2.0)))
    assert shares(annealed, 1) == pytest.approx(shares(Temperature(1 / (1 - 0.5 / 3))))
    assert shares(Annealed(1)) == pytest.approx(shares(Proportional()))
    assert shares(FixedProbabilities({"c": 3, "a": 0, "b": 1})) == [0.0, 0.25, 0.75]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Temperature(0), "Temperature.tau: must be a finite number above 0, got 0."),
        (lambda: Temperature(cap=-1), "Temperature.cap: must be a finite number above 0, got -1."),
        (lambda: Temperature(float("nan")), "Temperature.tau: must be a finite number above 0, got nan."),
        (lambda: Annealed(0), "Annealed.epochs: must be an integer of at least 1, got 0."),
        (lambda: Annealed(2, end=-1), "Annealed.end: must be a finite number of at least 0, got -1."),
        (
            lambda: FixedProbabilities({"a": 0.5, "b": -0.5}),
            "FixedProbabilities.b: must be a finite number of at least 0, got -0.5.",
        ),
        (
            lambda: FixedProbabilities({"a": True}),
            "FixedProbabilities.a: must be a finite number of at least 0, got",
        ),
        (
            lambda: FixedProbabilities({"a": 0}),
            "FixedProbabilities: must have a number above 0, got 0 for every",
        ),
        (
            lambda: FixedProbabilities({}),
            "FixedProbabilities: must be a mapping from task to number, got {}.",
        ),
        (
            lambda: FixedProbabilities({"a": 1, "b": 1}).probabilities(SIZES, 0),
            "FixedProbabilities: must have a number for every task, got none for 'c'. Write 0",
        ),
        (
            lambda: FixedProbabilities({"alpha": 1}).probabilities({"aplha": 1}, 0),
            "FixedProbabilities: no task is called 'alpha'. Did you mean 'aplha'?",
        ),
        (
            lambda: Proportional().probabilities({"a": 1, "b": None}, 0),
            "task 'b': must have a loader with a length for Proportional, got none. Choose",
        ),
    ],
)
def test_unusable_numbers(make, message):
    assert refusal(make).startswith(message)


def test_numbers_at_the_ends_of_a_float():
    assert Temperature(1e-3).probabilities({"a": 10**6, "b": 10**7}, 0).tolist() == [0.0, 1.0]
    assert (
        FixedProbabilities({"a": 1e308, "b": 1e308}).probabilities({"a": 1, "b": 1}, 0).tolist() == [0.5] * 2
    )
    numbers = FixedProbabilities({"a": np.float32(1), "b": np.int64(3)})
    assert numbers.probabilities({"a": 1, "b": 1}, 0).tolist() == [0.25, 0.75]
