import sys

import pytest

from polytask.config import Config


def messages(node, project=None, **top):
    values = {"system": {"_target_": "pytorch_lightning.LightningModule"}, "vars": {"x": node}, **top}
    return [str(problem) for problem in Config.from_plain(values, where="x", project=project).problems()]


@pytest.mark.parametrize(
    ("node", "parts"),
    [
        ({"_target_": "torch.nn.Linaer"}, ["_target_", "'torch.nn' has no 'Linaer'", "'torch.nn.Linear'"]),
        ({"_target_": "torch.Linear"}, ["'torch' has no 'Linear'"]),
        ({"_target_": "torch.AdamW"}, ["'torch.optim.AdamW'"]),
        (
            {"_target_": "torchmetrics.DiceMetric"},
            ["no 'DiceMetric'", "'torchmetrics.segmentation.DiceScore'"],
        ),
        ({"_target_": "torchmetrics.Acuracy"}, ["'torchmetrics.Accuracy'"]),
        ({"_target_": "troch.nn.Linear"}, ["'troch.nn.Linear' cannot be imported", "'torch'"]),
        ({"_target_": "lightning.pytorch.Trainer"}, ["pytorch_lightning.Trainer"]),
        ({"_target_": "my.Net"}, ["no module 'my', and", "project: DIR"]),
        ({"_target_": "tasks.Net"}, ["no module 'tasks', and", "project: DIR"]),
        ({"_target_": "Net"}, ["dotted name", "'Net'"]),
        ({"_target_": 3}, ["dotted name", "3"]),
        ({"_target_": "torch.nn"}, ["the module 'torch.nn'"]),
        ({"_target_": "torch.nn.Linear", "in_features": 1}, ["needs the argument 'out_features'"]),
        (
            {"_target_": "torch.nn.Linear", "in_feature": 1, "out_features": 1},
            ["x.in_feature", "'in_features'"],
        ),
        ({"_target_": "torch.nn.Linear", "in_features": "two", "out_features": 1}, ["an integer", "'two'"]),
        ({"_target_": "torch.nn.Linear", "in_features": 1.5, "out_features": 1}, ["an integer", "1.5"]),
        ({"_target_": "torch.nn.Linear", "in_features": True, "out_features": 1}, ["an integer", "True"]),
        ({"_target_": "torch.nn.Linear", "in_features": [1], "out_features": 1}, ["an integer", "[1]"]),
        ({"_target_": "torch.nn.Linear", "in_features": None, "out_features": 1}, ["an integer", "None"]),
        ({"_target_": "torch.nn.Dropout", "p": "0.5"}, ["a number", "without quotes"]),
        ({"_target_": "torch.nn.Linear", "_args_": [1, 2, 3, 4, 5, 6, 7]}, ["_args_", "at most 5"]),
        ({"_target_": "torch.nn.Linear", "_args_": [1, 2], "in_features": 3}, ["given twice"]),
        ({"_target_": "torch.nn.LSTM", "input_siz": 1, "hidden_size": 2}, ["'input_size'"]),
        ({"_target_": "torch.nn.LSTM", "input_size": 1}, ["needs the argument 'hidden_size'"]),
        ({"_target_": "torch.optim.AdamW", "lrr": 1}, ["no argument 'lrr'", "'lr'"]),
        ({"_target_": "torch.optim.AdamW", "lr": "fast"}, ["x.lr", "a number", "'fast'"]),
        ({"_target_": "torch.optim.AdamW", "lr": "1e-3"}, ["without quotes"]),
        ({"_target_": "torch.optim.AdamW", "group": {}}, ["no argument 'group'", "'groups'"]),
        ({"_target_": "torch.optim.lr_scheduler.StepLR"}, ["needs the argument 'step_size'"]),
        (
            {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "intervall": "step"},
            ["'interval'"],
        ),
        (
            {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "interval": "day"},
            ["'epoch', 'step'"],
        ),
        (
            {"_target_": "torchmetrics.Accuracy", "task": "multiclass", "num_class": 3},
            ["x.num_class", "'num_classes'"],
        ),
        ({"_target_": "torchmetrics.Accuracy", "task": "multi"}, ["x.task", "'multiclass'"]),
        (
            {"_target_": "torchmetrics.Accuracy", "task": "multiclass"},
            ["x: 'torchmetrics.Accuracy'", "num_classes"],
        ),
        (
            {"_target_": "torchmetrics.MeanSquaredError", "squard": True},
            ["no argument 'squard'", "'squared'"],
        ),
        ({"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "moniter": "a"}, ["'monitor'"]),
        ({"_target_": "torch.nn.ReLU", "_partial_": "yes"}, ["x._partial_", "true or false"]),
        ({"_target_": "torch.nn.ReLU", "_args_": 1}, ["x._args_", "a list"]),
        ({"_traget_": "torch.nn.ReLU"}, ["no key '_traget_'", "'_target_'"]),
        ({"_partial_": True}, ["is allowed only next to a _target_"]),
        ({"_target_": "torch.float32", "dtype": 1}, ["is a value"]),
        ({"_target_": "pytorch_lightning.Trainer"}, ["under 'trainer' only"]),
        ({"_target_": "torchvision.transforms.ToTensor"}, ["torchvision"]),
    ],
)
def test_a_problem_names_the_key_and_the_fix(node, parts):
    found = messages(node)

    assert any(all(part in message for part in parts) for message in found), found
    assert all(message.startswith("x vars.x") and "\n" not in message for message in found), found


@pytest.mark.parametrize(
    ("top", "parts"),
    [
        ({"sead": 1}, ["x sead", "'seed'"]),
        ({"trainer": {"max_epochs": "many"}}, ["x trainer.max_epochs", "an integer or null", "'many'"]),
        ({"trainer": {"max_epoch": 1}}, ["x trainer.max_epoch", "'max_epochs'"]),
        ({"trainer": [1]}, ["x trainer", "a mapping"]),
        ({"trainer": {"_target_": "torch.nn.ReLU"}}, ["must be a pytorch_lightning.Trainer"]),
        ({"system": {"_target_": "torch.nn.ReLU"}}, ["must be a pytorch_lightning.LightningModule"]),
        ({"system": None}, ["x system", "a mapping"]),
        ({"vars": [1]}, ["x vars", "a mapping"]),
        ({"seed": "one"}, ["x seed", "an integer"]),
        ({"seed": -1}, ["x seed", "an integer"]),
        ({"seed": True}, ["x seed", "an integer"]),
    ],
)
def test_a_problem_at_the_top(top, parts):
    found = messages(1, **top)

    assert any(all(part in message for part in parts) for message in found), found


def test_a_config_without_a_system():
    problems = Config.from_plain({"seed": 1}, where="x").problems()

    assert [str(problem) for problem in problems] == [
        "x: the key 'system' is required. Add system: {model: ..., criterion: ..., optimizer: ...}."
    ]


def test_all_problems_come_at_once_with_their_lines(write):
    file = write(
        "sead: 1\n"
        "trainer: {max_epoch: 3}\n"
        "system:\n"
        "  _target_: pytorch_lightning.LightningModule\n"
        "vars:\n"
        "  a: $@vars.z\n"
        "  b: {_target_: torch.nn.Linaer}\n"
        "  c: {_target_: os.system}\n"
    )

    found = [str(problem).split(":")[1].split(" ")[0] for problem in Config.read([file]).problems()]

    assert sorted(found) == ["1", "2", "6", "7", "8"]


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "torch.nn.LSTM", "input_size": 1, "hidden_size": 2, "batch_first": True},
        {"_target_": "torch.nn.Conv2d", "_args_": [3, 4], "kernel_size": [3, 3], "padding": "same"},
        {"_target_": "torch.nn.Linear", "_partial_": True, "bias": False},
        {"_target_": "torch.nn.Linear", "in_features": "$@vars.n", "out_features": 2},
        {"_target_": "torch.optim.AdamW", "lr": 1, "betas": [0.9, 0.99], "groups": {"a": {"lr": 1}}},
        {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "monitor": "a", "interval": "epoch"},
        {
            "_target_": "torchmetrics.Accuracy",
            "task": "multiclass",
            "num_classes": 3,
            "sync_on_compute": False,
        },
        {"_target_": "torchmetrics.MetricCollection", "_args_": [[{"_target_": "torchmetrics.MeanMetric"}]]},
        {
            "_target_": "torch.utils.data.DataLoader",
            "dataset": {"_target_": "torch.utils.data.TensorDataset"},
        },
        {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "dirpath": "a", "save_top_k": 1},
    ],
)
def test_what_is_right_is_no_problem(node):
    assert messages({"y": node}, vars={"n": 3, "x": node}) == []


