import numpy as np
import pytest
import torch
import torchmetrics
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score
from torch import nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelAccuracy,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelRankingLoss,
)
from torchmetrics.image import StructuralSimilarityIndexMeasure
from torchmetrics.regression import CosineSimilarity, PearsonCorrCoef, R2Score
from torchmetrics.segmentation import DiceScore, MeanIoU
from torchmetrics.wrappers import ClasswiseWrapper, MultioutputWrapper

from polytask import MultiTaskLoss, UserError
from polytask.adapters import MetricsAdapter
from polytask.losses import Targets
from polytask.metrics import MultiTaskMetrics, StageMetrics, accuracy

NAN = float("nan")


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def holes(shape, share=0.3, seed=1):
    gaps = torch.rand(shape, generator=draw(seed)) < share
    gaps[0] = True
    gaps[1] = False
    return gaps


def computed(metric, output, target, sizes=(3, 1, 4), ignore_index=-100, **options):
    """The value of a metric on batches whose labels were counted as a loader's are."""
    stage = StageMetrics({"a": metric}, **options)
    start = 0
    for size in (*sizes, len(target) - sum(sizes)):
        rows = slice(start, start + size)
        counted = Targets.count({"a": target[rows]}, {"a": ignore_index})
        if "a" in counted:
            stage.add("a", None, output[rows], counted["a"], counted.partial.get("a"))
        start += size
    return {key.removeprefix("a/"): value.item() for key, value in stage.compute().items()}


def only(values):
    (value,) = values.values()
    return value


# Values by element


@pytest.mark.parametrize("shape", [(12,), (12, 3), (12, 1, 4, 5), (12, 4, 5), (12, 2, 3, 2)])
@pytest.mark.parametrize(
    ("build", "loss", "expected"),
    [
        (MeanSquaredError, nn.MSELoss, lambda p, t: np.mean((p - t) ** 2)),
        (MeanAbsoluteError, nn.L1Loss, lambda p, t: np.mean(np.abs(p - t))),
    ],
)
def test_a_metric_is_over_labelled_elements_as_the_loss_of_its_name(shape, build, loss, expected):
    output, target = torch.randn(shape, generator=draw()), torch.randn(shape, generator=draw(2))
    gaps = holes(shape)
    target[gaps] = NAN
    right = expected(output[~gaps].double().numpy(), target[~gaps].double().numpy())
    assert only(computed(build(), output, target)) == pytest.approx(right, rel=1e-5)
    _, losses = MultiTaskLoss({"a": loss()})({"a": output}, {"a": target}, return_dict=True)
    assert losses["a"].item() == pytest.approx(right, rel=1e-5)


def test_every_row_may_have_a_gap():
    target = torch.tensor([[1.0, NAN], [9.0, NAN]])
    assert only(computed(MeanAbsoluteError(), torch.zeros(2, 2), target, ())) == 5


@pytest.mark.parametrize("form", [lambda t: t, lambda t: t.unsqueeze(1), lambda t: t.to(torch.uint8)])
def test_a_map_of_classes(form):
    output = torch.randn(12, 3, 4, 5, generator=draw())
    classes = torch.randint(0, 3, (12, 4, 5), generator=draw(2))
    gaps = holes(classes.shape)
    target = form(classes.masked_fill(gaps, 255))
    predicted, known = output.argmax(1)[~gaps].numpy(), classes[~gaps].numpy()
    for metric, right in [
        (MulticlassJaccardIndex(3), jaccard_score(known, predicted, average="macro")),
        (MulticlassF1Score(3), f1_score(known, predicted, average="macro")),
        (MulticlassAccuracy(3, average="micro", ignore_index=255), (known == predicted).mean()),
        (accuracy, (known == predicted).mean()),
        (lambda p, t: float((p.argmax(1) == t).mean()), (known == predicted).mean()),
    ]:
        found = only(computed(metric, output, target, ignore_index=255))
        assert found == pytest.approx(right, rel=1e-5), metric


