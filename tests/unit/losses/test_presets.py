"""Criteria with a weighting of their own."""

import math

import pytest
import torch
from torch import nn

from polytask import UserError, weighting
from polytask.losses import DynamicWeightAverage, GradNorm, MultiTaskLoss, UncertaintyWeighting

OUTPUTS = {"digit": torch.zeros(2, 3), "height": torch.tensor([1.0, 3.0])}
TARGETS = {"digit": torch.tensor([0, 1]), "height": torch.tensor([0.0, 0.0])}
# The losses are log 3 and 5.


def losses():
    return {"digit": nn.CrossEntropyLoss(), "height": nn.MSELoss()}


def test_uncertainty_weighting_in_closed_form():
    criterion = UncertaintyWeighting(losses(), {"digit": "classification"}, {"height": math.log(4)})
    expected = math.log(3) + 0.5 * 5 / 4 + 0.5 * math.log(4)
    assert criterion(OUTPUTS, TARGETS).item() == pytest.approx(expected)
    assert criterion.get_task_weights() == pytest.approx({"digit": 1.0, "height": 0.125})
    assert criterion.get_uncertainties() == pytest.approx({"digit": 1.0, "height": 2.0})
    assert [name for name, _ in criterion.named_parameters()] == [
        "weighting.log_vars.task_digit",
        "weighting.log_vars.task_height",
    ]


def test_dynamic_weight_average_in_closed_form():
    criterion = DynamicWeightAverage(losses(), 1.0, 2, "sum")
    for means in ([4.0, 1.0], [2.0, 1.0]):
        criterion.weighting.on_epoch_end(torch.tensor(means))
    shares = [math.exp(0.5), math.exp(1.0)]
    digit, height = (2 * share / sum(shares) for share in shares)
    assert criterion(OUTPUTS, TARGETS).item() == pytest.approx(digit * 2 * math.log(3) + height * 10)
    assert criterion.get_task_weights() == pytest.approx({"digit": digit, "height": height})


def test_grad_norm_takes_its_weights_from_gradients():
    criterion = GradNorm(losses(), alpha=0.5)
    assert criterion(OUTPUTS, TARGETS).item() == pytest.approx(math.log(3) + 5)
    for _ in range(2):
        criterion.weighting(torch.diag(torch.tensor([1.0, 9.0])), losses=torch.ones(2))
    assert criterion.get_task_weights() == pytest.approx({"digit": 1.025, "height": 0.975})


@pytest.mark.parametrize(
    ("preset", "options", "method"),
    [
        (UncertaintyWeighting, {"task_types": {"digit": "classification"}, "init_log_vars": None}, "UW"),
        (DynamicWeightAverage, {"temperature": 3.0, "window_size": 4}, "DWA"),
        (GradNorm, {"alpha": 0.12}, "GradNorm"),
    ],
)
def test_a_preset_is_a_multi_task_loss_with_its_weighting(preset, options, method):
    criterion = preset(losses(), **options, reduction="sum")
    assert isinstance(criterion, MultiTaskLoss)
    assert type(criterion.weighting) is getattr(weighting, method)
    assert criterion.reduction == "sum"
    assert preset(nn.MSELoss()).names == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UncertaintyWeighting(losses(), {"digt": "classification"}), "Did you mean 'digit'?"),
        (lambda: UncertaintyWeighting(losses(), {"digit": "clasification"}), "Did you mean 'classification'"),
        (lambda: UncertaintyWeighting(losses(), init_log_vars={"height": math.nan}), "finite"),
        (lambda: DynamicWeightAverage(losses(), temperature=0), "DWA.temperature"),
        (lambda: DynamicWeightAverage(losses(), window_size=1), "DWA.window_size"),
        (lambda: GradNorm(losses(), alpha=-1), "GradNorm.alpha"),
        (lambda: GradNorm(losses(), reduction="none"), "reduction: must be 'mean' or 'sum'"),
    ],
)
def test_arguments_that_cannot_be_used(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
