"""Which numbers are compared, which way is better, and where they stand."""

import pytest
from torch import nn
from torchmetrics import MeanAbsoluteError, MeanMetric, MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

from polytask import RunError, System, UserError
from polytask.compare._measures import Measure, last_values, measures
from polytask.losses import MultiTaskLoss


def system(metrics):
    losses = {"kind": nn.CrossEntropyLoss(), "size": nn.MSELoss()}
    return System(nn.Linear(2, 3), MultiTaskLoss(losses), metrics=metrics)


def test_metrics_say_which_way_is_better_and_a_task_without_has_its_loss():
    found = measures(system({"kind": MulticlassAccuracy(3)}), "val")
    assert found == [Measure("kind", "Accuracy", True), Measure("size", "loss", False)]
    assert [one.key("test") for one in found] == ["test/kind/Accuracy/epoch", "test/loss/size/epoch"]


def test_a_metric_of_several_numbers_is_several():
    found = measures(system({"kind": MulticlassAccuracy(3, average=None)}), "val")
    assert [one.metric for one in found] == ["Accuracy_0", "Accuracy_1", "Accuracy_2", "loss"]


def test_a_task_may_have_several_metrics():
    found = measures(system({"size": [MeanSquaredError(), MeanAbsoluteError()]}), "val")
    assert [one.name for one in found] == ["kind/loss", "size/MeanSquaredError", "size/MeanAbsoluteError"]


def test_a_direction_is_asked_for_and_taken():
    given = system({"size": MeanMetric()})
    with pytest.raises(
        UserError, match=r"the better direction of 'MeanMetric' must be given, got none\. Write --direction"
    ):
        measures(given, "val")
    assert measures(given, "val", {"size/MeanMetric": "min"})[1] == Measure("size", "MeanMetric", False)


def test_a_direction_of_the_users_own_comes_first():
    found = measures(system({"size": MeanSquaredError()}), "val", {"size/MeanSquaredError": "max"})
    assert found[1].higher_is_better


def severally(run):
    """A run whose metric gave a dict."""
    run.mkdir()
    (run / "metrics.csv").write_text(
        "epoch,step,val/a/Y_b/epoch,val/a/Yet/epoch,val/loss/a_b/epoch\n0,1,0.5,0.25,1\n"
    )
    return run


def test_values_are_the_last_that_were_logged(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,val/a/X/epoch,val/loss/b/epoch\n0,1,0.5,2\n1,2,0.75,\n1,3,,1.5\n"
    )
    wanted = [Measure("a", "X", True), Measure("b", "loss", False)]
    assert last_values(tmp_path, wanted, "val") == {("a", "X"): 0.75, ("b", "loss"): 1.5}
    with pytest.raises(RunError, match=r"no val/a/Y/epoch. Did you mean 'val/a/X/epoch'"):
        last_values(tmp_path, [Measure("a", "Y", True)], "val")
    with pytest.raises(RunError, match=r"no val/a/Y/epoch, but val/a/Y_b/epoch\. Use a metric that"):
        last_values(severally(tmp_path / "several"), [Measure("a", "Y", True)], "val")
    with pytest.raises(RunError, match=r"no val/loss/a/epoch\. Did you mean"):
        last_values(tmp_path / "several", [Measure("a", "loss", False)], "val")
    # The fix is one that helps: the run counts as done.
    with pytest.raises(UserError, match=rf"test/metrics\.csv: must be .* Delete {tmp_path} to train again"):
        last_values(tmp_path, wanted, "test")