def test_cross_entropy_of_a_map_equals_the_loss():
    output = torch.randn(12, 3, 4, 5, generator=draw())
    classes = torch.randint(0, 3, (12, 4, 5), generator=draw(2))
    target = classes.masked_fill(holes(classes.shape), -100)

    def cross_entropy(scores, known):
        shifted = scores - scores.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return -np.take_along_axis(logs, known[:, None], axis=1).mean()

    _, losses = MultiTaskLoss({"a": nn.CrossEntropyLoss()})({"a": output}, {"a": target}, return_dict=True)
    assert only(computed(cross_entropy, output, target)) == pytest.approx(losses["a"].item(), rel=1e-5)


@pytest.mark.parametrize("integers", [False, True])
def test_several_labels(integers):
    scores = torch.rand(60, 3, generator=draw())
    labels = torch.randint(0, 2, (60, 3), generator=draw(2))
    gaps = holes(labels.shape)
    target = labels.masked_fill(gaps, -100) if integers else labels.float().masked_fill(gaps, NAN)
    known = [(labels[~gap, i].numpy(), scores[~gap, i].numpy()) for i, gap in enumerate(gaps.T)]
    whole = [row for row in range(60) if not gaps[row].all()]
    right = (scores > 0.5) == labels
    exact = []
    # Without these classes, torchmetrics counts a label that is ignored as wrong.
    if hasattr(torchmetrics.classification, "MultilabelEER"):
        exact = [(MultilabelExactMatch(3), np.mean([right[row][~gaps[row]].all().item() for row in whole]))]
    for metric, value in [
        (MultilabelAccuracy(3, average="micro"), right[~gaps].float().mean().item()),
        (MultilabelAUROC(3), np.mean([roc_auc_score(*one) for one in known])),
        (MultilabelAUROC(3, ignore_index=-1), np.mean([roc_auc_score(*one) for one in known])),
        (MultilabelAveragePrecision(3), np.mean([average_precision_score(*one) for one in known])),
        *exact,
    ]:
        assert only(computed(metric, scores, target)) == pytest.approx(value, abs=1e-5), metric
    by_label = ClasswiseWrapper(MultilabelAUROC(3, average=None))
    values = list(computed(by_label, scores, target).values())
    assert values == pytest.approx([roc_auc_score(*one) for one in known], abs=1e-5)


def angle(predictions, targets):
    """The mean angle between vectors along axis 1."""
    cosine = (predictions * targets).sum(axis=1)
    lengths = np.linalg.norm(predictions, axis=1) * np.linalg.norm(targets, axis=1)
    return np.degrees(np.arccos(cosine / lengths)).mean()


def test_vectors_that_are_missing_whole_along_the_channels():
    output, target = torch.randn(12, 3, 4, 5, generator=draw()), torch.randn(12, 3, 4, 5, generator=draw(2))
    gaps = holes((12, 4, 5))
    target[gaps.unsqueeze(1).expand_as(target)] = NAN
    vectors = [values.movedim(1, -1)[~gaps].numpy() for values in (output, target)]
    assert only(computed(angle, output, target)) == pytest.approx(angle(*vectors), rel=1e-5)


def distance(predictions, targets):
    return np.linalg.norm(predictions - targets, axis=-1).mean()


def test_points_that_are_missing_whole():
    output, target = torch.randn(12, 5, 2, generator=draw()), torch.randn(12, 5, 2, generator=draw(2))
    gaps = holes((12, 5))
    target[gaps] = NAN
    right = distance(output[~gaps].numpy(), target[~gaps].numpy())
    assert only(computed(distance, output, target)) == pytest.approx(right, rel=1e-5)


