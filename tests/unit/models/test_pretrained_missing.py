"""Without the optional packages, the package works and the backbones say what to install."""

import subprocess
import sys

import pytest

from polytask._errors import UserError
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
    assert message.startswith(f"{package}: is needed by this backbone.")
    assert message.endswith(f"Install polytask[{extra}].")


def test_an_unknown_pooling_names_the_nearest():
    with pytest.raises(UserError, match=r"pooling: is one of cls, mean, tokens.*Did you mean 'mean'"):
        HuggingFaceEncoder("bert-base-uncased", pooling="means")


def test_importing_the_models_imports_none_of_them():
    extras = "{'timm', 'torchvision', 'transformers'}"
    code = f"import sys, polytask.models; print(sorted({extras} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
