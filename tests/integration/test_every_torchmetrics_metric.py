"""Every public class of torchmetrics in a config, with missing labels: its value on the rest, or an error."""

import functools
import importlib
import inspect
import json
from pathlib import Path

import pytest
import torch
import torchmetrics
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from polytask import System, UserError
from polytask.adapters import BatchAdapter
from polytask.config import Config
from polytask.losses import MultiTaskLoss

TABLE = json.loads((Path(__file__).parents[1] / "data" / "torchmetrics.json").read_text())
ROOMS = (
    *("aggregation", "audio", "classification", "clustering", "detection", "image", "multimodal", "nominal"),
    *("regression", "retrieval", "segmentation", "shape", "text", "video", "wrappers"),
)
# What classes require, or would not be useful without.
OPTIONS = {
    "num_classes": 3,
    "num_labels": 3,
    "num_groups": 2,
    "beta": 1.0,
    "threshold": 0.5,
    "p": 3,
    "min_precision": 0.5,
    "min_recall": 0.5,
    "min_sensitivity": 0.5,
    "min_specificity": 0.5,
    "data_range": 1.0,
    "things": [0],
    "stuffs": [1],
    "task": "binary",
}
SAMPLE = {"MeanSquaredError", "MultilabelAUROC", "JaccardIndex", "R2Score", "RetrievalMAP", "BLEUScore"}
pytestmark = pytest.mark.filterwarnings("ignore")


def classes():
    found = {}
    for name in ("torchmetrics", *(f"torchmetrics.{room}" for room in ROOMS)):
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if not key.startswith("_") and inspect.isclass(value) and issubclass(value, torchmetrics.Metric):
                found.setdefault(key, value)
    return found


def arguments(name, **options):
    """What the class is called with."""
    cls = classes()[name]
    made = cls.__new__ if "task" in inspect.signature(cls.__new__).parameters else cls.__init__
    parameters = inspect.signature(made).parameters
    required = {key for key, one in parameters.items() if one.default is inspect.Parameter.empty}
    needed = {"num_classes"} if name.startswith("Multiclass") else set()
    task = {"task": "multiclass", "num_classes": 3} if name == "ExactMatch" else {}
    options |= task
    given = {key: OPTIONS[key] for key in OPTIONS if key in (required | needed) - set(task)}
    return given | {key: value for key, value in options.items() if key in parameters}


def build(name, **options):
    return classes()[name](**arguments(name, **options))


def configured(name):
    """The metric as a config has it."""
    module = "torchmetrics" if hasattr(torchmetrics, name) else classes()[name].__module__
    entry = {"_target_": f"{module}.{name}", **arguments(name)}
    plain = {"system": {"metrics": {"a": {"m": entry}}}}
    return Config.from_plain(plain, where="config.yaml").build("system.metrics")


def data(kind):
    generator = torch.Generator().manual_seed(0)
    rand = functools.partial(torch.rand, generator=generator)
    integers = functools.partial(torch.randint, generator=generator)
    return {
        "binary": lambda: (rand(24), integers(0, 2, (24,))),
        "labels": lambda: (rand(24, 3), integers(0, 2, (24, 3))),
        "maps": lambda: (torch.softmax(3 * rand(24, 3, 4, 4), dim=1), integers(0, 3, (24, 4, 4))),
        "classes": lambda: (torch.softmax(3 * rand(24, 3), dim=1), integers(0, 3, (24,))),
        "vectors": lambda: (rand(24, 3) + 0.1, rand(24, 3) + 0.1),
        "values": lambda: (rand(24) + 0.1, rand(24) + 0.1),
        "codes": lambda: (integers(0, 3, (24,)), integers(0, 3, (24,))),
        "masks": lambda: (integers(0, 3, (24, 4, 4)), integers(0, 3, (24, 4, 4))),
        "images": lambda: (rand(24, 3, 32, 32), rand(24, 3, 32, 32)),
        "clusters": lambda: (rand(24, 3), integers(0, 3, (24,))),
        "signals": lambda: (rand(24, 200), rand(24, 200)),
        "sources": lambda: (rand(24, 2, 100), rand(24, 2, 100)),
        "spectra": lambda: (rand(24, 1, 20, 20, 2), rand(24, 1, 20, 20, 2)),
        "points": lambda: (rand(24, 6, 3), rand(24, 6, 3)),
        "tokens": lambda: (rand(24, 5, 4), integers(0, 4, (24, 5))),
        "panoptic": lambda: (integers(0, 2, (24, 4, 4, 2)), integers(0, 2, (24, 4, 4, 2))),
    }[kind]()


