import pytest
import torch

from polytask import UserError
from polytask.weighting import GLS


def named(names=("digit", "depth")):
    weighting = GLS()
    weighting.setup(names)
    return weighting


def test_the_geometric_mean_and_its_weights():
    losses = torch.tensor([2.0, 8.0])
    assert named()(losses).item() == pytest.approx(4)
    torch.testing.assert_close(named().weights(losses), 4 / (2 * losses))


def test_many_small_losses_do_not_underflow():
    names = [f"t{i}" for i in range(128)]
    losses = torch.full((128,), 1e-4)
    assert named(names)(losses).item() == pytest.approx(1e-4, rel=1e-4)


def test_a_scaled_loss_scales_all_weighted_gradients_alike():
    losses, factors = torch.tensor([2.0, 8.0]), torch.tensor([100.0, 1.0])
    torch.testing.assert_close(named().weights(factors * losses) * factors, 10 * named().weights(losses))


@pytest.mark.parametrize("loss", [0.0, -0.5])
def test_a_loss_that_is_not_positive_is_an_error_with_the_task(loss):
    with pytest.raises(
        UserError, match=r"GLS: the losses of task 'depth' must stay above 0, got -?0"
    ) as caught:
        named()(torch.tensor([1.0, loss]))
    assert "another weighting" in str(caught.value)


def test_a_deferred_error_is_kept_until_somebody_asks_and_raised_once():
    weighting = named()
    weighting.deferred = True
    weighting(torch.tensor([-2.0]), ["depth"])
    weighting(torch.tensor([1.0, 1.0]))
    with pytest.raises(UserError, match=r"task 'depth' must stay above 0, got -2"):
        weighting.check()
    weighting.check()


def test_evaluation_notes_nothing():
    weighting = named().eval()
    assert weighting(torch.tensor([1.0, 0.0])).item() == 0
    weighting.check()


def test_a_nan_loss_is_left_to_whoever_watches_the_losses():
    assert named()(torch.tensor([1.0, float("nan")])).isnan()
