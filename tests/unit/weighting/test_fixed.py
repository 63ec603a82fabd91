import numpy as np
import pytest
import torch

from polytask import UserError
from polytask.weighting import Fixed


def test_the_scalar_is_the_weighted_sum():
    weighting = Fixed({"b": 0.5, "a": 2})
    weighting.setup(["a", "b"])
    losses = torch.tensor([3.0, 8.0])
    assert weighting(losses).item() == 10
    assert weighting(losses[1:], ["b"]).item() == 4
    assert weighting(losses, ["b", "a"]).item() == 17.5
    assert weighting.weights(losses).tolist() == [2.0, 0.5]


def test_a_weight_of_zero_gives_no_gradient():
    weighting = Fixed({"a": 0, "b": 1})
    weighting.setup(["a", "b"])
    assert weighting.weights(torch.ones(2)).tolist() == [0.0, 1.0]


def test_numbers_of_numpy_are_numbers():
    assert Fixed({"a": np.float32(0.5), "b": np.int64(2)}).given == {"a": 0.5, "b": 2.0}


def test_a_checkpoint_does_not_bring_weights_back():
    weighting = Fixed({"a": 1.0})
    weighting.setup(["a"])
    assert not weighting.state_dict()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": -1, "b": 1}, r"Fixed\.weights\.a: must be a finite number of at least 0, got -1"),
        ({"a": float("inf"), "b": 1}, r"Fixed\.weights\.a: .*got inf"),
        ({"a": "1e-3", "b": 1}, r"Fixed\.weights\.a: .*got '1e-3'"),
        ({"a": True, "b": 1}, r"Fixed\.weights\.a: .*got True"),
        ({"a": 0, "b": 0}, r"Fixed\.weights: at least one weight must be above 0"),
        ({}, r"Fixed\.weights: at least one weight must be above 0"),
        ([1, 2], r"Fixed\.weights: must be a mapping from task to weight"),
        ({"a": 1}, r"Fixed\.weights: a weight is required for task 'b'"),
        ({"a": 1, "b": 1, "c": 1}, r"Fixed\.weights: no task is called 'c'\. Tasks: a, b"),
    ],
)
def test_weights_that_cannot_be(weights, message):
    with pytest.raises(UserError, match=f"^{message}"):
        Fixed(weights).setup(["a", "b"])


def test_the_representation_has_the_weights():
    assert repr(Fixed({"a": 1.0, "b": 0.25})) == "Fixed(a=1, b=0.25)"
