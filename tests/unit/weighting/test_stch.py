import pytest
import torch

from polytask import UserError
from polytask.weighting import STCH

NADIR = torch.tensor([1.0, 4.0])


def named(ready=True, names=("digit", "depth"), **arguments):
    weighting = STCH(**arguments)
    weighting.setup(names)
    if ready:
        weighting.on_epoch_end(NADIR)
    return weighting


def test_the_warm_up_is_a_sum_of_logarithms():
    losses = torch.tensor([0.5, 3.0])
    weighting = named(ready=False)
    torch.testing.assert_close(weighting(losses), losses.log().sum())
    torch.testing.assert_close(weighting.weights(losses), 1 / losses)


def test_the_nadir_is_the_mean_of_the_last_epoch_of_the_warm_up():
    weighting = named(ready=False, warmup_epochs=2)
    for means in ([9.0, 9.0], [1.0, 4.0], [0.1, 0.1]):
        weighting.on_epoch_end(torch.tensor(means))
    assert weighting.nadir.tolist() == [1, 4]


def test_the_warm_up_goes_on_until_all_present_tasks_have_a_nadir():
    weighting = named(ready=False)
    weighting.on_epoch_end(torch.tensor([1.0]), ["digit"])
    losses = torch.tensor([0.5, 3.0])
    torch.testing.assert_close(weighting.weights(losses), 1 / losses)
    torch.testing.assert_close(weighting.weights(losses[:1], ["digit"]), 1 / losses[:1])
    assert weighting(losses[:1], ["digit"]).item() == pytest.approx(torch.log(losses[0]).item())


def test_at_mu_one_it_is_a_weighted_sum_up_to_a_factor():
    weights = named(mu=1.0).weights(torch.tensor([0.5, 3.0]))
    assert (weights[0] / weights[1]).item() == pytest.approx(4)


def test_a_small_mu_is_the_largest_fraction_of_the_nadir():
    losses = torch.tensor([0.5, 3.0])
    weighting = named(mu=1e-3)
    assert weighting(losses).item() == pytest.approx(2 * torch.log(torch.tensor(0.75)).item(), rel=1e-3)
    torch.testing.assert_close(weighting.weights(losses), torch.tensor([0.0, 2 / 3.0]))


@pytest.mark.parametrize("ready", [False, True])
def test_weighted_losses_sum_to_the_number_of_tasks(ready):
    losses = torch.tensor([0.5, 3.0])
    assert (named(ready, mu=0.3).weights(losses) @ losses).item() == pytest.approx(2)


def test_weights_do_not_depend_on_the_unit_of_a_loss():
    losses, factors = torch.tensor([0.5, 3.0]), torch.tensor([1000.0, 0.01])
    one, other = named(mu=0.3), named(ready=False, mu=0.3)
    other.on_epoch_end(factors * NADIR)
    torch.testing.assert_close(other.weights(factors * losses) * factors, one.weights(losses))


def test_a_preference_raises_its_task():
    losses = torch.tensor([3.0, 12.0])
    plain, preferring = named(mu=0.5), named(mu=0.5, preferences={"depth": 2.0})
    assert preferring.weights(losses)[1] > plain.weights(losses)[1]


def test_a_loss_of_zero_is_an_error():
    with pytest.raises(UserError, match=r"STCH: the losses of task 'digit' must stay above 0, got 0"):
        named()(torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mu": 0}, "STCH.mu: must be a finite number above 0"),
        ({"warmup_epochs": 0}, "STCH.warmup_epochs: must be an integer of at least 1 epochs, got 0"),
        ({"warmup_epochs": 1.5}, "STCH.warmup_epochs: must be an integer"),
        ({"preferences": {"depht": 1.0}}, "no task is called 'depht'. Did you mean 'depth'"),
        ({"preferences": {"depth": 0.0}}, "STCH.preferences.depth: must be a finite number above 0"),
    ],
)
def test_bad_arguments_are_errors(arguments, words):
    with pytest.raises(UserError, match=words):
        named(**arguments)


def test_repr_shows_the_arguments():
    text = repr(named(preferences={"depth": 2.0})).splitlines()[1]
    assert text.strip() == "mu=0.1, warmup_epochs=1, preferences={'depth': 2.0}"