def missing(target, gaps):
    marked = target.float().masked_fill(gaps, torch.nan)
    return marked if target.is_floating_point() else target.masked_fill(gaps, -100)


class First(nn.Module):
    """Its input is its output."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return {"a": x if not x.is_floating_point() else x + 0 * self.weight}


class Zero(nn.Module):
    """A loss for any output and target."""

    def forward(self, output, target):
        values = output.float() * 0
        if values.shape == target.shape:
            return values
        # Scores by class are in dimension 1, or in the last.
        return values.select(-1 if values.shape[: target.ndim] == target.shape else 1, 0)


def fitted(name, output, target):
    """The values of the check before a training, and the steps that were made before an error."""
    loader = DataLoader(TensorDataset(output, target), batch_size=10)
    system = System(
        First(),
        MultiTaskLoss({"a": Zero()}),
        functools.partial(torch.optim.SGD, lr=0.0),
        metrics=configured(name),
        adapters={"batch": BatchAdapter(0, {"a": 1})},
    )
    silent = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    trainer = Trainer(accelerator="cpu", max_epochs=1, num_sanity_val_steps=-1, **silent)
    try:
        values = trainer.validate(system, loader, verbose=False)[0]
    except UserError:
        with pytest.raises(UserError):
            trainer.fit(system, loader, loader)
        assert trainer.global_step == 0
        raise
    return [value for key, value in values.items() if key.startswith("val/a/m")]


def numbers(value):
    if isinstance(value, dict):
        return [number for entry in value.values() for number in numbers(entry)]
    return torch.as_tensor(value, dtype=torch.float64).flatten().tolist()


def of_rows(name, kind):
    """Whether the value with whole rows missing is that of the other rows; or the error's beginning."""
    output, target = data(kind)
    gaps = torch.zeros_like(target, dtype=torch.bool)
    gaps[::5] = True
    try:
        found = fitted(name, output, missing(target, gaps))
    except UserError as error:
        return "refused: " + error.rule.split(" on (")[0]
    rest = ~gaps.flatten(1).any(dim=1) if gaps.ndim > 1 else ~gaps
    metric = build(name)
    metric.update(output[rest], target[rest])
    return "equal" if found == pytest.approx(numbers(metric.compute()), rel=1e-4, nan_ok=True) else "differs"


def of_elements(name, kind):
    """The same with single elements missing, and the value on the others."""
    output, target = data(kind)
    gaps = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.2
    gaps[0], gaps[1] = True, False
    try:
        found = fitted(name, output, missing(target, gaps))
    except UserError as error:
        return "refused: " + error.rule.split(" on (")[0]
    metric = build(name, ignore_index=-1)
    if getattr(metric, "ignore_index", None) == -1 and kind == "labels":
        metric.update(output[1:], target.masked_fill(gaps, -1)[1:])
    else:
        last = output.movedim(1, -1) if kind == "maps" else output
        parts = last[~gaps], target[~gaps]
        metric = build(name)
        metric.update(*(part.unsqueeze(0) if kind == "tokens" else part for part in parts))
    return "equal" if found == pytest.approx(numbers(metric.compute()), rel=1e-4, nan_ok=True) else "differs"


def test_every_class_has_a_row():
    assert sorted(classes()) == sorted(TABLE)


@pytest.mark.parametrize(
    "name", [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.long) for name in TABLE]
)
def test_a_class_is_equal_or_refused_before_training(name):
    row = TABLE[name]
    if "reason" in row:
        assert row["reason"]
        return
    assert of_rows(name, row["kind"]) == row["rows"]
    if "elements" in row:
        assert of_elements(name, row["kind"]) == row["elements"]
