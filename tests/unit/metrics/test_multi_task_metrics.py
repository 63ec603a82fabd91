import functools
import math
import pickle

import numpy as np
import pytest
import torch
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

from polytask import UserError
from polytask.metrics import FunctionMetric, MultiTaskMetrics, accuracy

TASKS = ("shape", "height")


def mean_error(predictions, targets):
    assert predictions.shape == targets.shape
    return float(np.abs(predictions - targets).mean())


def batch(rows=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "shape": torch.randn(rows, 3, generator=generator),
        "height": torch.randn(rows, 1, generator=generator),
    }
    targets = {
        "shape": torch.randint(0, 3, (rows,), generator=generator),
        "height": torch.randn(rows, generator=generator),
    }
    return outputs, targets


def arrays(values):
    return {name: value.numpy() for name, value in values.items()}


@pytest.mark.parametrize("form", [dict, arrays])
def test_functions_see_all_rows_at_once(form):
    metrics = MultiTaskMetrics(TASKS, {"shape": accuracy, "height": mean_error})
    parts = [batch(6, 0), batch(2, 1)]
    for outputs, targets in parts:
        metrics.update(form(outputs), form(targets))
    right = torch.cat([outputs["shape"].argmax(1) == targets["shape"] for outputs, targets in parts])
    error = torch.cat([(outputs["height"][:, 0] - targets["height"]).abs() for outputs, targets in parts])
    expected = {"shape/accuracy": right.float().mean().item(), "height/mean_error": error.mean().item()}
    assert metrics.compute() == pytest.approx(expected)
    assert metrics.compute_task_metric("height") == pytest.approx(error.mean().item())


def test_functions_and_torchmetrics_stand_side_by_side():
    given = {
        "shape": [accuracy, MulticlassAccuracy(3, average="micro")],
        "height": {"mse": MeanSquaredError()},
    }
    metrics = MultiTaskMetrics(TASKS, given)
    metrics.update(*batch())
    values = metrics.compute()
    assert values["shape/accuracy"] == pytest.approx(values["shape/Accuracy"])
    assert metrics.compute_task_metric("shape") == {
        "accuracy": values["shape/accuracy"],
        "Accuracy": values["shape/Accuracy"],
    }
    assert metrics.compute_task_metric("height") == values["height/mse"]


def test_missing_labels_are_left_out():
    outputs, targets = batch()
    targets["shape"][1:] = -100
    targets["height"][:5] = math.nan
    metrics = MultiTaskMetrics(TASKS, {"shape": accuracy, "height": mean_error})
    metrics.update(outputs, targets)
    assert metrics.compute_task_metric("shape") in (0.0, 1.0)
    expected = abs(outputs["height"][5, 0] - targets["height"][5]).item()
    assert metrics.compute_task_metric("height") == pytest.approx(expected)


def test_a_task_that_is_absent_changes_nothing():
    metrics = MultiTaskMetrics(TASKS, {"shape": accuracy, "height": mean_error})
    outputs, targets = batch()
    metrics.update(outputs, {"shape": targets["shape"]})
    assert set(metrics.compute()) == {"shape/accuracy"}
    with pytest.raises(UserError, match="task 'height': must have a row for its metric"):
        metrics.compute_task_metric("height")


def test_losses_are_means_over_labels():
    outputs, targets = batch()
    targets["height"][2:] = math.nan
    metrics = MultiTaskMetrics(TASKS)
    metrics.update(outputs, targets, {"shape": 1.0, "height": torch.tensor(4.0)})
    metrics.update(*batch(2), {"shape": np.float64(3.0), "height": 0.0, "total": 10.0})
    values = metrics.compute()
    assert values == pytest.approx(
        {"loss/shape": (6 + 6) / 8, "loss/height": 8 / 4, "loss/total": (5 * 6 + 10 * 2) / 8}
    )


def test_reset_forgets():
    metrics = MultiTaskMetrics(TASKS, {"shape": accuracy})
    metrics.update(*batch(), {"shape": 1.0})
    metrics.reset()
    assert metrics.compute() == {}
    metrics.update(*batch(2))
    assert 0 <= metrics.compute_task_metric("shape") <= 1


