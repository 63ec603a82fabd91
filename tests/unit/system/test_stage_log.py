"""Which keys a stage may log."""

import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from polytask.losses import MultiTaskLoss
from polytask.system._stage_log import StageLog
from polytask.system._stages import adapters_by_stage
from polytask.weighting import UW


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
        ("val/objective/epoch", ["val"], True, False),
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


def of_one_step(record, criterion):
    """A record of one step, whose scalar to minimise was -7."""
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(4.0)}
    record.meters["train"].add(losses, torch.tensor(-7.0), {"a": 2, "b": 2}, 2, 0)
    return record.epoch_values("train", criterion)


def test_a_run_keeps_the_total_with_which_it_began():
    criterion = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}, {"b": 0.5}, weighting=UW())

    def record():
        return StageLog(["a", "b"], {}, adapters_by_stage(None), objective=True)

    values = of_one_step(record(), criterion)
    assert values["train/loss/total/epoch"] == 1.0 + 0.5 * 4.0
    assert values["train/objective/epoch"] == -7.0

    # A checkpoint of a former version does not say which total its callbacks have compared.
    state = record().epoch_state()
    del state["comparable_total"]
    resumed = record()
    resumed.load_epoch_state(state)
    again = record()
    again.load_epoch_state(resumed.epoch_state())
    for former in (resumed, again):
        values = of_one_step(former, criterion)
        assert values["train/loss/total/epoch"] == -7.0
        assert not [key for key in (*values, *former.log_keys(["train"])) if "objective" in key]
        assert not former.may_log("train/objective/epoch", ["train"])
