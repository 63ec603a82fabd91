import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import SimpleCNN


def test_the_layers_are_those_documented():
    model = SimpleCNN(3, 10, 32)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    linears = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == [(3, 32), (32, 64)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [(64 * 8 * 8, 128), (128, 10)]
    assert model.output_dim == 10


@pytest.mark.parametrize(("size", "shape"), [(4, (4, 4)), (5, (5, 5)), (28, (28, 28)), ([9, 6], (9, 6))])
def test_image_sizes(size, shape):
    assert SimpleCNN(1, 2, size)(torch.rand(2, 1, *shape)).shape == (2, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 2, 8), "in_channels: must be an integer of at least 1, got 0."),
        ((1, 0, 8), "num_classes: must be an integer of at least 1, got 0."),
        ((1, 2, 3), "img_size: must be at least 4 pixels, since two poolings halve it, got 3."),
        ((1, 2, (8, 3)), "img_size: must be at least 4 pixels, since two poolings halve it, got (8, 3)."),
        ((1, 2, (8, 8, 8)), "img_size: must be one number, or height and width, got (8, 8, 8)."),
        ((1, 2, 8.0), "img_size: must be an integer of at least 1, got 8.0."),
    ],
)
def test_unusable_sizes(given, message):
    with pytest.raises(UserError) as caught:
        SimpleCNN(*given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("shape", "end"),
    [((5, 3, 8, 8), "."), ((5, 1, 8, 9), "."), ((5, 8, 8), ". Add the dimension of channels.")],
)
def test_an_image_of_another_size_is_an_error_with_both_shapes(shape, end):
    with pytest.raises(UserError) as caught:
        SimpleCNN(1, 2, 8)(torch.zeros(shape))
    assert str(caught.value) == f"SimpleCNN: images must have the shape (N, 1, 8, 8), got shape {shape}{end}"
