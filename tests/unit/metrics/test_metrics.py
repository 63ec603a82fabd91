import functools
import io

import pytest
import torch
import torchmetrics
from torch import nn
from torchmetrics import MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelAccuracy,
)
from torchmetrics.regression import PearsonCorrCoef, R2Score
from torchmetrics.segmentation import DiceScore
from torchmetrics.wrappers import ClasswiseWrapper, MinMaxMetric

from polytask import UserError
from polytask.adapters import MetricsAdapter
from polytask.batch import Labels
from polytask.losses import Targets
from polytask.metrics import StageMetrics, metric_names
from polytask.metrics import _stage_metrics as module

SIZES = (5, 1, 8, 3)


def scores(rows):
    return torch.randn(rows, 4), torch.arange(rows) % 4


def values(rows):
    return torch.randn(rows), torch.randn(rows)


def binary(rows):
    return torch.rand(rows), (torch.arange(rows) % 2)


def masks(rows):
    return torch.randn(rows, 4, 3, 2), torch.randint(0, 4, (rows, 3, 2))


def labels(rows):
    return torch.rand(rows, 4), torch.randint(0, 2, (rows, 4)).float()


def overlapping(rows):
    return torch.randint(0, 4, (rows, 3, 2)), torch.randint(0, 4, (rows, 3, 2))


CASES = {
    "accuracy": (functools.partial(MulticlassAccuracy, 4), scores),
    "accuracy-micro": (functools.partial(MulticlassAccuracy, 4, average="micro"), scores),
    "f1": (functools.partial(MulticlassF1Score, 4), scores),
    "auroc": (functools.partial(MulticlassAUROC, 4), scores),
    "auroc-thresholds": (functools.partial(MulticlassAUROC, 4, thresholds=20), scores),
    "auroc-binary": (BinaryAUROC, binary),
    "jaccard": (functools.partial(MulticlassJaccardIndex, 4), masks),
    "dice": (functools.partial(DiceScore, 4, input_format="index"), overlapping),
    "multilabel": (functools.partial(MultilabelAccuracy, 4), labels),
    "mse": (MeanSquaredError, values),
    "r2": (R2Score, values),
    "pearson": (PearsonCorrCoef, values),
    "classwise": (lambda: ClasswiseWrapper(MulticlassAccuracy(4, average=None)), scores),
    "minmax": (lambda: MinMaxMetric(MeanSquaredError()), values),
    "vector": (functools.partial(MulticlassAccuracy, 4, average=None), scores),
    "sum": (lambda: MeanSquaredError() + 1, values),
    "factory": (functools.partial(torchmetrics.Accuracy, task="multiclass", num_classes=4), scores),
}
cases = pytest.mark.parametrize("name", CASES)
# Some add up in another order where rows come at once.
close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)

pytestmark = pytest.mark.filterwarnings(
    "ignore:Metric `.*` will save all targets", "ignore:No .* samples in targets"
)


def steps(name, sizes=SIZES):
    torch.manual_seed(0)
    return [CASES[name][1](rows) for rows in sizes]


def fed(metrics, rows, task="a"):
    for output, target in rows:
        metrics.add(task, None, output, target, None)
    return metrics


def stage(given, **options):
    return StageMetrics({"a": given}, **options)


def reference(metric, rows):
    for output, target in rows:
        metric.update(output, target.long() if isinstance(metric, MultilabelAccuracy) else target)
    value = metric.compute()
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if value.ndim else [value]


# Values


@cases
def test_many_steps_at_once_equal_an_update_for_each(name):
    build, rows = CASES[name][0], steps(name)
    found = fed(stage(build()), rows).compute()
    close(list(found.values()), reference(build(), rows))


@pytest.mark.parametrize(
    "name", [name for name in CASES if name != "minmax"]
)  # Its extremes are of readings.
def test_reading_between_steps_changes_nothing(name):
    build, rows = CASES[name][0], steps(name)
    metrics = stage(build())
    fed(metrics, rows[:2]).step_values()
    fed(metrics, rows[2:3]).update()
    fed(metrics, rows[3:]).step_values()
    close(list(metrics.compute().values()), reference(build(), rows))


def test_step_values_are_those_of_the_rows_since_the_last():
    rows = steps("mse")
    metrics = stage(MeanSquaredError())
    fed(metrics, rows[:2]).step_values()
    found = fed(metrics, rows[2:]).step_values()
    close(list(found.values()), reference(MeanSquaredError(), rows[2:]))
    assert metrics.step_values() == {}


