import pytest
import torch

from polytask import UserError
from polytask.weighting import RLW
from polytask.weighting._random_stream import RandomStream

NAMES = ["digit", "depth", "normal"]


def named(seed, names=NAMES):
    weighting = RLW(seed)
    weighting.setup(names)
    return weighting


def drawn(weighting, steps=5):
    rows = []
    for _ in range(steps):
        weighting(torch.ones(3))
        rows.append(weighting.weights(torch.ones(3)))
    return torch.stack(rows)


def test_every_training_batch_draws_and_an_evaluation_does_not():
    weighting = named(0)
    assert len(drawn(weighting).unique(dim=0)) == 5
    weighting.eval()
    assert len(drawn(weighting).unique(dim=0)) == 1


def test_the_same_seed_draws_the_same_and_another_does_not():
    assert torch.equal(drawn(named(1)), drawn(named(1)))
    assert not torch.equal(drawn(named(1)), drawn(named(2)))


def test_without_a_seed_the_seed_of_torch_is_taken_and_nothing_is_drawn_from_it():
    rows = []
    with torch.random.fork_rng():
        for seed in (7, 7, 8):
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            rows.append(drawn(named(None)))
            assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_the_weights_are_a_softmax_of_normal_draws():
    """A log ratio of two weights is the difference of two normal numbers: mean 0, variance 2."""
    weighting = named(0)
    logs = drawn(weighting, 4000).log()
    ratio = logs[:, 0] - logs[:, 1]
    assert ratio.mean().abs() < 0.1
    assert ratio.var().item() == pytest.approx(2, rel=0.1)


def test_neighbouring_seeds_and_steps_are_not_alike():
    draws = [RandomStream(0), RandomStream(1)]
    rows = torch.stack([torch.randn(50, generator=d.step()) for _ in range(10) for d in draws])
    assert (torch.corrcoef(rows) - torch.eye(20)).abs().max() < 0.6


@pytest.mark.parametrize("seed", [1.0, "1", True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(UserError, match=r"seed: must be an integer"):
        RLW(seed)


@pytest.mark.parametrize("seed", [2**64 - 1, -1])
def test_any_whole_number_is_a_seed(seed):
    first, second = named(seed), named(0)
    first(torch.ones(3))
    second.load_state_dict(first.state_dict())
    assert torch.equal(drawn(first), drawn(second))
