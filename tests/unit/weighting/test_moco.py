import pytest
import torch

from polytask import UserError
from polytask.weighting import MoCo


def test_a_beta_of_one_that_does_not_decay_follows_the_jacobian():
    weighting = MoCo(beta=1.0, beta_decay=0.0)
    for seed in range(3):
        jacobian = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))
        update = weighting(jacobian)
        torch.testing.assert_close(update, weighting.shares @ jacobian)


def test_the_average_forgets_the_noise():
    """With a rate of 1/k the tracked row is the mean of all rows."""
    weighting = MoCo(beta=1.0, beta_decay=1.0)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 1, 4, generator=generator)
    for jacobian in rows:
        update = weighting(jacobian)
    torch.testing.assert_close(update, rows.mean(0)[0])


def test_the_longer_gradient_weighs_less():
    weighting = MoCo(beta=1.0)
    for _ in range(5):
        weighting(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    assert weighting.shares[0] < weighting.shares[1]
    assert weighting.shares.sum().item() == pytest.approx(1)


def test_a_large_rho_makes_shares_equal():
    shares = []
    for rho in (0.0, 100.0):
        weighting = MoCo(beta=1.0, gamma=0.01, gamma_decay=0.0, rho=rho)
        for _ in range(20):
            weighting(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        shares.append((weighting.shares[0] - 0.5).abs().item())
    assert shares[1] < shares[0]


def test_a_task_whose_share_fell_to_0_may_be_alone_in_a_batch():
    weighting, jacobian = MoCo(), torch.tensor([[1000.0, 0.0], [0.0, 0.01]])
    weighting.setup(["a", "b"])
    for _ in range(3):
        weighting(jacobian)
    assert weighting.shares[0] == 0
    assert weighting(jacobian[:1], ["a"]).isfinite().all()
    assert weighting(jacobian).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"beta": 0.0}, "MoCo.beta: must be a finite number above 0 and at most 1, got 0.0"),
        ({"beta": 1.5}, "MoCo.beta"),
        ({"beta_decay": -1}, "MoCo.beta_decay: must be a finite number of at least 0"),
        ({"gamma": 0}, "MoCo.gamma: must be a finite number above 0"),
        ({"gamma_decay": -1}, "MoCo.gamma_decay"),
        ({"rho": float("nan")}, "MoCo.rho"),
    ],
)
def test_bad_arguments_are_errors(arguments, words):
    with pytest.raises(UserError, match=words):
        MoCo(**arguments)
