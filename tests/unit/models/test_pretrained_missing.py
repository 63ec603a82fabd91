"""Without the optional packages, the package works and the backbones say what to install."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import HuggingFaceEncoder, TimmBackbone, TorchvisionBackbone


@pytest.mark.parametrize(
    ("package", "backbone", "name", "extra"),
    [
        ("timm", TimmBackbone, "resnet18", "timm"),
        ("torchvision", TorchvisionBackbone, "resnet18", "vision"),
        ("transformers", HuggingFaceEncoder, "bert-base-uncased", "transformers"),
    ],
)
def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch, package, backbone, name, extra):
    for module in (package, f"{package}.models"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as caught:
        backbone(name)
    message = str(caught.value)
    assert message.startswith(f"{package}: must be installed for this backbone, got no module")
    assert message.endswith(f"Install polytask[{extra}].")


def test_an_unknown_pooling_names_the_nearest():
    with pytest.raises(UserError, match=r"pooling: must be one of cls, mean, tokens.*Did you mean 'mean'"):
        HuggingFaceEncoder("bert-base-uncased", pooling="means")


class Encoder(nn.Module):
    """In place of one of transformers: returns what it is given, and has that configuration."""

    def __init__(self, config, returned):
        super().__init__()
        self.config, self.returned = SimpleNamespace(**config), returned

    def forward(self, x):
        return self.returned


def encoder(monkeypatch, config, returned=None, **options):
    model = SimpleNamespace(from_pretrained=lambda name: Encoder(config, returned))
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoModel=model))
    return HuggingFaceEncoder("any", **options)


def last(*shape):
    return SimpleNamespace(last_hidden_state=torch.zeros(shape))


def test_the_size_of_a_token_is_read_or_given(monkeypatch):
    assert encoder(monkeypatch, {"hidden_size": 8}).output_dim == 8
    given = encoder(monkeypatch, {"dim": 6}, last(2, 5, 6), output_dim=6)
    assert given.output_dim == 6
    assert given(torch.zeros(2, 5)).shape == (2, 6)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (
            {"hidden_sizes": [4, 8]},
            {},
            "output_dim: is required for this encoder, got .* without hidden_size",
        ),
        ({"hidden_size": [4, 8]}, {}, r"output_dim: must be an integer of at least 1, got \[4, 8\]"),
        ({"hidden_size": 8}, {"output_dim": 0}, "output_dim: must be an integer of at least 1, got 0"),
    ],
)
def test_a_size_that_is_missing_or_is_none(monkeypatch, config, options, message):
    with pytest.raises(UserError, match=message):
        encoder(monkeypatch, config, **options)


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (last(2, 8, 7, 7), r"shape \(2, 8, 7, 7\)"),
        (last(2, 5, 6), r"shape \(2, 5, 6\)"),
        ({"logits": 1}, "a dict"),
    ],
)
def test_an_encoder_that_returns_no_tokens_of_that_size(monkeypatch, returned, found):
    backbone = encoder(monkeypatch, {"hidden_size": 8}, returned)
    with pytest.raises(
        UserError,
        match=rf"last_hidden_state of the encoder must have the shape \(N, tokens, 8\), got {found}",
    ):
        backbone(torch.zeros(2, 5))


@pytest.mark.slow
def test_importing_the_models_imports_none_of_them():
    extras = "{'timm', 'torchvision', 'transformers'}"
    code = f"import sys, polytask.models; print(sorted({extras} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
