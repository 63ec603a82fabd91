"""Every model serves one task alone as well."""

from functools import partial

import pytest
import torch
from torch import nn

from polytask import models
from tests.cases import MODELS

EXPERT = partial(models.MLP, 12, [7], 6)
TAPS = {"layers.activation1": 7}
ONE = {"output_dim": 2}


def head():
    return {"only": nn.Linear(6, 2)}


def trunk():
    return models.SimpleCNN(2, 6, 8).features


BUILDERS = {
    "HardParameterSharing": lambda: models.HardParameterSharing(EXPERT(), head()),
    "create_hard_sharing_model": lambda: models.create_hard_sharing_model(EXPERT(), {"only": ONE}),
    "MultiHead": lambda: models.MultiHead(EXPERT(), head()),
    "MultiInput": lambda: models.MultiInput({"points": EXPERT()}, head()),
    "Separate": lambda: models.Separate({"only": models.MLP(12, [7], 2)}),
    "SoftParameterSharing": lambda: models.SoftParameterSharing({"only": models.MLP(12, [7], 2)}),
    "create_soft_sharing_model": lambda: models.create_soft_sharing_model(12, {"only": ONE}),
    "CrossStitch": lambda: models.CrossStitch(EXPERT(), head(), TAPS),
    "Sluice": lambda: models.Sluice(EXPERT(), head(), TAPS, subspaces=7),
    "NDDR": lambda: models.NDDR(EXPERT(), head(), TAPS),
    "LearningToBranch": lambda: models.LearningToBranch(EXPERT(), head(), TAPS),
    "MTAN": lambda: models.MTAN(trunk(), {"only": models.ClassificationHead(64, 2)}, {"2": 32, "3": 64}),
    "MMoE": lambda: models.MMoE(EXPERT, head(), gate=12, num_experts=3),
    "CGC": lambda: models.CGC(EXPERT, head(), gate=12),
    "PLE": lambda: models.PLE([EXPERT, partial(models.MLP, 6, [], 6)], head(), gates=[12, 6]),
    "DSelectK": lambda: models.DSelectK(EXPERT, head(), num_experts=3),
    "FiLM": lambda: models.FiLM(EXPERT(), head(), TAPS),
    "LoRA": lambda: models.LoRA(EXPERT(), head(), 2, ["linear1"], train_backbone=True),
}
INPUTS = {"MTAN": torch.randn(5, 2, 8, 8), "MultiInput": {"points": torch.randn(5, 12)}}
builders = pytest.mark.parametrize("name", BUILDERS)


def built(name):
    torch.manual_seed(0)
    return BUILDERS[name](), INPUTS.get(name, torch.randn(5, 12))


def test_every_model_is_here():
    assert set(BUILDERS) == {case.method for case in MODELS}


@builders
def test_it_answers_by_name_by_place_and_in_a_dict(name):
    model, x = built(name)
    output = model.eval()(x)["only"]
    assert output.shape == (5, 2)
    assert torch.equal(output, model(x, "only"))
    assert torch.equal(output, model(x, 0))


@builders
def test_all_of_it_is_trained(name):
    model, x = built(name)
    model(x)["only"].square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.slow
@builders
def test_its_export_equals_eager(name):
    model, x = built(name)
    program = torch.export.export(model.eval(), (x,))
    torch.testing.assert_close(program.module()(x), model(x))
