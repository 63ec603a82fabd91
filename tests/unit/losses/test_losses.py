import copy
import pickle

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.losses import MultiTaskLoss, Targets, TaskLosses
from polytask.weighting import (
    DBMTL,
    MGDA,
    Equal,
    Fixed,
    GradDrop,
    GramianSolution,
    GramianWeighting,
    LossWeighting,
)
from tests.errors import refusal

NAN = float("nan")


class Doubling(LossWeighting):
    """A weighting with a parameter, and a weight that depends on the losses."""

    def setup(self, names):
        super().setup(names)
        self.scale = nn.Parameter(torch.full((len(self.names),), 2.0))

    def scalar(self, losses, columns):
        scale = self.scale if columns is None else self.scale[columns]
        return (scale * losses**2).sum()


class NeedsGramian(GramianWeighting):
    def solve(self, step):
        return GramianSolution(step.gramian.diagonal())


def regression(**options):
    return MultiTaskLoss({"a": nn.MSELoss(), "b": nn.L1Loss()}, **options)


OUTPUTS = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[2.0], [5.0]])}
TARGETS = {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([[1.0], [1.0]])}
# The losses are 5 and 2.5.


@pytest.mark.parametrize(
    ("options", "total"),
    [
        ({}, 7.5),
        ({"loss_weights": {"b": 2.0}}, 10.0),
        ({"loss_weights": [0.0, 1.0]}, 2.5),
        ({"loss_weights": (1, 1)}, 7.5),
        ({"weighting": Fixed({"a": 0.1, "b": 2})}, 5.5),
        ({"weighting": Fixed({"a": 0.1, "b": 2}), "loss_weights": {"a": 10}}, 10.0),
        ({"reduction": "sum"}, 15.0),
        ({"weighting": Doubling()}, 62.5),
    ],
)
def test_the_total(options, total):
    criterion = regression(**copy.deepcopy(options))
    assert criterion(OUTPUTS, TARGETS).item() == pytest.approx(total)
    value, losses = criterion(OUTPUTS, TARGETS, return_dict=True)
    assert value.item() == pytest.approx(total)
    double = 2 if "reduction" in options else 1
    assert {name: loss.item() for name, loss in losses.items()} == {"a": 5 * double, "b": 2.5 * double}


def test_lists_are_in_task_order():
    criterion = regression()
    assert criterion(list(OUTPUTS.values()), tuple(TARGETS.values())).item() == 7.5
    assert criterion(OUTPUTS, list(TARGETS.values())).item() == 7.5


def test_the_order_of_keys_does_not_matter():
    outputs, targets = (dict(reversed(values.items())) for values in (OUTPUTS, TARGETS))
    losses = regression().measurement.measure(outputs, targets)
    assert losses.names == ("a", "b")
    assert losses.means.tolist() == [5.0, 2.5]


def test_a_task_without_labels_is_left_out():
    criterion = regression(weighting=Fixed({"a": 3, "b": 2}), loss_weights={"b": 10})
    for targets in (
        {"b": TARGETS["b"]},
        {"a": None, "b": TARGETS["b"]},
        {"a": torch.tensor([NAN, NAN]), "b": TARGETS["b"]},
        {"a": torch.zeros(0), "b": TARGETS["b"]},
    ):
        total, losses = criterion(OUTPUTS, targets, return_dict=True)
        assert total.item() == 50
        assert list(losses) == ["b"]


def test_an_absent_task_gets_no_gradient():
    outputs = {name: output.clone().requires_grad_() for name, output in OUTPUTS.items()}
    regression()(outputs, {"a": torch.tensor([NAN, NAN]), "b": TARGETS["b"]}).backward()
    assert outputs["a"].grad is None
    assert outputs["b"].grad.tolist() == [[0.5], [0.5]]


def test_no_label_at_all():
    criterion = regression()
    assert criterion.compute_task_losses(OUTPUTS, {}) == {}
    assert criterion.measurement.measure(OUTPUTS, {"a": torch.tensor([NAN, NAN])}).names == ()
    with pytest.raises(UserError, match="must have a label of at least one task"):
        criterion(OUTPUTS, {})