def test_own_code_is_compared_with_its_signature(project):
    found = messages({"_target_": "nets.own.Net", "widht": 3}, project)

    assert found == ["x vars.x.widht: Net has no argument 'widht'. Did you mean 'width'?"]


def test_keywords_are_followed_only_where_they_are_handed_on(project):
    (project / "more.py").write_text(
        "from torch import nn\n"
        "class Base(nn.Module):\n"
        "    def __init__(self, width: int = 1):\n"
        "        super().__init__()\n"
        "class Hands(Base):\n"
        "    def __init__(self, depth: int, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "class Keeps(Base):\n"
        "    def __init__(self, **options):\n"
        "        super().__init__()\n"
        "        self.options = options\n"
    )

    hands = messages({"_target_": "more.Hands", "depth": 1, "widht": 2}, project)
    keeps = messages({"_target_": "more.Keeps", "widht": 2}, project)

    assert len(hands) == 1
    assert "Did you mean 'width'?" in hands[0]
    assert keeps == []


def test_annotations_that_cannot_be_evaluated_are_no_problem(project):
    (project / "more.py").write_text(
        "from __future__ import annotations\n"
        "def make(a: Unknown, b: int = 1, c: 'list[int]' = ()):\n"
        "    return a\n"
    )

    assert messages({"_target_": "more.make", "a": 1, "b": 2}, project) == []
    assert (
        "x vars.x.b: must be an integer" in messages({"_target_": "more.make", "a": 1, "b": "x"}, project)[0]
    )


