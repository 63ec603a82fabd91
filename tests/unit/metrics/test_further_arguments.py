"""Metrics that take more of a batch than predictions and targets."""

import copy
import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, mean_absolute_error
from torchmetrics import MeanAbsoluteError, Metric
from torchmetrics.classification import BinaryFairness
from torchmetrics.retrieval import RetrievalMAP

from polytask import UserError
from polytask.adapters import MetricsAdapter
from polytask.losses import Targets
from polytask.metrics import FunctionMetric, StageMetrics

NAN = float("nan")
GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.rand(24, generator=GENERATOR)
LABELS = torch.randint(0, 2, (24,), generator=GENERATOR)
QUERY = torch.arange(24) % 3
WEIGHT = torch.rand(24, generator=GENERATOR)


def weighted(predictions, targets, weight):
    columns = [1] * (predictions.ndim - weight.ndim)
    weights = np.broadcast_to(weight.reshape(*weight.shape, *columns), predictions.shape)
    return np.average(np.abs(predictions - targets), weights=weights)


class Weighted(Metric):
    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("weights", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, predictions, targets, weight):
        self.total += ((predictions - targets).abs() * weight).sum()
        self.weights += weight.sum()

    def compute(self):
        return self.total / self.weights


def computed(metrics, arguments, output, target, columns, sizes=(5, 1, 10)):
    adapter = MetricsAdapter(batch_arguments=arguments)
    stage = StageMetrics({"a": copy.deepcopy(metrics)}, adapter)
    stage.check_arguments()
    bounds = np.cumsum([0, *sizes, len(target) - sum(sizes)])
    for start, end in itertools.pairwise(bounds):
        counted = Targets.count({"a": target[start:end]})
        own = {key: column[start:end] for key, column in columns.items()}
        if "a" in counted:
            stage.add("a", None, output[start:end], counted["a"], counted.partial.get("a"), own)
    again = StageMetrics({"a": metrics}, adapter)
    again.load_epoch_state(stage.epoch_state())
    values = {key: value.item() for key, value in stage.compute().items()}
    assert {key: value.item() for key, value in again.compute().items()} == values
    return values


def test_a_retrieval_metric_gets_the_query_of_each_labelled_row():
    target = LABELS.float()
    target[::4] = NAN
    known = ~target.isnan()
    right = [
        average_precision_score(LABELS[known & (q == QUERY)], SCORES[known & (q == QUERY)]) for q in range(3)
    ]
    found = computed(
        [RetrievalMAP(), MeanAbsoluteError()], {"indexes": "q"}, SCORES, target, {"indexes": QUERY}
    )
    error = mean_absolute_error(LABELS[known], SCORES[known])
    assert found == pytest.approx({"a/RetrievalMAP": np.mean(right), "a/MeanAbsoluteError": error}, abs=1e-5)


@pytest.mark.parametrize("shape", [(24,), (24, 1), (12, 2), (8, 3, 1)])
@pytest.mark.parametrize("metric", [weighted, Weighted()])
def test_a_weight_by_row_is_that_of_each_of_its_elements(metric, shape):
    output, target = SCORES.reshape(shape), (SCORES.flip(0) + 1).reshape(shape)
    gaps = (torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.3) & (target != target[0])
    weight = WEIGHT[: shape[0]]
    by_element = weight.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)[~gaps]
    right = weighted(output[~gaps].numpy(), target[~gaps].numpy(), by_element.numpy())
    if isinstance(metric, Weighted) and len(shape) > 1:
        metric = weighted
    found = computed(
        metric, {"weight": "w"}, output, target.masked_fill(gaps, NAN), {"weight": weight}, (2, 1)
    )
    assert list(found.values()) == pytest.approx([right], rel=1e-5)


def test_a_weight_by_element():
    output, target = SCORES.reshape(12, 2), (SCORES.flip(0) + 1).reshape(12, 2)
    target[3:7, 1] = NAN
    known = ~target.isnan()
    weight = WEIGHT.reshape(12, 2)
    right = weighted(output[known].numpy(), target[known].numpy(), weight[known].numpy())
    found = computed(weighted, {"weight": "w"}, output, target, {"weight": weight}, (2, 1))
    assert list(found.values()) == pytest.approx([right], rel=1e-5)


def test_a_function_without_the_argument_is_called_without():
    metric = FunctionMetric(lambda predictions, targets, scale=2.0: float(scale))
    metric.update(SCORES, LABELS)
    assert metric.compute() == 2


@pytest.mark.parametrize(
    ("metric", "arguments", "message"),
    [
        (RetrievalMAP(), None, "metrics.a.RetrievalMAP: RetrievalMAP must be callable as"),
        (BinaryFairness(2), None, "metrics.a.Fairness: BinaryFairness must be callable as"),
        (
            MeanAbsoluteError(),
            {"weights": 2},
            "adapters.metrics.batch_arguments.weights: must be an argument",
        ),
        (weighted, None, "metrics.a.weighted: FunctionMetric must be callable as"),
    ],
)
def test_arguments_that_do_not_fit_are_found_before_training(metric, arguments, message):
    with pytest.raises(UserError) as caught:
        StageMetrics({"a": metric}, MetricsAdapter(batch_arguments=arguments)).check_arguments()
    assert str(caught.value).startswith(message)


def test_a_part_that_the_batch_lacks():
    adapter = MetricsAdapter(batch_arguments={"indexes": "query"})
    with pytest.raises(UserError, match=r"^adapters\.metrics\.batch_arguments\.indexes: must name a part"):
        adapter.columns({"x": 1})
    with pytest.raises(UserError, match=r"batch_arguments\.indexes: must be numbers, one for each row"):
        adapter.columns({"query": ["a", "b"]})


@pytest.mark.parametrize("given", [3, {"indexes": 1.5}])
def test_accessors_that_are_none(given):
    with pytest.raises(UserError, match=r"^MetricsAdapter\.batch_arguments"):
        MetricsAdapter(batch_arguments=given)
