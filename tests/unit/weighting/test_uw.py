import math

import pytest
import torch

from polytask import UserError
from polytask.weighting import IMTLL, UW, UWRevised


def named(weighting, names=("digit", "depth")):
    weighting.setup(names)
    return weighting


def minimise(weighting, losses, steps=400):
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        weighting(losses).backward()
        optimizer.step()


def test_regression_and_classification_differ_by_the_half():
    weighting = named(UW({"digit": "classification"}, {"digit": 1.0, "depth": 1.0}))
    expected = torch.tensor([math.exp(-1), 0.5 * math.exp(-1)])
    torch.testing.assert_close(weighting.weights(torch.ones(2)), expected)


def test_the_optimum_is_the_noise_of_the_labels():
    """For regressions the variance is the loss, for classifications it is twice the loss."""
    weighting = named(UW({"digit": "classification"}))
    minimise(weighting, torch.tensor([0.3, 4.0]))
    sigmas = weighting.get_uncertainties()
    assert list(sigmas) == ["digit", "depth"]
    assert sigmas["depth"] == pytest.approx(2.0, rel=1e-3)
    assert sigmas["digit"] == pytest.approx(math.sqrt(0.6), rel=1e-3)


def test_the_scalar_is_negative_for_small_losses_and_not_clipped():
    weighting = named(UW(init_log_vars={"digit": -4.0, "depth": -4.0}))
    losses = torch.tensor([1e-3, 1e-3], requires_grad=True)
    total = weighting(losses)
    total.backward()
    assert total < 0
    assert (losses.grad > 1).all()


def test_a_scaled_loss_only_moves_its_own_log_variance():
    """UW does not depend on units: the optimum absorbs the factor."""
    weighting, scaled = named(UW()), named(UW())
    losses, factors = torch.tensor([0.5, 2.0]), torch.tensor([10.0, 0.1])
    minimise(weighting, losses)
    minimise(scaled, factors * losses)
    torch.testing.assert_close(
        scaled.weights(losses) * factors, weighting.weights(losses), rtol=1e-2, atol=1e-3
    )


def test_absent_tasks_have_no_gradient():
    weighting = named(UW())
    weighting(torch.ones(1), ["depth"]).backward()
    gradients = {name: parameter.grad for name, parameter in weighting.named_parameters()}
    assert gradients["log_vars.task_digit"] is None
    assert gradients["log_vars.task_depth"].item() == 0


def test_tasks_may_be_named_like_attributes():
    weighting = named(UW(), ("type", "keys", "places"))
    assert list(weighting.get_uncertainties().values()) == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"task_types": {"digit": "clasification"}}, "Did you mean 'classification'"),
        (
            {"task_types": {"digt": "regression"}},
            "UW.task_types: no task is called 'digt'. Did you mean 'digit'",
        ),
        (
            {"init_log_vars": {"digt": 0.0}},
            "UW.init_log_vars: no task is called 'digt'. Did you mean 'digit'",
        ),
        (
            {"init_log_vars": {"digit": math.nan}},
            "UW.init_log_vars.digit: must be a finite number, got nan",
        ),
        ({"init_log_vars": {"digit": True}}, "must be a finite number, got True"),
        ({"init_log_vars": [0.0, 0.0]}, "must be a mapping from task to number"),
    ],
)
def test_bad_arguments_name_the_argument_and_the_nearest(arguments, words):
    with pytest.raises(UserError, match=words):
        named(UW(**arguments))


def test_imtl_l_brings_every_scaled_loss_to_one():
    weighting, losses = named(IMTLL()), torch.tensor([0.3, 4.0])
    minimise(weighting, losses)
    torch.testing.assert_close(weighting.weights(losses) * losses, torch.ones(2), rtol=1e-3, atol=0)


def test_imtl_l_is_twice_uw_at_the_negative_parameter():
    imtl, uw = named(IMTLL()), named(UW(init_log_vars={"digit": -0.7, "depth": 0.3}))
    with torch.no_grad():
        imtl.log_scales.task_digit.fill_(0.7)
        imtl.log_scales.task_depth.fill_(-0.3)
    losses = torch.tensor([0.5, 3.0])
    torch.testing.assert_close(imtl(losses), 2 * uw(losses))


def test_uw_revised_is_never_negative_and_has_its_closed_form_optimum():
    """c^2 = (L + sqrt(L^2 + 8 L)) / 4 where the derivative vanishes."""
    weighting, losses = named(UWRevised()), torch.tensor([1e-3, 4.0])
    minimise(weighting, losses, 1500)
    squares = (losses + torch.sqrt(losses**2 + 8 * losses)) / 4
    torch.testing.assert_close(weighting.weights(losses), 1 / (2 * squares), rtol=1e-2, atol=0)
    assert weighting(losses) > 0
