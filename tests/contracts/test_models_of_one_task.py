"""Every model serves one task alone as well."""

from functools import partial

import pytest
import torch
from torch import nn

from polytask.models import (
    CGC,
    MLP,
    MTAN,
    NDDR,
    PLE,
    ClassificationHead,
    CrossStitch,
    DSelectK,
    FiLM,
    HardParameterSharing,
    LearningToBranch,
    LoRA,
    MMoE,
    MultiHead,
    MultiInput,
    Separate,
    SimpleCNN,
    Sluice,
    SoftParameterSharing,
    create_hard_sharing_model,
    create_soft_sharing_model,
)
from tests.cases import MODELS

EXPERT = partial(MLP, 12, [7], 6)
TAPS = {"layers.activation1": 7}
ONE = {"output_dim": 2}


def head():
    return {"only": nn.Linear(6, 2)}


def trunk():
    return SimpleCNN(2, 6, 8).features


BUILDERS = {
    "HardParameterSharing": lambda: HardParameterSharing(EXPERT(), head()),
    "create_hard_sharing_model": lambda: create_hard_sharing_model(EXPERT(), {"only": ONE}),
    "MultiHead": lambda: MultiHead(EXPERT(), head()),
    "MultiInput": lambda: MultiInput({"points": EXPERT()}, head()),
    "Separate": lambda: Separate({"only": MLP(12, [7], 2)}),
    "SoftParameterSharing": lambda: SoftParameterSharing({"only": MLP(12, [7], 2)}),
    "create_soft_sharing_model": lambda: create_soft_sharing_model(12, {"only": ONE}),
    "CrossStitch": lambda: CrossStitch(EXPERT(), head(), TAPS),
    "Sluice": lambda: Sluice(EXPERT(), head(), TAPS, subspaces=7),
    "NDDR": lambda: NDDR(EXPERT(), head(), TAPS),
    "LearningToBranch": lambda: LearningToBranch(EXPERT(), head(), TAPS),
    "MTAN": lambda: MTAN(trunk(), {"only": ClassificationHead(64, 2)}, {"2": 32, "3": 64}),
    "MMoE": lambda: MMoE(EXPERT, head(), gate=12, num_experts=3),
    "CGC": lambda: CGC(EXPERT, head(), gate=12),
    "PLE": lambda: PLE([EXPERT, partial(MLP, 6, [], 6)], head(), gates=[12, 6]),
    "DSelectK": lambda: DSelectK(EXPERT, head(), num_experts=3),
    "FiLM": lambda: FiLM(EXPERT(), head(), TAPS),
    "LoRA": lambda: LoRA(EXPERT(), head(), 2, ["linear1"], train_backbone=True),
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
