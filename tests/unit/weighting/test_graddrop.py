import pytest
import torch

from polytask import UserError
from polytask.weighting import GradDrop

CONFLICT = torch.tensor([[3.0, 1.0, 2.0], [-1.0, 2.0, -2.0]])


def test_where_all_signs_agree_the_update_is_the_sum():
    jacobian = torch.tensor([[1.0, -2.0], [3.0, -0.5]])
    assert torch.equal(GradDrop(seed=0)(jacobian), jacobian.sum(0))


def test_each_parameter_keeps_one_sign():
    weighting = GradDrop(seed=0)
    for _ in range(20):
        first, second, third = weighting(CONFLICT).tolist()
        assert first in (3, -1)
        assert second == 3
        assert third in (2, -2)


def test_signs_are_drawn_by_their_purity():
    """3 against 1: positive in three of four draws."""
    weighting = GradDrop(seed=0)
    updates = torch.stack([weighting(CONFLICT) for _ in range(2000)])
    assert (updates > 0).float().mean(0)[0].item() == pytest.approx(0.75, abs=0.03)
    assert (updates > 0).float().mean(0)[2].item() == pytest.approx(0.5, abs=0.04)


def test_a_leak_of_one_drops_nothing_of_its_task():
    jacobian = torch.tensor([[3.0, -3.0], [-1.0, 1.0]])
    assert torch.equal(GradDrop({"task0": 1.0, "task1": 1.0}, seed=0)(jacobian), jacobian.sum(0))
    weighting = GradDrop({"task0": 1.0}, seed=0)
    updates = torch.stack([weighting(jacobian) for _ in range(50)])
    assert set(updates[:, 0].tolist()) == {2.0, 3.0}


def test_seeds():
    def draw(seed):
        weighting = GradDrop(seed=seed)
        return torch.stack([weighting(CONFLICT) for _ in range(10)])

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_the_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    GradDrop()(CONFLICT)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        ({"task0": 1.5}, "GradDrop.leak.task0: must be a finite number of at least 0 and at most 1, got 1.5"),
        ({"task0": -0.1}, "at least 0 and at most 1, got -0.1"),
        ({"task3": 0.1}, "GradDrop.leak: no task is called 'task3'"),
    ],
)
def test_bad_leaks_are_errors(leak, words):
    with pytest.raises(UserError, match=words):
        GradDrop(leak)(CONFLICT)