def test_nothing_but_metrics_is_constructed(project):
    (project / "more.py").write_text(
        "from torch import nn\n"
        "from torch.utils.data import Dataset\n"
        "class Data(Dataset):\n"
        "    def __init__(self): raise RuntimeError('touched')\n"
        "class Model(nn.Module):\n"
        "    def __init__(self, **kwargs): raise RuntimeError('touched')\n"
    )

    assert messages([{"_target_": "more.Data"}, {"_target_": "more.Model", "a": 1}], project) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "import not_a_package_of_anyone\n",
            ["broken.py:1", "ModuleNotFoundError", "pip install not_a_package_of_anyone"],
        ),
        ("\nx = 1 / 0\n", ["broken.py:2", "ZeroDivisionError"]),
        ("\n\ndef f(:\n", ["broken.py:3", "SyntaxError"]),
    ],
)
def test_own_code_that_cannot_be_imported(project, text, parts):
    (project / "broken.py").write_text(text)

    found = messages({"_target_": "broken.f"}, project)

    assert len(found) == 1
    assert all(part in found[0] for part in parts), found
    assert "\n" not in found[0]


def test_a_name_that_is_imported_when_asked_for(project):
    (project / "lazy.py").write_text("def __getattr__(name):\n    raise ImportError('not today')\n")

    assert "ImportError: not today" in messages({"_target_": "lazy.thing"}, project)[0]


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "timm", None)

    assert 'pip install "polytask[vision]"' in messages({"_target_": "torchvision.models.resnet18"})[0]
    assert "pip install timm" in messages({"_target_": "timm.create_model"})[0]
