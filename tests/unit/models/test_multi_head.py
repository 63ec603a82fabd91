import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import MLP, MultiHead


class Features(nn.Module):
    def forward(self, x):
        return {"x": x, "pair": (x, 2 * x)}


class Second(nn.Module):
    def forward(self, representation):
        return representation["pair"][1]


def test_the_representation_reaches_the_heads_as_it_is():
    x = torch.rand(3, 2)
    assert torch.equal(MultiHead(Features(), {"a": Second()})(x)["a"], 2 * x)


def test_the_backbone_takes_any_input():
    x = torch.rand(3, 2)
    model = MultiHead(Second(), {"a": nn.Identity()})
    assert torch.equal(model({"pair": (None, x)})["a"], x)


@pytest.mark.parametrize(
    ("backbone", "found"),
    [(MLP, "the class MLP"), (torch.relu, "builtin_function_or_method"), (None, "NoneType")],
)
def test_a_backbone_that_is_no_module(backbone, found):
    with pytest.raises(UserError) as caught:
        MultiHead(backbone, [nn.Linear(1, 1)])
    assert str(caught.value) == f"backbone: must be a torch.nn.Module, got {found}. Pass an instance."
