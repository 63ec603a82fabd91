import pytest
import torch

from polytask import UserError
from polytask.weighting import DBMTL

JACOBIAN = torch.tensor([[4.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.01]])
LOSSES = torch.tensor([2.0, 0.25, 5.0])


def test_all_rows_are_as_long_as_the_longest():
    update = DBMTL(beta=0.0)(JACOBIAN.double(), losses=LOSSES.double())
    torch.testing.assert_close(update, torch.full((3,), 4.0).double(), rtol=1e-5, atol=0)


def test_the_unit_of_a_loss_changes_nothing():
    factors = torch.tensor([1000.0, 1.0, 0.01])
    torch.testing.assert_close(
        DBMTL()(factors[:, None] * JACOBIAN, losses=factors * LOSSES), DBMTL()(JACOBIAN, losses=LOSSES)
    )


def test_a_loss_that_grows_under_the_same_gradient_weighs_less_in_the_average():
    weighting = DBMTL(beta=0.9, beta_decay=0.0)
    weighting(JACOBIAN, losses=LOSSES)
    before = weighting.average.rows.clone()
    weighting(JACOBIAN, losses=10 * LOSSES)
    torch.testing.assert_close(weighting.average.rows, 0.9 * before + 0.1 * JACOBIAN / (10 * LOSSES)[:, None])


def test_heads_follow_the_logarithms():
    torch.testing.assert_close(DBMTL().head_weights(LOSSES), 1 / LOSSES)


def test_losses_are_needed():
    with pytest.raises(UserError, match=r"DBMTL: the losses .* are required, got none. Pass losses="):
        DBMTL()(JACOBIAN)


def test_a_loss_that_is_not_positive_is_an_error_and_the_state_stays():
    weighting = DBMTL()
    with pytest.raises(UserError, match=r"DBMTL: the losses of task 'task1' must stay above 0, got -1"):
        weighting(JACOBIAN, losses=torch.tensor([1.0, -1.0, 1.0]))
    assert weighting.steps.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"beta": 1.0}, "DBMTL.beta: must be a finite number of at least 0 and below 1, got 1.0"),
        ({"beta": -0.1}, "DBMTL.beta: must be a finite number of at least 0 and below 1, got -0.1"),
        ({"beta_decay": -0.1}, "DBMTL.beta_decay: must be a finite number of at least 0"),
    ],
)
def test_bad_arguments_are_errors(arguments, words):
    with pytest.raises(UserError, match=words):
        DBMTL(**arguments)
