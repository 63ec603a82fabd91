import pytest
import torch

from polytask import UserError
from polytask.weighting import DWA

ONES = torch.ones(2)


def named(weighting):
    weighting.setup(["digit", "depth"])
    return weighting


def test_weights_are_one_for_two_epochs():
    weighting = named(DWA())
    for means in ([4.0, 1.0], [1.0, 1.0]):
        assert weighting.weights(ONES).tolist() == [1, 1]
        weighting.on_epoch_end(torch.tensor(means))
    assert weighting.weights(ONES)[1] > 1


def test_losses_that_fall_alike_weigh_alike():
    weighting = named(DWA())
    weighting.on_epoch_end(torch.tensor([400.0, 0.4]))
    weighting.on_epoch_end(torch.tensor([300.0, 0.3]))
    torch.testing.assert_close(weighting.weights(ONES), ONES)


def test_weights_do_not_depend_on_the_unit_of_a_loss():
    one, other = named(DWA()), named(DWA())
    for means in ([4.0, 1.0], [3.0, 0.9], [2.0, 0.85]):
        one.on_epoch_end(torch.tensor(means))
        other.on_epoch_end(torch.tensor(means) * torch.tensor([1000.0, 0.01]))
    torch.testing.assert_close(one.weights(ONES), other.weights(ONES))


def test_a_large_temperature_makes_weights_equal():
    weighting = named(DWA(temperature=1e6))
    weighting.on_epoch_end(torch.tensor([4.0, 1.0]))
    weighting.on_epoch_end(torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(weighting.weights(ONES), ONES, rtol=0, atol=1e-5)


def test_the_total_is_the_weighted_sum():
    weighting = named(DWA())
    weighting.on_epoch_end(torch.tensor([4.0, 1.0]))
    weighting.on_epoch_end(torch.tensor([2.0, 1.0]))
    losses = torch.tensor([3.0, 5.0])
    torch.testing.assert_close(weighting(losses), weighting.weights(losses) @ losses)


def test_an_epoch_without_a_task_leaves_its_window():
    weighting = named(DWA())
    weighting.on_epoch_end(torch.tensor([4.0, 1.0]))
    weighting.on_epoch_end(torch.tensor([2.0]), ["digit"])
    weighting.on_epoch_end(torch.tensor([1.0, 0.25]))
    assert weighting.rates.tolist() == [0.5, 0.25]


def test_a_mean_of_zero_gives_the_ratio_one():
    weighting = named(DWA())
    weighting.on_epoch_end(torch.tensor([0.0, 1.0]))
    weighting.on_epoch_end(torch.tensor([0.0, 1.0]))
    assert weighting.weights(ONES).tolist() == [1, 1]


@pytest.mark.parametrize("mean", [-0.5, float("nan")])
def test_a_negative_or_nan_mean_is_an_error(mean):
    with pytest.raises(UserError, match=r"DWA: the mean loss of task 'depth' must be at least 0, got -?n?"):
        named(DWA()).on_epoch_end(torch.tensor([1.0, mean]))


@pytest.mark.parametrize("temperature", [0, -2.0, float("nan"), None])
def test_the_temperature_is_above_zero(temperature):
    with pytest.raises(UserError, match=r"DWA.temperature: must be a finite number above 0"):
        DWA(temperature)


@pytest.mark.parametrize("window", [1, 0, -1, 2.0, True])
def test_the_window_is_two_epochs_or_more(window):
    with pytest.raises(UserError, match=r"DWA.window_size: must be an integer of at least 2"):
        DWA(window_size=window)


def test_repr_shows_the_arguments():
    assert repr(DWA(1.5, 4)) == "DWA(temperature=1.5, window_size=4)"
