import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polytask import UserError
from polytask.weighting import FAMO

LOSSES = torch.tensor([1.0, 3.0])


def named(names=("digit", "depth"), **arguments):
    weighting = FAMO(**arguments)
    weighting.setup(names)
    return weighting


def test_the_first_weights_are_inverse_losses():
    torch.testing.assert_close(named().weights(LOSSES), torch.tensor([0.75, 0.25]))


@settings(max_examples=25)
@given(losses=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=2), factor=st.floats(0.01, 100))
def test_the_update_is_convex_and_each_weighted_loss_keeps_its_share(losses, factor):
    """Multiplying all losses changes no weight: only ratios matter."""
    losses = torch.tensor(losses)
    weights = named().weights(losses)
    assert weights.sum().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(named().weights(factor * losses), weights, rtol=1e-3, atol=1e-6)


def test_the_task_that_falls_least_is_raised():
    weighting = named()
    for _ in range(10):
        weighting(LOSSES)
        weighting.after_step(LOSSES * torch.tensor([0.5, 0.99]))
    assert weighting.logits[1] > 0.2
    assert weighting.logits[0] < -0.2


def test_losses_that_fall_alike_leave_the_logits():
    weighting = named(weight_decay=0.0)
    weighting(LOSSES)
    weighting.after_step(LOSSES / 2)
    assert weighting.logits.abs().max() < 0.0251
    weighting = named(weight_decay=0.0).double()
    weighting(LOSSES.double())
    weighting.after_step(LOSSES.double())
    assert weighting.logits.tolist() == [0, 0]


def test_a_lower_bound_shifts_the_loss():
    weighting = named(lower_bounds={"depth": -1.0})
    torch.testing.assert_close(weighting.weights(torch.tensor([1.0, 2.0])), torch.tensor([0.75, 0.25]))
    assert weighting(torch.tensor([1.0, -0.5])).isfinite()


def test_logits_and_their_adam_are_buffers_that_no_optimizer_steps():
    weighting = named()
    assert not list(weighting.parameters())
    assert {"logits", "before", "adam.first", "adam.second", "adam.steps"} <= set(weighting.state_dict())


def test_it_asks_for_losses_measured_again():
    assert FAMO.remeasures


def test_a_loss_at_or_below_its_bound_is_an_error_with_task_and_bound():
    message = r"FAMO: the losses of task 'depth' must stay above 0.5, got 0.25. Pass a bound"
    with pytest.raises(UserError, match=message):
        named(lower_bounds={"depth": 0.5})(torch.tensor([1.0, 0.25]))


def test_a_loss_below_its_bound_after_the_step_is_an_error_and_the_logits_stay():
    weighting = named()
    weighting(LOSSES)
    with pytest.raises(UserError, match=r"task 'digit' must stay above 0, got -1"):
        weighting.after_step(torch.tensor([-1.0, 1.0]))
    assert weighting.logits.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"lower_bounds": {"dept": 0.0}},
            "FAMO.lower_bounds: no task is called 'dept'. Did you mean 'depth'",
        ),
        ({"lower_bounds": {"depth": float("inf")}}, "FAMO.lower_bounds.depth: must be a finite number"),
        ({"lr": -0.1}, "FAMO.lr: must be a finite number of at least 0, got -0.1"),
        ({"weight_decay": "1e-3"}, "FAMO.weight_decay: must be a finite number of at least 0, got '1e-3'"),
    ],
)
def test_bad_arguments_are_errors(arguments, words):
    with pytest.raises(UserError, match=words):
        named(**arguments)


def test_repr_shows_the_arguments():
    text = repr(named(lower_bounds={"depth": -1.0})).splitlines()[1]
    assert text.strip() == "lr=0.025, weight_decay=0.001, lower_bounds={'depth': -1.0}"