def test_an_epoch_without_rows_has_no_values():
    metrics = StageMetrics({"a": MeanSquaredError(), "b": MeanSquaredError()})
    assert metrics.compute() == {}
    metrics.add("a", None, torch.ones(2), torch.zeros(2), None)
    assert metrics.compute() == {"a/MeanSquaredError": 1}
    metrics.reset()
    assert metrics.compute() == {}
    assert metrics.step_values() == {}


def test_without_metrics_nothing_is_kept():
    metrics = StageMetrics({})
    metrics.add("a", None, torch.ones(2), torch.zeros(2), None)
    assert (metrics.compute(), metrics.log_keys(), metrics.bytes) == ({}, [], 0)


def labels_of(target, ignore_index=-100):
    return Targets.count({"a": target}, {"a": ignore_index}).partial.get("a")


def test_only_labelled_rows_are_seen():
    metrics = stage(MeanSquaredError())
    target = torch.tensor([0.0, float("nan")])
    metrics.add("a", None, torch.tensor([1.0, 5.0]), target, labels_of(target))
    metrics.add("a", None, torch.tensor([7.0]), target[1:], Labels.of(~target[1:].isnan()))
    assert metrics.compute() == {"a/MeanSquaredError": 1}


def test_only_rows_without_a_label_are_no_rows():
    metrics = stage(MeanSquaredError())
    metrics.add("a", None, torch.ones(1), torch.ones(1), Labels.of(torch.tensor([False])))
    assert metrics.compute() == {}


