"""Sharing schemes on a backbone that it was not written for: trained, copied and exported."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import (
    MTAN,
    NDDR,
    ClassificationHead,
    CrossStitch,
    DenseHead,
    FiLM,
    LoRA,
    SoftParameterSharing,
    TorchvisionBackbone,
)

RESNET = partial(TorchvisionBackbone, "resnet18")
TAPS = {"encoder.layer1": 64, "encoder.layer2": 128}


def heads():
    return {"kind": nn.Linear(512, 3), "size": nn.Linear(512, 1)}


def networks():
    return {task: nn.Sequential(RESNET(), head) for task, head in heads().items()}


def map_heads():
    return {"kind": ClassificationHead(128, 3), "size": DenseHead(128, 1, size=32)}


SCHEMES = {
    "SoftParameterSharing": lambda: SoftParameterSharing(networks()),
    "CrossStitch": lambda: CrossStitch(RESNET(), heads(), TAPS),
    "NDDR": lambda: NDDR(RESNET(), heads(), TAPS),
    "MTAN": lambda: MTAN(RESNET(), map_heads(), TAPS),
    "FiLM": lambda: FiLM(RESNET(), heads(), TAPS),
    "LoRA": lambda: LoRA(RESNET(), heads(), 2, ["conv1", "conv2"]),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_trains_is_copied_and_exported(scheme):
    torch.manual_seed(0)
    model, x = SCHEMES[scheme](), torch.randn(2, 3, 32, 32)
    sum(output.square().mean() for output in model(x).values()).backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    output = model.eval()(x, "size")
    assert torch.equal(copy.deepcopy(model)(x, "size"), output)
    program = torch.export.export(model, (x, "size"))
    torch.testing.assert_close(program.module()(x, "size"), output)


def test_a_tap_whose_features_the_block_changes_afterwards_is_an_error():
    model = CrossStitch(RESNET(), heads(), ["encoder.layer1.0.relu"])
    with pytest.raises(UserError, match="must not change features in place between two taps"):
        model(torch.randn(2, 3, 32, 32))


def test_a_tap_that_is_misspelt_names_the_nearest():
    with pytest.raises(UserError, match=r"taps: .* got 'encoder.layer_1'. Did you mean 'encoder.layer1'"):
        CrossStitch(RESNET(), heads(), ["encoder.layer_1"])
