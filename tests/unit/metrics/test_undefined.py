"""Values that the labels leave undefined, against scikit-learn on the others."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, matthews_corrcoef, r2_score, roc_auc_score
from torchmetrics import classification
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryF1Score,
    BinaryLogAUC,
    BinaryMatthewsCorrCoef,
    MulticlassAUROC,
    MulticlassMatthewsCorrCoef,
    MultilabelAUROC,
    MultilabelAveragePrecision,
)
from torchmetrics.regression import (
    ExplainedVariance,
    PearsonCorrCoef,
    R2Score,
    RelativeSquaredError,
    SpearmanCorrCoef,
)
from torchmetrics.wrappers import ClasswiseWrapper, MinMaxMetric

from polytask.metrics import StageMetrics

NAN = float("nan")
ROWS = 30
pytestmark = pytest.mark.filterwarnings("ignore:Metric `.*` will save all targets")


def rates(name):
    """A class that the lowest version of torchmetrics lacks; none there."""
    return [getattr(classification, name)] if hasattr(classification, name) else []


def scores(*shape):
    return torch.rand(ROWS, *shape, generator=torch.Generator().manual_seed(0))


def labels(*shape):
    return torch.randint(0, 2, (ROWS, *shape), generator=torch.Generator().manual_seed(1))


def stage(metric, output, target, calls=2):
    metrics = StageMetrics({"a": metric})
    for part in range(calls):
        metrics.add("a", None, output[part::calls], target[part::calls], None)
    return metrics


def computed(metric, output, target):
    """Values and sentences, of which torchmetrics' own warnings are no part."""
    metrics = stage(metric, output, target)
    values = {key.removeprefix("a/"): value.item() for key, value in metrics.compute().items()}
    return values, {key.removeprefix("a/"): what for key, what in metrics.undefined.items()}


@pytest.mark.parametrize("thresholds", [None, 20])
@pytest.mark.parametrize("only", [0, 1])
@pytest.mark.parametrize("build", [BinaryAUROC, *rates("BinaryEER"), BinaryLogAUC])
def test_a_curve_of_one_class_is_nan(build, only, thresholds):
    values, said = computed(build(thresholds=thresholds), scores(), torch.full((ROWS,), only))
    ((name, value),) = values.items()
    assert np.isnan(value)
    assert said == {name: "NaN: all labels are of one class"}


def test_average_precision_needs_a_positive_label_only():
    values, said = computed(BinaryAveragePrecision(), scores(), torch.zeros(ROWS))
    assert np.isnan(values["AveragePrecision"])
    assert said == {"AveragePrecision": "NaN: no label is positive"}
    values, said = computed(BinaryAveragePrecision(), scores(), torch.ones(ROWS))
    assert (values["AveragePrecision"], said) == (pytest.approx(1), {})


@pytest.mark.parametrize("build", [BinaryMatthewsCorrCoef, lambda: MulticlassMatthewsCorrCoef(2)])
def test_a_correlation_with_one_class_is_nan(build):
    assert np.isnan(next(iter(computed(build(), labels(), torch.ones(ROWS).long())[0].values())))
    found = next(iter(computed(build(), labels(), labels().flip(0))[0].values()))
    assert found == pytest.approx(matthews_corrcoef(labels().flip(0), labels()), abs=1e-5)


@pytest.mark.parametrize("build", [R2Score, ExplainedVariance, RelativeSquaredError, SpearmanCorrCoef])
def test_a_regression_on_constant_labels_is_nan(build):
    values, said = computed(build(), scores(), torch.full((ROWS,), 0.3))
    ((name, value),) = values.items()
    assert np.isnan(value)
    assert said == {name: "NaN: the labels do not vary"}


def test_one_row_has_no_coefficient_of_determination():
    metrics = stage(R2Score(), scores()[:1], scores()[:1], 1)
    assert np.isnan(metrics.compute()["a/R2Score"].item())


@pytest.mark.filterwarnings("ignore:The variance of predictions or target is close to zero")
def test_another_nan_is_named_too():
    values, said = computed(PearsonCorrCoef(), torch.full((ROWS,), 0.5), scores())
    assert np.isnan(values["PearsonCorrCoef"])
    assert said == {"PearsonCorrCoef": "NaN"}


def test_a_convention_of_the_metric_stays():
    assert computed(BinaryF1Score(), torch.zeros(ROWS), torch.zeros(ROWS)) == ({"F1Score": 0}, {})


def several(count=3):
    """Labels of which the last is never given."""
    target = labels(count)
    target[:, -1] = 0
    return target


