"""Which keys metrics and losses may log, compared with those that they do."""

import pytest
import torch
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryStatScores,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassJaccardIndex,
)
from torchmetrics.regression import CosineSimilarity, R2Score
from torchmetrics.segmentation import MeanIoU
from torchmetrics.wrappers import ClasswiseWrapper, MinMaxMetric

from polytask.metrics import StageMetrics
from polytask.metrics._keys import entries, may_log

CLASSES = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
BINARY = torch.rand(8), torch.arange(8) % 2
PAIRS = torch.randn(8, 2), torch.randn(8, 2)
MAPS = torch.randint(0, 3, (4, 5)), torch.randint(0, 3, (4, 5))


class Own(Metric):
    def update(self, preds, target):
        pass

    def compute(self):
        return {"cat": torch.tensor(1.0), "dog": torch.tensor(2.0)}


TOLD = [
    (MulticlassAccuracy(3), CLASSES),
    (MulticlassAccuracy(3, average=None), CLASSES),
    (MulticlassAUROC(3, average="none"), CLASSES),
    (MulticlassJaccardIndex(3, average=None), CLASSES),
    (BinaryAccuracy(), BINARY),
    (MeanSquaredError(), PAIRS),
    (MeanSquaredError(num_outputs=2), PAIRS),
    (MeanIoU(3, input_format="index"), MAPS),
    (MeanIoU(3, per_class=True, input_format="index"), MAPS),
]
UNTOLD = [
    (Own(), PAIRS),
    (BinaryStatScores(), BINARY),
    (ClasswiseWrapper(MulticlassAccuracy(3, average=None)), CLASSES),
    (MinMaxMetric(MeanSquaredError()), PAIRS),
    (R2Score(multioutput="raw_values"), PAIRS),
    (CosineSimilarity(reduction="none"), PAIRS),
]


def logged(metric, rows):
    metrics = StageMetrics({"a": {"m": metric}})
    metrics.add("a", None, *rows, None)
    return metrics, sorted(metrics.compute())


def name(case):
    return type(case).__name__ if isinstance(case, Metric) else ""


@pytest.mark.filterwarnings("ignore:Metric `.*` will save all targets")
@pytest.mark.parametrize(("metric", "rows"), TOLD, ids=name)
def test_settings_tell_the_entries(metric, rows):
    metrics, keys = logged(metric, rows)
    assert keys == sorted(metrics.entries())
    assert all(metrics.may_log(key) for key in keys)
    assert not metrics.may_log("a/m_bogus")
    assert metrics.may_log("a/m") == (keys == ["a/m"])
    assert metrics.may_log("a/m_0") == ("a/m_0" in keys)


@pytest.mark.parametrize(("metric", "rows"), UNTOLD, ids=name)
def test_where_they_do_not_every_entry_is_possible(metric, rows):
    metrics, keys = logged(metric, rows)
    assert len(keys) > 1
    assert all(metrics.may_log(key) for key in keys)
    assert metrics.entries() == ["a/m"]
    assert not metrics.may_log("a/mm")
    assert not metrics.may_log("b/m")


def test_a_composition_may_log_anything():
    assert may_log(MeanSquaredError() + 1, "_0")
    assert entries(MeanSquaredError() + 1) == [""]