def test_sums_and_counts_make_the_mean_over_micro_batches():
    torch.manual_seed(0)
    output, target = torch.randn(10, 3), torch.randn(10, 3)
    target[torch.rand(10, 3) < 0.5] = NAN
    criterion = MultiTaskLoss({"a": nn.MSELoss()})
    parts = [
        criterion.measurement.measure({"a": output[rows]}, {"a": target[rows]})
        for rows in ([0, 1, 2], range(3, 10))
    ]
    whole = criterion.measurement.measure({"a": output}, {"a": target})
    sums, counts = sum(part.sums for part in parts), sum(part.counts for part in parts)
    torch.testing.assert_close(sums / counts, whole.means)
    assert counts.item() == (~target.isnan()).sum().item()


def test_counts_with_class_weights_are_their_total():
    criterion = MultiTaskLoss({"a": nn.CrossEntropyLoss(torch.tensor([1.0, 5.0]))})
    losses = criterion.measurement.measure({"a": torch.zeros(3, 2)}, {"a": torch.tensor([1, 0, -100])})
    assert losses.counts.tolist() == [6.0]


def test_tensor_and_plain_divisors_together():
    losses = {"a": nn.CrossEntropyLoss(torch.tensor([1.0, 5.0])), "b": nn.MSELoss()}
    outputs = {"a": torch.zeros(2, 2), "b": torch.ones(2)}
    found = MultiTaskLoss(losses).measurement.measure(
        outputs, {"a": torch.tensor([1, 0]), "b": torch.zeros(2)}
    )
    assert found.counts.tolist() == [6.0, 2.0]


def test_means_of_task_losses():
    losses = TaskLosses(("a", "b"), torch.tensor([6.0, 1.0]), torch.tensor([3.0, 2.0]))
    assert losses.means.tolist() == [2.0, 0.5]


def test_training_goes_on_after_a_validation_in_inference_mode():
    criterion, output = regression(), OUTPUTS["a"].clone().requires_grad_()
    with torch.inference_mode():
        criterion(OUTPUTS, TARGETS)
    criterion({"a": output, "b": OUTPUTS["b"].clone().requires_grad_()}, TARGETS).backward()
    assert output.grad.tolist() == [1.0, 3.0]
    assert criterion.get_task_weights() == {"a": 1.0, "b": 1.0}


def test_half_precision_tasks_stand_beside_others():
    outputs = {"a": OUTPUTS["a"].half(), "b": OUTPUTS["b"].bfloat16()}
    losses = regression().measurement.measure(outputs, TARGETS)
    assert losses.means.dtype is torch.float32
    assert losses.means.tolist() == [5.0, 2.5]


def test_doubles_stay_doubles():
    outputs = {name: output.double() for name, output in OUTPUTS.items()}
    assert regression()(outputs, TARGETS).dtype is torch.float64


# Names


def test_one_loss_serves_the_tasks_that_are_named():
    criterion = MultiTaskLoss(nn.MSELoss(), tasks=["a", "b"])
    assert criterion.names == ("a", "b")
    assert criterion.task_losses["a"] is criterion.task_losses["b"]


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (OUTPUTS, ("a", "b")),
        (list(OUTPUTS.values()), ("task0", "task1")),
        (OUTPUTS["a"], ("task0",)),
    ],
)
def test_one_loss_takes_the_names_from_the_first_outputs(outputs, names):
    criterion = MultiTaskLoss(nn.MSELoss())
    targets = OUTPUTS if isinstance(outputs, dict) else outputs
    assert criterion(outputs, targets).item() == 0
    assert criterion.names == names


def test_late_names_are_refused_where_the_optimizer_would_miss_parameters():
    with pytest.raises(UserError, match=r"^tasks: is required with Doubling.*tasks=\['a', 'b'\]"):
        MultiTaskLoss(nn.MSELoss(), weighting=Doubling())(OUTPUTS, TARGETS)


def test_parameters_of_the_weighting_exist_from_the_start():
    assert [name for name, _ in regression(weighting=Doubling()).named_parameters()] == ["weighting.scale"]


def test_tasks_are_named_once():
    criterion = regression()
    with pytest.raises(UserError, match="must be named once"):
        criterion.setup(["a"])


