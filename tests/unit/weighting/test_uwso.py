import pytest
import torch

from polytask import UserError
from polytask.weighting import UWSO


def named(weighting):
    weighting.setup(["digit", "depth"])
    return weighting


def test_equal_losses_have_equal_weights():
    torch.testing.assert_close(named(UWSO()).weights(torch.tensor([0.4, 0.4])), torch.full((2,), 0.5))


@pytest.mark.parametrize(("temperature", "weights"), [(1e6, [0.5, 0.5]), (1e-3, [1.0, 0.0])])
def test_the_temperature_goes_from_equal_to_the_smallest_loss(temperature, weights):
    weighting = named(UWSO(temperature))
    torch.testing.assert_close(
        weighting.weights(torch.tensor([0.5, 2.0])), torch.tensor(weights), rtol=0, atol=1e-5
    )


def test_the_gradient_does_not_go_through_the_weights():
    losses = torch.tensor([0.5, 2.0], requires_grad=True)
    named(UWSO())(losses).backward()
    assert losses.grad.sum().item() == pytest.approx(1)


def test_losses_close_to_zero_do_not_overflow():
    assert named(UWSO(1e-3)).weights(torch.tensor([1e-38, 1.0])).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan"), "2", True])
def test_the_temperature_is_a_number_above_zero(temperature):
    with pytest.raises(UserError, match=r"UWSO.temperature: must be a finite number above 0"):
        UWSO(temperature)


def test_a_loss_of_zero_is_an_error():
    with pytest.raises(UserError, match=r"UWSO: the losses of task 'depth' must stay above 0, got 0"):
        named(UWSO())(torch.tensor([1.0, 0.0]))
