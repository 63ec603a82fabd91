"""GradVac's targets."""

import pytest
import torch

from polytask import UserError
from polytask.weighting import GradVac, PCGrad
from tests.gramians import gramian


def test_without_memory_it_is_pcgrad():
    one, other = GradVac(beta=0, seed=5), PCGrad(seed=5)
    for seed in range(4):
        given = gramian("conflicting", 4, seed)
        assert torch.equal(one(given), other(given))


def test_a_pair_is_turned_to_its_target():
    weighting = GradVac(beta=1.0, seed=0)
    weighting.setup(["a", "b"])
    weighting(torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    assert weighting.targets.tolist() == [[0, 0.5], [0.5, 0]]
    rows = torch.eye(2)
    extra = weighting(torch.eye(2))[0] - 1
    turned = rows[0] + extra * rows[1]
    assert (turned @ rows[1] / turned.norm()).item() == pytest.approx(0.5)


def test_an_absent_pair_keeps_its_target():
    weighting = GradVac(beta=0.5, seed=0)
    weighting.setup(["a", "b", "c"])
    weighting(torch.full((3, 3), 0.5) + 0.5 * torch.eye(3))
    weighting(torch.eye(2), ["c", "a"])
    targets = weighting.targets
    assert targets[0, 1] == targets[1, 2] == 0.25
    assert targets[0, 2] == targets[2, 0] < 0.25


def test_equal_gradients_do_not_divide_by_zero():
    weighting = GradVac(beta=1.0, seed=0)
    for _ in range(3):
        weights = weighting(torch.ones(2, 2))
    assert weights.isfinite().all()
    assert weighting(torch.eye(2)).isfinite().all()


@pytest.mark.parametrize("arguments", [{"beta": -0.1}, {"beta": 1.1}, {"seed": 0.5}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(UserError, match=next(iter(arguments))):
        GradVac(**arguments)
