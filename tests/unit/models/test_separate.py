import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import MLP, Separate


def test_every_task_is_its_network_and_nothing_is_shared():
    networks = {"a": MLP(4, [3], 2), "b": MLP(4, [], 1)}
    model, x = Separate(networks), torch.randn(5, 4)
    outputs = model(x)
    assert all(torch.equal(outputs[task], networks[task](x)) for task in networks)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for network in networks.values() for p in network.parameters()
    )


def test_messages_name_the_argument():
    with pytest.raises(UserError, match=r"^task_networks\.b: must be a torch\.nn\.Module"):
        Separate({"a": nn.Linear(1, 1), "b": nn.Linear})
