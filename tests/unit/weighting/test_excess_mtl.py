import pytest
import torch

from polytask import UserError
from polytask.weighting import ExcessMTL

JACOBIAN = torch.tensor([[1.0, 0.0], [0.0, 2.0]])


def test_the_first_step_is_the_plain_sum():
    assert torch.equal(ExcessMTL()(JACOBIAN), torch.tensor([1.0, 2.0]))


def test_equal_changes_leave_equal_weights():
    weighting = ExcessMTL()
    for _ in range(5):
        weighting(JACOBIAN)
    torch.testing.assert_close(weighting.head_weights(torch.ones(2)), torch.ones(2), rtol=1e-4, atol=0)


def test_the_task_that_still_moves_is_raised():
    weighting = ExcessMTL()
    for step in range(5):
        weighting(JACOBIAN * torch.tensor([[1.0], [0.5**step]]))
    weights = weighting.head_weights(torch.ones(2))
    assert weights[0] > 1.2
    assert weights.sum().item() == pytest.approx(2)


def test_the_unit_of_a_loss_changes_no_weight():
    weights = []
    for factor in (1.0, 1000.0):
        weighting = ExcessMTL()
        for step in range(5):
            scales = torch.tensor([[factor], [0.5**step]])
            weighting(JACOBIAN * scales)
        weights.append(weighting.head_weights(torch.ones(2)))
    torch.testing.assert_close(*weights)


def test_a_task_that_began_with_no_gradient_saturates_without_overflow():
    weighting = ExcessMTL()
    weighting(JACOBIAN * torch.tensor([[0.0], [1.0]]))
    for _ in range(3):
        assert weighting(JACOBIAN).isfinite().all()
    assert weighting.head_weights(torch.ones(2)).tolist() == [2, 0]


@pytest.mark.parametrize("step_size", [0, -1, float("inf")])
def test_the_step_size_is_above_zero(step_size):
    with pytest.raises(UserError, match=r"ExcessMTL.step_size: must be a finite number above 0"):
        ExcessMTL(step_size)
