import pytest
import torch

from polytask import UserError
from polytask.models import TaskHead


def test_without_hidden_layers_it_is_one_linear_layer():
    head, x = TaskHead(4, 2), torch.randn(3, 4)
    assert torch.equal(head(x), head.layers.linear1(x))
    assert (head.input_dim, head.output_dim) == (4, 2)


def test_every_token_is_labelled_as_if_alone():
    head, tokens = TaskHead(4, 2, [3]).double(), torch.randn(5, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(head(tokens)[:, 2], head(tokens[:, 2]))


@pytest.mark.parametrize(
    ("representation", "found"),
    [
        (torch.zeros(3, 5), "shape (3, 5)"),
        (torch.zeros(3, 4, 1, 1), "shape (3, 4, 1, 1)"),
        (torch.tensor(1.0), "shape ()"),
        ({"features": torch.zeros(3, 4)}, "a dict"),
    ],
)
def test_another_representation_is_an_error_with_both_shapes(representation, found):
    with pytest.raises(UserError) as caught:
        TaskHead(4, 2)(representation)
    assert (
        str(caught.value) == f"representation: must be a tensor of shape (..., 4) for this head, got {found}."
    )