def test_metrics_are_pickled_with_their_rows():
    metrics = MultiTaskMetrics(TASKS, {"shape": accuracy})
    metrics.update(*batch())
    assert pickle.loads(pickle.dumps(metrics)).compute() == metrics.compute()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MultiTaskMetrics(["loss"]), "'loss' is a word that log keys use"),
        (
            lambda: MultiTaskMetrics(TASKS, {"shap": accuracy}),
            "metric_fns: no task is called 'shap'. Did you mean",
        ),
        (lambda: MultiTaskMetrics(TASKS, {"shape": 3}), "metrics.shape.int: must be a torchmetrics.Metric"),
        (lambda: MultiTaskMetrics(TASKS, {"shape": MeanSquaredError}), "must be a torchmetrics.Metric"),
        (lambda: MultiTaskMetrics(TASKS).compute_task_metric("shape"), "task 'shape': must have a metric"),
        (lambda: MultiTaskMetrics(TASKS).compute_task_metric("size"), "no task is called 'size'"),
        (
            lambda: MultiTaskMetrics(TASKS).update({}, {"shape": [1]}),
            "predictions are required for its targets",
        ),
        (
            lambda: MultiTaskMetrics(TASKS).update({"shape": [1, 2]}, {"shape": [1]}),
            r"\(2,\) and targets \(1,\)",
        ),
        (
            lambda: MultiTaskMetrics(TASKS).update({"size": [1]}, {"shape": [1]}),
            "predictions: no task is called",
        ),
        (lambda: MultiTaskMetrics(TASKS).update([1], [1]), "predictions: are a dict by task, got list"),
        (lambda: MultiTaskMetrics(TASKS).update(*batch(), {"size": 1.0}), "losses: no task is called 'size'"),
    ],
)
def test_what_cannot_be_used(call, message):
    with pytest.raises(UserError, match=message):
        call()


# ---- accuracy ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predictions", "targets", "expected"),
    [
        ([[0.1, 0.9], [0.8, 0.2]], [1, 1], 0.5),
        ([1, 0, 2], [[1], [0], [0]], 2 / 3),
        ([1.0, 0.0], np.array([1, 1], dtype=np.int8), 0.5),
        (["a", "b"], ["a", "a"], 0.5),
        ([[1], [0]], [1, 0], 1.0),
        ([[1, 0], [1, 1]], [[1, 1], [1, 1]], 0.75),
        (np.eye(3)[None].repeat(2, 0), [[0, 1, 2], [0, 1, 1]], 5 / 6),
        ([True, False], [1, 0], 1.0),
    ],
)
def test_accuracy(predictions, targets, expected):
    value = accuracy(predictions, targets)
    assert type(value) is float
    assert value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        ([0.3, 0.8], [0, 1], "predictions of the targets' shape must be classes, got the number 0.3"),
        ([1, 2, 3], [1, 2], r"got predictions \(3,\) and targets \(2,\)"),
        ([[1, 2]], [[1, 2, 3]], r"\(1, 2\) and targets \(1, 3\)"),
        ([], [], "must have a class"),
        (1, 1, "must have a class"),
    ],
)
def test_accuracy_of_what_is_none(predictions, targets, message):
    with pytest.raises(UserError, match=message):
        accuracy(predictions, targets)


# ---- functions as metrics ---------------------------------------------------------------------


def test_a_function_is_called_by_its_name():
    assert FunctionMetric(functools.partial(functools.partial(mean_error))).name == "mean_error"
    assert FunctionMetric(accuracy, "top").name == "top"


def test_a_function_gets_float32_of_half_precision():
    metric = FunctionMetric(lambda p, t: p.dtype == np.float32)
    metric.update(torch.ones(1, dtype=torch.bfloat16), torch.ones(1))
    with pytest.raises(TypeError, match="must return a number, got True"):
        metric.compute()


def test_a_function_metric_starts_anew():
    metric = FunctionMetric(mean_error)
    metric.update(torch.ones(2), torch.zeros(2))
    assert metric.compute() == 1
    metric.reset()
    metric.update(torch.zeros(2), torch.zeros(2))
    assert metric.compute() == 0