@pytest.mark.parametrize("thresholds", [None, 2000])
def test_a_mean_over_labels_leaves_out_the_undefined_and_says_so(thresholds):
    target, output = several(), scores(3)
    by_label = [roc_auc_score(target[:, i], output[:, i]) for i in range(2)]
    support = target[:, :2].sum(0).numpy()
    close = pytest.approx(np.mean(by_label), abs=2e-3 if thresholds else 1e-5)
    said = "the mean over 2 of 3 values: for the others all labels are of one class"
    found = computed(MultilabelAUROC(3, thresholds=thresholds), output, target)
    assert found == ({"AUROC": close}, {"AUROC": said})
    values, _ = computed(MultilabelAUROC(3, average="weighted", thresholds=thresholds), output, target)
    assert values["AUROC"] == pytest.approx(np.average(by_label, weights=support), abs=2e-3)
    values, said = computed(MultilabelAUROC(3, average=None, thresholds=thresholds), output, target)
    assert list(values.values()) == pytest.approx([*by_label, NAN], abs=2e-3, nan_ok=True)
    assert said == {"AUROC_2": "NaN: all labels are of one class"}
    values, said = computed(MultilabelAUROC(3, average="micro", thresholds=thresholds), output, target)
    assert values["AUROC"] == pytest.approx(roc_auc_score(target.flatten(), output.flatten()), abs=2e-3)
    assert said == {}


def test_average_precision_of_several_labels():
    target, output = several(), scores(3)
    right = np.mean([average_precision_score(target[:, i], output[:, i]) for i in range(2)])
    values, said = computed(MultilabelAveragePrecision(3), output, target)
    assert values["AveragePrecision"] == pytest.approx(right, abs=1e-5)
    assert "2 of 3" in said["AveragePrecision"]


@pytest.mark.parametrize("thresholds", [None, 2000])
def test_a_class_that_does_not_occur(thresholds):
    output, target = torch.softmax(3 * scores(3), dim=1), labels()
    right = [roc_auc_score(target == i, output[:, i]) for i in range(2)]
    values, said = computed(MulticlassAUROC(3, thresholds=thresholds), output, target)
    assert values["AUROC"] == pytest.approx(np.mean(right), abs=2e-3)
    assert "2 of 3" in said["AUROC"]
    values, _ = computed(MulticlassAUROC(3, thresholds=thresholds), output, torch.zeros(ROWS).long())
    assert np.isnan(values["AUROC"])


def test_a_curve_of_several_classes_is_nan_if_one_does_not_occur():
    output, target = torch.softmax(3 * scores(3), dim=1), labels()
    for build in rates("MulticlassEER"):
        assert np.isnan(computed(build(3, average="macro"), output, target)[0]["EER"])


@pytest.mark.parametrize("average", ["uniform_average", "variance_weighted", "raw_values"])
def test_outputs_of_which_one_does_not_vary(average):
    output, target = scores(3), scores(3).flip(0)
    target[:, 2] = 0.3
    values, said = computed(R2Score(multioutput=average), output, target)
    right = r2_score(target[:, :2].numpy(), output[:, :2].numpy(), multioutput=average)
    if average == "raw_values":
        assert list(values.values()) == pytest.approx([*right, NAN], abs=1e-4, nan_ok=True)
        assert list(said) == ["R2Score_2"]
    else:
        assert values["R2Score"] == pytest.approx(right, abs=1e-4)
        assert "2 of 3" in said["R2Score"]


def test_metrics_in_wrappers_are_undefined_too():
    values, said = computed(ClasswiseWrapper(MultilabelAUROC(3, average=None)), scores(3), several())
    assert [np.isnan(value) for value in values.values()] == [False, False, True]
    assert list(said.values()) == ["NaN: all labels are of one class"]
    values, _ = computed(BinaryAUROC() + 1, scores(), torch.zeros(ROWS))
    assert np.isnan(list(values.values())).all()
    values, _ = computed(MinMaxMetric(BinaryAUROC()), scores(), labels())
    right = roc_auc_score(labels(), scores())
    assert list(values.values()) == pytest.approx([right] * 3, abs=1e-5)


def test_a_metric_computes_as_before_afterwards():
    metrics = stage(BinaryAUROC(), scores(), torch.zeros(ROWS))
    assert np.isnan(metrics.compute()["a/AUROC"].item())
    assert np.isnan(metrics.compute()["a/AUROC"].item())
    metrics.reset()
    metrics.add("a", None, scores(), labels(), None)
    assert metrics.compute()["a/AUROC"].item() == pytest.approx(roc_auc_score(labels(), scores()), abs=1e-5)
    assert metrics.undefined == {}


def test_a_step_of_one_class_is_nan():
    metrics = stage(BinaryAUROC(), scores(), torch.zeros(ROWS))
    assert np.isnan(metrics.step_values()["a/AUROC"].item())