def test_a_weighting_serves_one_criterion():
    weighting = Equal()
    regression(weighting=weighting)
    with pytest.raises(UserError, match="must be used by one criterion only"):
        regression(weighting=weighting)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiTaskLoss([nn.MSELoss()]), "task_losses: must be a loss module, or a mapping"),
        (lambda: MultiTaskLoss({}), "task_losses: needs at least one task"),
        (lambda: MultiTaskLoss({"loss": nn.MSELoss()}), "task_losses: 'loss' is reserved for log keys"),
        (lambda: MultiTaskLoss({"a": nn.MSELoss}), "task_losses.a: must be a torch.nn.Module, got type"),
        (lambda: regression(tasks=["b", "a"]), "tasks: must be None unless task_losses is a single loss"),
        (lambda: regression(reduction="none"), "reduction: must be 'mean' or 'sum', got 'none'"),
        (lambda: regression(weighting="Equal"), "weighting: must be one of polytask.weighting, got str"),
        (lambda: regression(loss_weights={"c": 1}), "loss_weights: no task is called 'c'. Tasks: a, b"),
        (
            lambda: regression(loss_weights=[1.0]),
            "loss_weights: must have one weight for each of the tasks a, b",
        ),
        (
            lambda: regression(loss_weights=0.5),
            "loss_weights: must be a mapping from task to weight, or a list",
        ),
        (
            lambda: regression(loss_weights="12"),
            "loss_weights: must be a mapping from task to weight, or a list",
        ),
        (lambda: regression(loss_weights={"a": -1}), "loss_weights.a: must be a finite number of at least 0"),
        (
            lambda: regression(loss_weights={"a": NAN}),
            "loss_weights.a: must be a finite number of at least 0",
        ),
        (
            lambda: regression(loss_weights={"a": True}),
            "loss_weights.a: must be a finite number of at least 0",
        ),
        (lambda: regression(loss_weights=[0, 0]), "loss_weights: at least one weight must be above 0"),
        (
            lambda: MultiTaskLoss({"a": nn.MSELoss(reduction="sum")}),
            "task_losses.a: must not sum in a criterion with reduction='mean'",
        ),
    ],
)
def test_what_cannot_be_made(make, message):
    assert refusal(make).startswith(message)


def test_a_summing_loss_goes_with_a_summing_criterion():
    criterion = MultiTaskLoss({"a": nn.MSELoss(reduction="sum")}, reduction="sum")
    assert criterion({"a": OUTPUTS["a"]}, {"a": TARGETS["a"]}).item() == 10


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        ({"a": OUTPUTS["a"]}, TARGETS, "task 'b': requires an output of the model. Outputs: a"),
        ({**OUTPUTS, "B": 1, "b": None}, {"c": 1}, "targets: no task is called 'c'. Tasks: a, b"),
        ([OUTPUTS["a"]], TARGETS, "outputs: must have one entry for each of the tasks a, b, got 1 entries"),
        (OUTPUTS, OUTPUTS["a"], "targets: must be a dict by task, or a list in the order a, b, got Tensor"),
        (OUTPUTS, None, "targets: must be a dict by task, or a list in the order a, b, got NoneType"),
    ],
)
def test_what_cannot_be_measured(outputs, targets, message):
    with pytest.raises(UserError) as caught:
        regression()(outputs, targets)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("make", [NeedsGramian, GradDrop])
def test_a_weighting_that_needs_gradients_is_never_silently_equal(make):
    criterion = regression(weighting=make(), loss_weights={"b": 2.0})
    assert criterion(OUTPUTS, TARGETS).item() == 10.0
    with pytest.raises(UserError, match=f"{make.__name__} requires gradients of the parameters by task"):
        criterion(OUTPUTS, TARGETS)
    assert list(criterion.compute_task_losses(OUTPUTS, TARGETS)) == ["a", "b"]


@pytest.mark.parametrize("asked", ["evaluation", "no_grad", "weights", "deferred"])
def test_a_total_that_nobody_minimises_alone_needs_no_gradients(asked):
    criterion = regression(weighting=MGDA())
    criterion.weighting.deferred = asked == "deferred"
    criterion.train(asked != "evaluation")
    with torch.set_grad_enabled(asked != "no_grad"):
        for _ in range(3):
            assert criterion(OUTPUTS, TARGETS).item() == 7.5
            if asked == "weights":
                criterion.weighting(torch.eye(2))


