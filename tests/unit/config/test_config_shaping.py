"""Which keys decide whether a checkpoint is of a config."""

import copy

import pytest

from polytask.config import closest, shaping

BATCH = {"_target_": "polytask.adapters.BatchAdapter", "input_accessor": 0}
CONFIG = {
    "project": "/a",
    "seed": 0,
    "trainer": {"_target_": "pytorch_lightning.Trainer", "precision": "32-true", "max_epochs": 3},
    "vars": {
        "net": {"_target_": "net.Net", "width": 4, "head": "$@vars.head"},
        "head": {"bias": True},
        "n": 1,
    },
    "system": {
        "model": "$@vars.net",
        "criterion": {"task_losses": {"a": {"reduction": "mean"}}},
        "optimizer": {"lr": 0.1},
        "scheduler": {"gamma": 0.1},
        "refresh_every": 1,
        "metrics": {"a": {"_target_": "torchmetrics.MeanSquaredError"}},
        "adapters": {"batch": BATCH, "logging": {"transforms": []}},
        "dataloaders": {
            "train": {"batch_size": 4, "num_workers": 0, "dataset": {"rows": 8}},
            "val": {"batch_size": 4},
            "test": {"batch_size": 4},
            "predict": {"batch_size": 4},
        },
    },
}


def decides(config, key, value):
    other = copy.deepcopy(config)
    *path, name = key.split(".")
    node = other
    for part in path:
        node = node[part]
    node[name] = value
    differing = closest(config, other)
    assert differing == [key]
    return shaping(differing, config, other) == [key]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("vars.net.width", 8),
        ("vars.head.bias", False),
        ("system.model", "$@vars.head"),
        ("system.criterion.task_losses.a.reduction", "sum"),
        ("system.optimizer.lr", 0.2),
        ("system.scheduler.gamma", 0.2),
        ("system.refresh_every", 2),
        ("system.adapters.batch.input_accessor", 1),
        ("system.dataloaders.train.batch_size", 8),
        ("system.dataloaders.train.dataset.rows", 9),
    ],
)
def test_what_shapes_the_weights(key, value):
    assert decides(CONFIG, key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project", "/b"),
        ("trainer.precision", "16-mixed"),
        ("trainer.max_epochs", 5),
        ("vars.n", 2),
        ("system.metrics.a._target_", "torchmetrics.MeanAbsoluteError"),
        ("system.adapters.logging.transforms", ["a"]),
        ("system.dataloaders.train.num_workers", 2),
        ("system.dataloaders.val.batch_size", 8),
        ("system.dataloaders.test.batch_size", 8),
        ("system.dataloaders.predict.batch_size", 8),
    ],
)
def test_what_does_not(key, value):
    assert not decides(CONFIG, key, value)


def test_adapters_by_stage_and_loaders_by_reference():
    config = copy.deepcopy(CONFIG)
    config["system"]["adapters"] = {"train": {"batch": dict(BATCH)}, "predict": {"batch": dict(BATCH)}}
    config["vars"]["loaders"] = config["system"]["dataloaders"]
    config["system"]["dataloaders"] = "$@vars.loaders"
    assert decides(config, "system.adapters.train.batch.input_accessor", 1)
    assert not decides(config, "system.adapters.predict.batch.input_accessor", 1)
    assert decides(config, "vars.loaders.train.batch_size", 1)
    assert not decides(config, "vars.loaders.predict.batch_size", 1)


def test_a_part_that_one_of_two_configs_has():
    other = copy.deepcopy(CONFIG)
    del other["system"]["dataloaders"]["predict"], other["system"]["scheduler"]
    differing = closest(CONFIG, other)
    assert set(differing) == {"system.dataloaders.predict", "system.scheduler"}
    assert shaping(differing, CONFIG, other) == ["system.scheduler"]
