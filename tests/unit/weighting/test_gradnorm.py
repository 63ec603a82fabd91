"""GradNorm against autograd and torch's own Adam."""

import pytest
import torch

from polytask import UserError
from polytask.weighting import GradNorm, SolverWarning
from tests.gramians import gramian

LOSSES = torch.tensor([[1.0, 4.0, 2.0], [0.9, 1.0, 2.2], [0.5, 0.9, 2.1], [0.4, 0.8, 0.3]]).double()


def autograd_weights(alpha, lr, steps):
    """The weights of each step, from the paper's loss differentiated by torch."""
    weights = torch.ones(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=lr)
    used = []
    for number in range(steps):
        used.append(weights.detach().clone())
        norms = gramian("independent", 3, seed=number).diagonal().sqrt()
        ratios = LOSSES[number] / LOSSES[0]
        target = ((weights * norms).mean() * (ratios / ratios.mean()) ** alpha).detach()
        adam.zero_grad()
        (weights * norms - target).abs().sum().backward()
        adam.step()
        with torch.no_grad():
            weights.mul_(3 / weights.sum())
    return used


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
def test_it_is_the_papers_algorithm(alpha):
    weighting = GradNorm(alpha=alpha, lr=0.05)
    weighting.setup(["a", "b", "c"])
    weighting.double()
    for number, expected in enumerate(autograd_weights(alpha, 0.05, 4)):
        weights = weighting(gramian("independent", 3, seed=number), losses=LOSSES[number])
        torch.testing.assert_close(weights, expected)


def test_a_slow_task_gains_weight():
    weighting = GradNorm(alpha=1.5)
    for step in range(50):
        losses = torch.tensor([1.0, 0.97**step])
        weights = weighting(torch.eye(2), losses=losses)
    assert weights[0] > 1.2
    assert weights.sum().item() == pytest.approx(2)


def test_a_task_that_comes_later_starts_from_its_own_first_loss():
    weighting = GradNorm()
    weighting.setup(["a", "b"])
    weighting(torch.eye(1), ["a"], losses=torch.tensor([3.0]))
    weighting(torch.eye(2), losses=torch.tensor([1.5, 8.0]))
    assert weighting.initial.tolist() == [3.0, 8.0]


def test_present_tasks_share_what_they_had():
    weighting = GradNorm(lr=0.1)
    weighting.setup(["a", "b", "c"])
    for step in range(6):
        losses = torch.tensor([1.0, 0.5**step])
        weighting(torch.diag(torch.tensor([1.0, 9.0])), ["a", "c"], losses=losses)
    assert weighting.value[1] == 1
    assert weighting.value.sum().item() == pytest.approx(3)
    assert weighting.value[0] != 1


def test_a_negative_loss_is_said_and_teaches_nothing():
    weighting = GradNorm()
    weighting(torch.eye(2), losses=torch.ones(2))
    before = weighting.value.clone()
    with pytest.warns(SolverWarning, match="losses of 0 or more"):
        weights = weighting(torch.eye(2), losses=torch.tensor([1.0, -1.0]))
    assert weights.tolist() == [0, 0]
    assert torch.equal(weighting.value, before)


def test_a_task_whose_weight_fell_to_0_may_be_alone_in_a_batch():
    weighting, gramian = GradNorm(), torch.diag(torch.tensor([100.0, 0.01]))
    weighting.setup(["a", "b"])
    for _ in range(60):
        weighting(gramian, losses=torch.ones(2))
        weighting(gramian[:1, :1], ["a"], losses=torch.ones(1))
        assert weighting.value.sum().item() == pytest.approx(2)


@pytest.mark.parametrize("arguments", [{"alpha": -1}, {"lr": 0}, {"alpha": float("nan")}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(UserError, match=f"GradNorm.{next(iter(arguments))}"):
        GradNorm(**arguments)