class NanMeanOfRows(Metric):
    """A mean over rows of the greatest error of each, NaN left out."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, predictions, targets):
        known = ~targets.isnan().all(dim=1)
        errors = torch.nan_to_num((predictions - targets)[known].abs(), nan=-1.0)
        self.total += errors.amax(dim=1).sum()
        self.rows += known.sum()

    def compute(self):
        return self.total / self.rows


@pytest.mark.parametrize(
    ("metric", "by_column"),
    [
        (MultioutputWrapper(MeanSquaredError(), 3), True),
        (MultioutputWrapper(PearsonCorrCoef(), 3), True),
        (NanMeanOfRows(), False),
    ],
)
def test_a_metric_that_leaves_out_nan_itself_gets_nan(metric, by_column):
    output, target = torch.randn(20, 3, generator=draw()), torch.randn(20, 3, generator=draw(2))
    gaps = holes((20, 3))
    target[gaps] = NAN
    values = list(computed(metric, output, target, ()).values())
    columns = [(output[~gap, i].numpy(), target[~gap, i].numpy()) for i, gap in enumerate(gaps.T)]
    if not by_column:
        rows = [
            row[~gap].abs().max().item()
            for row, gap in zip(output - target, gaps, strict=True)
            if not gap.all()
        ]
        expected = [np.mean(rows)]
    elif isinstance(metric.metrics[0], PearsonCorrCoef):
        expected = [np.corrcoef(*column)[0, 1] for column in columns]
    else:
        expected = [np.mean((p - t) ** 2) for p, t in columns]
    assert values == pytest.approx(expected, rel=1e-4)


# What cannot be masked


def images(rows=12):
    return torch.rand(rows, 1, 16, 16, generator=draw()), torch.rand(rows, 1, 16, 16, generator=draw(2))


@pytest.mark.parametrize(
    ("metric", "output", "target", "named"),
    [
        (StructuralSimilarityIndexMeasure(data_range=1.0), *images(), "MeanAbsoluteError"),
        (R2Score(), torch.randn(12, 3), torch.randn(12, 3), "MultioutputWrapper"),
        (CosineSimilarity(reduction="mean"), torch.randn(12, 3), torch.randn(12, 3), "MeanAbsoluteError"),
        (MultilabelRankingLoss(3), torch.rand(12, 3), torch.randint(0, 2, (12, 3)).float(), "F1Score"),
        (
            MeanIoU(3, input_format="index"),
            torch.randint(0, 3, (12, 4, 4)),
            torch.randint(0, 3, (12, 4, 4)),
            "JaccardIndex",
        ),
        (
            DiceScore(3, input_format="index", average="macro"),
            torch.randint(0, 3, (12, 4, 4)),
            torch.randint(0, 3, (12, 4, 4)),
            "JaccardIndex",
        ),
        (distance, torch.randn(12, 3), torch.randn(12, 3), "MeanAbsoluteError"),
    ],
)
def test_a_metric_of_whole_rows_is_an_error_that_names_another(metric, output, target, named):
    mark = NAN if target.is_floating_point() else -100
    whole = computed(metric, output, target)
    assert np.isfinite(list(whole.values())).all()
    if isinstance(metric, Metric):
        metric.reset()
    gaps = torch.zeros_like(target, dtype=torch.bool)
    gaps[0], gaps[5].view(-1)[0] = True, True
    with pytest.raises(UserError, match=r"metrics\.a\.\w+: \w+ needs whole rows") as caught:
        computed(metric, output, target.masked_fill(gaps, mark))
    assert named in str(caught.value)
    if isinstance(metric, Metric):
        metric.reset()
    gaps[5] = False
    found = computed(metric, output, target.masked_fill(gaps, mark))
    rest = computed(metric.clone() if isinstance(metric, Metric) else metric, output[1:], target[1:])
    if not isinstance(metric, Metric):
        assert found == pytest.approx(rest)


def test_the_error_comes_with_the_first_rows_that_have_a_gap():
    stage = StageMetrics({"a": StructuralSimilarityIndexMeasure(data_range=1.0)})
    output, target = images(2)
    stage.add("a", None, output, target, None)
    target[0, 0, 0, 0] = NAN
    with pytest.raises(UserError, match="needs whole rows"):
        stage.add("a", None, output, target, Targets.count({"a": target}).partial["a"])


def test_a_transform_must_keep_the_elements():
    adapter = MetricsAdapter(target_transforms=lambda target: target[:, :1])
    target = torch.tensor([[1.0, NAN], [2.0, 3.0]])
    with pytest.raises(UserError, match=r"^adapters\.metrics\.target_transforms: must keep the elements"):
        computed(MeanSquaredError(), torch.zeros(2, 2), target, (), adapter=adapter)


def test_transforms_come_before_the_gaps_are_left_out():
    output = torch.randn(12, 3, 4, 5, generator=draw())
    classes = torch.randint(0, 3, (12, 4, 5), generator=draw(2))
    gaps = holes(classes.shape)
    adapter = MetricsAdapter(
        pred_transforms=lambda scores: scores.argmax(1), target_transforms=lambda target: target.float()
    )
    found = only(computed(MeanAbsoluteError(), output, classes.masked_fill(gaps, -100), adapter=adapter))
    right = (output.argmax(1) - classes)[~gaps].abs().float().mean().item()
    assert found == pytest.approx(right)


# What it must not change


def test_looking_for_a_form_changes_no_random_numbers_and_no_state():
    target = torch.tensor([[1.0, NAN], [9.0, 2.0]])
    metric = torchmetrics.BootStrapper(MeanSquaredError(), num_bootstraps=4)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with pytest.raises(UserError, match="needs whole rows"):
        computed(metric, torch.zeros(2, 2), target, ())
    assert torch.equal(torch.rand(1), expected)
    assert metric.update_count == 0


def test_rows_with_gaps_are_saved_and_loaded():
    output, target = torch.randn(4, 3, generator=draw()), torch.randn(4, 3, generator=draw(2))
    target[0, 0] = NAN
    stage = StageMetrics({"a": MeanSquaredError()})
    stage.add("a", None, output, target, Targets.count({"a": target}).partial["a"])
    other = StageMetrics({"a": MeanSquaredError()})
    other.load_epoch_state(stage.epoch_state())
    assert other.bytes == stage.bytes
    assert other.compute() == stage.compute()


def test_rows_of_a_former_checkpoint_have_no_gaps():
    stage = StageMetrics({"a": MeanSquaredError()})
    stage.add("a", None, torch.ones(2), torch.zeros(2), None)
    state = stage.epoch_state()
    state["rows"]["a"] = [row[:3] for row in state["rows"]["a"]]
    stage.load_epoch_state(state)
    assert only(stage.compute()) == 1


def test_metrics_in_a_loop_of_ones_own():
    output, target = torch.randn(6, 3, generator=draw()), torch.randn(6, 3, generator=draw(2))
    target[holes((6, 3))] = NAN
    metrics = MultiTaskMetrics(["a"], {"a": [MeanSquaredError(), lambda p, t: np.mean((p - t) ** 2)]})
    for rows in (slice(0, 2), slice(2, 6)):
        metrics.update({"a": output[rows]}, {"a": target[rows]})
    right = np.nanmean((output - target).numpy() ** 2)
    assert list(metrics.compute().values()) == pytest.approx([right, right], rel=1e-5)


def test_one_column_of_labels():
    scores, labels = torch.rand(40, 1, generator=draw()), torch.randint(0, 2, (40, 1), generator=draw(2))
    gaps = holes(labels.shape)
    right = roc_auc_score(labels[~gaps].numpy(), scores[~gaps].numpy())
    found = only(computed(BinaryAUROC(), scores, labels.float().masked_fill(gaps, NAN)))
    assert found == pytest.approx(right, abs=1e-5)
