"""Which keys a stage may log."""

import pytest
from torchmetrics.classification import MulticlassAccuracy

from polytask.system._stage_log import StageLog
from polytask.system._stages import adapters_by_stage


@pytest.mark.parametrize(
    ("key", "stages", "foreign", "expected"),
    [
        ("val/a/Accuracy/epoch", ["val"], False, True),
        ("val/a/Accuracy_bogus/epoch", ["val"], False, False),
        ("val/a/Accuracy_0/epoch", ["val"], False, False),
        ("val/a/Accuracy", ["val"], False, False),
        ("val/a/Accuracy/step", ["val"], False, False),
        ("val/a/Accuracy/epoch", ["train"], False, False),
        ("val/a/vector_2/epoch", ["val"], False, True),
        ("val/a/vector_3/epoch", ["val"], False, False),
        ("val/a/vector/epoch", ["val"], False, False),
        ("train/skipped/epoch", ["train"], False, True),
        ("val/skipped/epoch", ["train", "val"], False, False),
        ("val/loss/a/epoch", ["val"], False, True),
        ("val/loss/total/epoch", ["val"], False, True),
        ("val/loss/dice/epoch", ["val"], False, False),
        ("val/loss/dice/epoch", ["val"], True, True),
        ("val/loss//epoch", ["val"], True, False),
        ("predict/loss/a/epoch", ["predict"], False, False),
    ],
)
def test_keys_of_a_stage(key, stages, foreign, expected):
    metrics = {"a": {"Accuracy": MulticlassAccuracy(3), "vector": MulticlassAccuracy(3, average=None)}}
    record = StageLog(["a"], {"val": metrics}, adapters_by_stage(None))
    assert record.may_log(key, iter(stages), foreign) == expected


def test_keys_are_listed_as_they_will_be_logged():
    metrics = {"a": {"vector": MulticlassAccuracy(3, average=None)}}
    keys = StageLog(["a"], {"val": metrics}, adapters_by_stage(None)).log_keys(["val"])
    assert keys[2:] == [f"val/a/vector_{i}/epoch" for i in range(3)]