class Recorder(Metric):
    """Keeps the arguments of its updates."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.calls = []

    def update(self, *args, **kwargs):
        self.calls.append((args, kwargs))

    def compute(self):
        return torch.tensor(float(len(self.calls)))


def test_steps_of_one_shape_are_one_update_and_others_their_own():
    recorder = Recorder()
    metrics = stage(recorder)
    for size in (2, 2, 3, 3, 2):
        metrics.add("a", None, torch.ones(4, size), torch.ones(4, size), None)
    assert metrics.compute() == {"a/Recorder": 3}
    assert [tuple(args[0].shape) for args, _ in recorder.calls] == [(8, 2), (8, 3), (4, 2)]


def test_dicts_and_tuples_of_tensors_are_joined():
    recorder = Recorder()
    metrics = stage(recorder)
    for i in range(2):
        output = {"boxes": torch.full((1, 4), float(i)), "pair": (torch.zeros(1), torch.ones(1))}
        metrics.add("a", None, output, torch.tensor([i]), None)
    metrics.update()
    ((output, target), _) = recorder.calls[0]
    assert output["boxes"].shape == (2, 4)
    assert [part.tolist() for part in output["pair"]] == [[0, 0], [1, 1]]
    assert target.tolist() == [0, 1]


def test_what_is_no_tensor_is_an_update_of_its_own():
    recorder = Recorder()
    metrics = stage(recorder)
    for words in (["a b", "c"], ["d"]):
        metrics.add("a", None, words, words, None)
    metrics.update()
    assert [args[0] for args, _ in recorder.calls] == [["a b", "c"], ["d"]]


def test_outputs_are_kept_without_their_graph():
    metrics = stage(Recorder())
    output = torch.ones(2, requires_grad=True) * 2
    metrics.add("a", None, {"x": output, "y": [output], "z": (output, None)}, torch.ones(2), None)
    ((_, kept, *_),) = metrics.rows["a"]
    assert not any(value.requires_grad for value in (kept["x"], kept["y"][0], kept["z"][0]))


@pytest.mark.parametrize("nested", [False, True])
def test_what_is_kept_is_bounded(nested, monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    recorder = Recorder()
    metrics = stage(recorder)
    for _ in range(50):
        output = torch.zeros(10)
        metrics.add("a", None, {"x": [output]} if nested else output, torch.zeros(10), None)
        assert sum(len(rows) for rows in metrics.rows.values()) <= 12
    assert recorder.calls


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype):
    output, target = torch.randn(20, 4).to(dtype), torch.randint(0, 4, (20,))
    found = fed(stage(MulticlassAUROC(4)), [(output, target)]).compute()
    close(list(found.values()), reference(MulticlassAUROC(4), [(output.float(), target)]))


# Arguments


@pytest.mark.parametrize(
    ("build", "output", "target"),
    [
        (BinaryAccuracy, (6, 1), (6,)),
        (BinaryAccuracy, (6,), (6, 1)),
        (MeanSquaredError, (6, 1), (6,)),
        (MeanSquaredError, (6,), (6, 1)),
        (MeanSquaredError, (6, 1), (6, 1)),
        (R2Score, (6, 1), (6,)),
        (functools.partial(MulticlassAccuracy, 3), (6, 3), (6, 1)),
        (functools.partial(MulticlassAccuracy, 3), (6, 3, 2, 2), (6, 1, 2, 2)),
    ],
)
def test_a_dimension_of_one_is_no_difference(build, output, target):
    torch.manual_seed(0)
    output, target = torch.rand(output), torch.randint(0, 2, target)
    squeezed = target.squeeze(1) if target.ndim > 1 else target
    plain = output.squeeze(1) if output.ndim > 1 and output.shape[1] == 1 else output
    found = fed(stage(build()), [(output, target)]).compute()
    close(list(found.values()), reference(build(), [(plain, squeezed)]))


def test_labels_as_numbers_are_labels_for_classification():
    found = fed(stage(BinaryAccuracy()), [(torch.tensor([0.9, 0.2]), torch.tensor([1.0, 1.0]))]).compute()
    assert found == {"a/Accuracy": 0.5}


def test_soft_labels_are_not_cut_to_integers():
    metrics = fed(stage(BinaryAccuracy()), [(torch.tensor([0.9]), torch.tensor([0.7]))])
    with pytest.raises(
        UserError, match=r"^metrics\.a\.Accuracy: update failed on \(1,\) float32 and \(1,\) float32"
    ):
        metrics.compute()


def test_arguments_and_transforms_of_the_adapter():
    recorder = Recorder()
    adapter = MetricsAdapter("p", "t", "x", pred_transforms={"a": torch.neg})
    metrics = stage(recorder, adapter=adapter)
    target = torch.tensor([5, -100])
    metrics.add("a", torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), target, labels_of(target))
    metrics.update()
    ((args, kwargs),) = recorder.calls
    assert args == ()
    assert kwargs == {"p": -3, "t": 5, "x": 1}


def test_a_transform_sees_the_joined_rows_once():
    seen = []
    adapter = MetricsAdapter(pred_transforms=lambda output: seen.append(len(output)) or output)
    fed(StageMetrics({"a": [Recorder(), MeanSquaredError()]}, adapter), steps("mse")).compute()
    assert seen == [sum(SIZES)]


def test_a_metric_that_fails_is_an_error_with_the_shapes():
    metrics = fed(stage(MulticlassAccuracy(3)), [(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))])
    with pytest.raises(UserError) as caught:
        metrics.compute()
    assert str(caught.value).startswith(
        "metrics.a.Accuracy: update failed on (4, 2) float32 and (4,) int64: If"
    )


def test_a_value_that_is_no_number_is_an_error():
    metrics = fed(stage(MulticlassConfusionMatrix(4)), steps("accuracy"))
    with pytest.raises(UserError) as caught:
        metrics.compute()
    assert str(caught.value).startswith("metrics.a.ConfusionMatrix: must compute numbers that can be logged")
    assert "got shape (4, 4)." in str(caught.value)


class Returns(Recorder):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def compute(self):
        return self.value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor(2.0), {"a/Returns": 2}),
        (torch.tensor([2.0]), {"a/Returns": 2}),
        (2, {"a/Returns": 2}),
        (torch.tensor([2.0, 3.0]), {"a/Returns_0": 2, "a/Returns_1": 3}),
        (
            {"x": torch.tensor(2.0), "y": torch.tensor([3.0, 4.0])},
            {"a/Returns_x": 2, "a/Returns_y_0": 3, "a/Returns_y_1": 4},
        ),
    ],
)
def test_vectors_and_dicts_are_one_value_each(value, expected):
    metrics = stage(Returns(value))
    metrics.add("a", None, torch.ones(1), torch.ones(1), None)
    assert metrics.compute() == expected


# Names


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (MulticlassAccuracy(3), ["Accuracy"]),
        (torchmetrics.Accuracy(task="binary"), ["Accuracy"]),
        (BinaryAUROC(), ["AUROC"]),
        (
            [MulticlassF1Score(3), MultilabelAccuracy(3), MeanSquaredError()],
            ["F1Score", "Accuracy", "MeanSquaredError"],
        ),
        ({"top1": MulticlassAccuracy(3), "top2": MulticlassAccuracy(3, top_k=2)}, ["top1", "top2"]),
        (MetricCollection({"x": BinaryAccuracy(), "y": BinaryAUROC()}, prefix="my_"), ["my_x", "my_y"]),
        (MetricCollection([BinaryAccuracy(), BinaryAUROC()]), ["BinaryAccuracy", "BinaryAUROC"]),
        (
            [MeanSquaredError(), MetricCollection({"x": BinaryAccuracy(), "y": BinaryAUROC()}, postfix="_z")],
            ["MeanSquaredError", "x_z", "y_z"],
        ),
        ({"top": MetricCollection({"x": BinaryAccuracy()}), "z": BinaryAUROC()}, ["top_x", "z"]),
        (MetricCollection({"o": MetricCollection({"x": BinaryAccuracy()})}, prefix="my_"), ["my_o_x"]),
        (lambda predictions, targets: 0.0, ["function"]),
        ([lambda predictions, targets: 0.0, BinaryAUROC()], ["function", "AUROC"]),
        (functools.partial(lambda scale, predictions, targets: scale, 1.0), ["function"]),
        (Recorder(), ["Recorder"]),
        ({"keys": BinaryAccuracy(), "training": BinaryAUROC()}, ["keys", "training"]),
    ],
)
def test_names(given, names):
    assert list(metric_names(given, "metrics.a")) == names
    assert stage(given).log_keys() == [f"a/{name}" for name in names]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [MulticlassAccuracy(3), BinaryAccuracy()],
            "metrics.a: metric names must be unique, got Accuracy",
        ),
        (
            [MetricCollection({"x": BinaryAccuracy()}), MetricCollection({"x": BinaryAUROC()})],
            "metrics.a: metric names must be unique, got x twice. Pass a dict by name",
        ),
        ([lambda p, t: 0.0, lambda p, t: 1.0], "metrics.a: metric names must be unique, got function twice"),
        (
            MetricCollection({"x": BinaryAccuracy()}, prefix="val/"),
            "metrics.a: a metric's name must have letters, digits and underscores only, got 'val/x'.",
        ),
        ([BinaryAccuracy], "metrics.a.ABCMeta: must be a torchmetrics.Metric, got"),
        ({"acc": nn.Linear(1, 1)}, "metrics.a.acc: must be a torchmetrics.Metric, got Linear."),
        (
            {"a/b": BinaryAccuracy()},
            "metrics.a: a metric's name must have letters, digits and underscores only, got 'a/b'.",
        ),
    ],
)
def test_metrics_that_cannot_be(given, message):
    with pytest.raises(UserError) as caught:
        stage(given)
    assert str(caught.value).startswith(message)


def test_a_task_name_that_cannot_be():
    with pytest.raises(UserError, match=r"^metrics: 'total' is reserved for log keys"):
        StageMetrics({"total": BinaryAccuracy()})


# Saved and restored


def carried(metrics, saved, build):
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    other = stage(build())
    other.load_epoch_state(torch.load(file, weights_only=True))
    return other


@cases
def test_a_restored_epoch_goes_on_bit_for_bit(name):
    build, rows = CASES[name][0], steps(name)
    metrics = stage(build())
    fed(metrics, rows[:2]).update()
    fed(metrics, rows[2:3])
    other = carried(metrics, metrics.epoch_state(), build)
    found, expected = (fed(each, rows[3:]).compute() for each in (other, metrics))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert other.bytes == metrics.bytes


@cases
def test_what_was_saved_does_not_change_with_the_metrics(name):
    build, rows = CASES[name][0], steps(name)
    metrics = stage(build())
    fed(metrics, rows[:2]).update()
    saved = metrics.epoch_state()
    fed(metrics, rows[2:]).compute()
    close(list(carried(metrics, saved, build).compute().values()), reference(build(), rows[:2]))


def test_restoring_forgets_what_was_there_before():
    rows = steps("mse")
    saved = fed(stage(MeanSquaredError()), rows[:2]).epoch_state()
    metrics = stage(MeanSquaredError())
    fed(metrics, rows[2:]).compute()
    metrics.load_epoch_state(saved)
    close(list(metrics.compute().values()), reference(MeanSquaredError(), rows[:2]))


def test_metrics_that_were_not_saved_begin_anew():
    saved = StageMetrics({"b": MeanSquaredError()}).epoch_state()
    metrics = fed(stage(MeanSquaredError()), steps("mse"))
    metrics.load_epoch_state(saved)
    assert metrics.compute() == {}


def test_what_is_saved_is_bounded_after_a_restore_too(monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 100)
    metrics = stage(Recorder())
    metrics.add("a", None, torch.ones(10), torch.ones(10), None)
    other = stage(Recorder())
    other.load_epoch_state(metrics.epoch_state())
    other.add("a", None, torch.ones(10), torch.ones(10), None)
    assert other.rows == {"a": []}


def test_a_metric_with_rows_in_another_process_is_computed_here_too():
    metrics = StageMetrics({"digit": MulticlassAccuracy(3, average="micro"), "rest": MeanSquaredError()})
    assert metrics.compute() == {}
    elsewhere = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert list(metrics.compute(lambda seen: seen + elsewhere)) == ["digit/Accuracy"]
