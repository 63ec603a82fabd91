"""The backbones of other packages, with the packages."""

import functools

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import HuggingFaceEncoder, LoRA, MultiHead, TimmBackbone, TorchvisionBackbone
from polytask.optim import parameter_groups

HEADS = {"a": 3, "b": 1}


def heads(features):
    return {task: nn.Linear(features, size) for task, size in HEADS.items()}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def bert(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12
    )
    torch.manual_seed(0)
    transformers.BertModel(config).eval().save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize(("name", "features"), [("resnet18", 512), ("mobilenetv3_small_050", 1024)])
def test_timm_features_are_as_many_as_said(name, features):
    pytest.importorskip("timm")
    backbone = TimmBackbone(name, in_channels=1).eval()
    assert backbone.output_dim == features
    assert backbone(torch.rand(2, 1, 32, 32)).shape == (2, features)


def test_timm_names_the_nearest_model():
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"must be a model of timm, got 'resnet18x'. Did you mean 'resnet18'"):
        TimmBackbone("resnet18x")


@pytest.mark.parametrize(
    ("name", "features", "size"),
    [("resnet18", 512, 32), ("mobilenet_v3_small", 1024, 32), ("vit_b_16", 768, 224)],
)
def test_torchvision_features_are_as_many_as_said(name, features, size):
    backbone = TorchvisionBackbone(name).eval()
    assert backbone.output_dim == features
    assert backbone(torch.rand(1, 3, size, size)).shape == (1, features)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet18x",), "must be a model of torchvision, got 'resnet18x'. Did you mean 'resnet18'"),
        (("zzzz",), r"must be a model of torchvision, got 'zzzz'. See torchvision's list_models\(\)"),
        (
            ("resnet18", "IMAGENET"),
            "weights that torchvision has for 'resnet18', got 'IMAGENET'. Did you mean 'IMAGENET1K_V1'",
        ),
        (("squeezenet1_0",), "must be a model that ends in a linear layer"),
    ],
)
def test_what_torchvision_cannot_give(arguments, message):
    with pytest.raises(UserError, match=message):
        TorchvisionBackbone(*arguments)


@pytest.mark.parametrize("pooling", ["cls", "mean", "tokens"])
def test_padding_does_not_change_a_text(bert, pooling):
    backbone = HuggingFaceEncoder(bert, pooling).eval()
    short = {"input_ids": torch.tensor([[3, 4, 5]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    padded = {
        "input_ids": torch.tensor([[3, 4, 5, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 0, 0]]),
    }
    one, other = backbone(short), backbone(padded)
    if pooling == "tokens":
        other = other[:, :3]
    assert one.shape[-1] == backbone.output_dim == 8
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(backbone(short["input_ids"]), one)


def test_an_encoder_of_feature_maps_is_an_error(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(num_stages=2, depths=[1, 1], hidden_sizes=[4, 8])
    transformers.ConvNextModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"output_dim: is required.*a ConvNextConfig without hidden_size"):
        HuggingFaceEncoder(str(tmp_path))
    backbone = HuggingFaceEncoder(str(tmp_path), output_dim=8)
    with pytest.raises(UserError, match=r"shape \(N, tokens, 8\), got shape \(2, 8, 4, 4\)"):
        backbone(torch.rand(2, 3, 32, 32))


def test_weights_are_loaded_or_not(bert):
    one, other = (HuggingFaceEncoder(bert).encoder.state_dict() for _ in range(2))
    fresh = HuggingFaceEncoder(bert, pretrained=False).encoder.state_dict()
    key = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(one[key], other[key])
    assert not torch.equal(one[key], fresh[key])


def test_a_name_that_transformers_cannot_load():
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=r"must be loadable by transformers, but 'no/such-model' is not"):
        HuggingFaceEncoder("no/such-model")


def test_lora_adapts_the_queries_of_an_encoder(bert):
    backbone = HuggingFaceEncoder(bert)
    model = LoRA(backbone, heads(8), 2, ["query", "value"]).eval()
    assert len(model.targets) == 4
    for adapter in model.adapters["a"]:
        nn.init.normal_(adapter.up)
    x = {"input_ids": torch.tensor([[3, 4, 5]])}
    expected = model(x)
    torch.testing.assert_close(model.merged("a")(x, "a"), expected["a"])
    torch.testing.assert_close(expected["b"], model.heads["b"](backbone(x)))


def test_a_backbone_has_a_learning_rate_of_its_own():
    backbone = TorchvisionBackbone("resnet18")
    groups = parameter_groups(MultiHead(backbone, heads(512)), {"backbone": {"lr": 1e-4}})
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-3)(groups)
    assert [(group["name"], group["lr"]) for group in optimizer.param_groups] == [
        ("rest", 1e-3),
        ("backbone", 1e-4),
    ]
