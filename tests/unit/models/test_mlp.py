import pytest
import torch

from polytask import UserError
from polytask.models import MLP


def test_images_are_flattened():
    model, images = MLP(784, [10], 4), torch.rand(3, 1, 28, 28)
    assert torch.equal(model(images), model(images.reshape(3, 784)))


def test_sizes_are_readable():
    model = MLP(4, [3], 2)
    assert (model.input_dim, model.output_dim) == (4, 2)


def test_the_output_is_activated_on_request_only():
    torch.manual_seed(0)
    x = torch.randn(100, 4)
    assert MLP(4, [3], 2)(x).min() < 0
    assert MLP(4, [3], 2, activate_output=True)(x).min() == 0


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model, x = MLP(4, [50], 2, dropout=0.5), torch.randn(3, 4)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("shape", [(3, 1, 28, 27), (784,), (3, 10), ()])
def test_an_input_of_another_size_is_an_error_with_both_shapes(shape):
    with pytest.raises(UserError) as caught:
        MLP(784, [], 2)(torch.zeros(shape))
    assert str(caught.value) == f"MLP: inputs must have the shape (N, 784), got shape {shape}."


def test_single_values_need_the_dimension_of_features_too():
    with pytest.raises(UserError, match=r"shape \(N, 1\), got shape \(5,\)"):
        MLP(1, [], 2)(torch.zeros(5))


def test_inputs_that_are_no_tensor():
    with pytest.raises(UserError, match=r"MLP: inputs must have the shape \(N, 4\), got a dict"):
        MLP(4, [], 2)({"x": torch.rand(3, 4)})