@pytest.mark.parametrize(
    "clone", [lambda value: value, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_the_weights_of_a_weighting_that_needs_gradients_are_those_of_its_last_step(clone):
    source = regression(weighting=MGDA(), loss_weights={"b": 0.5})
    assert source.get_task_weights() == {"a": 1.0, "b": 0.5}
    source.weighting(torch.diag(torch.tensor([1.0, 3.0])))
    criterion = clone(source)
    assert criterion.get_task_weights() == pytest.approx({"a": 0.75, "b": 0.125})
    names, own, effective = criterion.combination.own_and_effective_weights()
    assert (names, own.tolist(), effective.tolist()) == (("a", "b"), [0.75, 0.25], [0.75, 0.125])
    criterion.weighting(torch.eye(1), ["b"])
    assert criterion.get_task_weights() == pytest.approx({"b": 0.5})
    criterion.weighting(torch.eye(2), names=["a", "b"])
    assert criterion.get_task_weights() == pytest.approx({"a": 0.5, "b": 0.25})
    if criterion is not source:
        assert source.get_task_weights() == pytest.approx({"a": 0.75, "b": 0.125})


def test_the_weights_of_an_aggregator_are_those_of_the_heads():
    criterion = regression(weighting=DBMTL())
    assert criterion.get_task_weights() == {"a": 1.0, "b": 1.0}
    criterion.weighting(torch.eye(2), losses=torch.tensor([5.0, 2.5]))
    assert criterion.get_task_weights() == pytest.approx({"a": 0.2, "b": 0.4})


# Weights


def test_weights_before_and_after_a_batch():
    criterion = regression(weighting=Doubling(), loss_weights={"b": 0.5})
    assert criterion.get_task_weights() == {"a": 4.0, "b": 1.0}
    criterion(OUTPUTS, TARGETS)
    assert criterion.get_task_weights() == pytest.approx({"a": 20.0, "b": 2.5})
    criterion(OUTPUTS, {"b": TARGETS["b"]})
    assert criterion.get_task_weights() == pytest.approx({"b": 2.5})
    names, own, effective = criterion.combination.own_and_effective_weights()
    assert (names, own.tolist(), effective.tolist()) == (("b",), [5.0], [2.5])


def test_weights_are_the_derivative_of_the_total():
    criterion = regression(weighting=Doubling(), loss_weights={"b": 0.5})
    losses = {
        name: value.clone().requires_grad_()
        for name, value in {"a": OUTPUTS["a"][:1], "b": OUTPUTS["b"]}.items()
    }
    total, by_task = criterion(losses, {"a": TARGETS["a"][:1], "b": TARGETS["b"]}, return_dict=True)
    gradients = torch.autograd.grad(total, list(losses.values()), retain_graph=True)
    alone = [torch.autograd.grad(by_task[name], losses[name], retain_graph=True)[0] for name in losses]
    for weight, gradient, own in zip(criterion.get_task_weights().values(), gradients, alone, strict=True):
        torch.testing.assert_close(gradient, weight * own)


# Modules


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_are_equal(clone):
    criterion = regression(weighting=Fixed({"a": 1, "b": 2}), loss_weights=[1, 3])
    criterion(OUTPUTS, TARGETS)
    other = clone(criterion)
    assert other(OUTPUTS, TARGETS) == criterion(OUTPUTS, TARGETS)
    assert other.get_task_weights() == {"a": 1.0, "b": 6.0}


def test_a_single_loss_is_no_submodule_before_it_has_tasks():
    criterion = MultiTaskLoss(nn.CrossEntropyLoss(torch.ones(2)))
    assert list(criterion.state_dict()) == []
    criterion.setup(["a"])
    assert list(criterion.state_dict()) == ["task_losses.task_a.weight"]


def test_settings_are_no_state():
    assert not regression(loss_weights=[1, 2], weighting=Fixed({"a": 1, "b": 1})).state_dict()


def test_the_representation_tells_the_settings():
    assert "reduction=mean, loss_weights={'a': 1.0, 'b': 2.0}" in repr(regression(loss_weights={"b": 2}))
    assert "reduction=sum" in repr(regression(reduction="sum"))


# Targets


def test_labels_are_counted():
    targets = Targets.count(
        {
            "full": torch.zeros(2, 3),
            "part": torch.tensor([[NAN, 1.0], [NAN, NAN]]),
            "none": torch.tensor([-100, -100]),
            "own": torch.tensor([255, -100]),
            "text": ["a", "b"],
            "nothing": None,
        },
        {"own": 255},
    )
    assert list(targets) == ["full", "part", "own", "text"]
    assert targets.counts == {"full": 6, "part": 1, "own": 1, "text": 1}
    assert targets.full == {"full", "text"}


def test_counted_targets_give_the_same_losses_and_survive_pickling():
    targets = {"a": torch.tensor([0.0, NAN]), "b": TARGETS["b"]}
    counted = pickle.loads(pickle.dumps(Targets.count(targets)))
    assert (counted.counts, counted.full) == ({"a": 1, "b": 2}, {"b"})
    assert regression()(OUTPUTS, counted) == regression()(OUTPUTS, targets)
