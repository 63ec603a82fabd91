"""What a Gramian weighting says about steps that went wrong."""

import warnings

import pytest
import torch
from torch import nn

from polytask import RunError, UserError
from polytask.gradients import Engine
from polytask.weighting import MGDA, FairGrad, NashMTL, SolverWarning

OPPOSED = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])


def nash(deferred=True):
    weighting = NashMTL()
    weighting.setup(["digit", "depth", "mask"])
    weighting.deferred = deferred
    return weighting


def test_a_failure_is_said_at_once_on_the_cpu():
    with pytest.warns(SolverWarning, match=r"NashMTL: .*tasks digit, mask in step 1; 1 such step\."):
        weights = nash(deferred=False)(OPPOSED, ["digit", "mask"])
    assert weights.tolist() == [0, 0]


def test_a_deferred_failure_waits_for_the_check_and_is_counted():
    weighting = nash()
    weighting(torch.eye(3))
    for _ in range(3):
        assert weighting(OPPOSED, ["digit", "mask"]).tolist() == [0, 0]
    weighting(torch.eye(3))
    with pytest.warns(SolverWarning, match=r"condition inf for tasks digit, mask in step 2; 3 such steps"):
        weighting.check()


def test_a_check_begins_anew():
    weighting = nash()
    weighting(OPPOSED, ["digit", "mask"])
    with pytest.warns(SolverWarning):
        weighting.check()
    weighting(torch.eye(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weighting.check()
    weighting(OPPOSED, ["depth", "mask"])
    with pytest.warns(SolverWarning, match=r"tasks depth, mask in step 3; 1 such step\."):
        weighting.check()


@pytest.mark.parametrize("deferred", [False, True])
def test_a_failure_of_the_same_tasks_is_said_once_and_counted(deferred):
    weighting = nash(deferred)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(50):
            weighting(OPPOSED if step % 2 else torch.eye(2), ["digit", "mask"])
            weighting.check()
        assert len(caught) == 1
        assert weighting.unsolved_steps == 25
        weighting.conclude()
        weighting.conclude()
        assert len(caught) == 2
        weighting(OPPOSED, ["depth", "mask"])
        weighting.check()
        weighting.conclude()
    assert len(caught) == 3
    assert "the weights were 0: 25 such steps so far." in str(caught[1].message)
    assert weighting.unsolved_steps == 26


def test_an_own_loop_is_warned_once():
    """Two parabolas whose gradients oppose each other behind the Pareto front."""
    point = nn.Parameter(torch.tensor([2.5, -2.0], dtype=torch.float64))
    centres = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([-1.0, 0.5])}
    model = nn.Module()
    model.point = point
    engine = Engine(model, FairGrad())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(300):
            point.grad = None
            engine.backward({name: ((point - at) ** 2).sum() / 2 for name, at in centres.items()})
            with torch.no_grad():
                point -= 0.1 * point.grad
    assert engine.weighting.unsolved_steps > 10
    assert len(caught) == 1


def test_a_check_before_any_step_says_nothing():
    nash().check()


def test_the_condition_is_that_of_the_gramian():
    weighting = MGDA("loss")
    with pytest.warns(SolverWarning, match=r"condition 4\.0e\+00"):
        weighting(torch.diag(torch.tensor([1.0, 4.0])), losses=torch.tensor([1.0, 0.0]))


def test_the_first_fault_decides_what_is_said():
    weighting = nash()
    weighting(torch.full((3, 3), torch.nan))
    weighting(OPPOSED, ["digit", "mask"])
    with pytest.raises(RunError, match="must be finite"):
        weighting.check()


def test_losses_that_are_not_finite_are_an_error():
    with pytest.raises(RunError, match="gradients and losses must be finite"):
        MGDA("loss")(torch.eye(2), losses=torch.tensor([1.0, torch.inf]))


def test_small_asymmetry_is_rounding():
    given = torch.tensor([[1.0, 0.5], [0.5 + 1e-6, 1.0]])
    torch.testing.assert_close(MGDA()(given), torch.full((2,), 0.5))
    with pytest.raises(UserError, match="symmetric"):
        MGDA()(given.double())
