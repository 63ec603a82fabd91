import pickle

import pytest
import torch
from torch import Tensor, nn

from polytask import UserError
from polytask.adapters import BatchAdapter, CriterionAdapter, LoggingAdapter, MetricsAdapter
from polytask.losses import MultiTaskLoss, Targets

NAN = float("nan")
NAMES = ("digit", "parity")
X = torch.arange(8.0).reshape(4, 2)
DIGIT = torch.tensor([3, -100, 1, 0])
PARITY = torch.tensor([1.0, 0.0, NAN, NAN])


def adapted(batch, names=NAMES, **options):
    return BatchAdapter(**options)(batch, names)


# BatchAdapter


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        ((X, {"digit": DIGIT, "parity": PARITY}), {}),
        ((X, {"parity": PARITY, "digit": DIGIT, "extra": X}), {}),
        ((X, [DIGIT, PARITY]), {}),
        ([X, (DIGIT, PARITY)], {}),
        ((DIGIT, X, PARITY), {"input_accessor": 1, "target_accessor": {"digit": 0, "parity": 2}}),
        (
            {"x": X, "y": {"d": DIGIT, "p": PARITY}},
            {
                "input_accessor": "x",
                "target_accessor": {"digit": "y.d", "parity": lambda batch: batch["y"]["p"]},
            },
        ),
        (
            {"x": X, "y": [DIGIT, PARITY]},
            {"input_accessor": lambda batch: batch["x"], "target_accessor": "y"},
        ),
    ],
)
def test_inputs_and_targets_are_found(batch, options):
    found = adapted(batch, **options)
    assert found.inputs is X
    assert found.size == 4
    assert list(found.targets) == ["digit", "parity"]
    assert found.targets.counts == {"digit": 3, "parity": 2}
    assert found.targets.full == frozenset()
    assert {name: labels.rows.tolist() for name, labels in found.targets.partial.items()} == {
        "digit": [0, 2, 3],
        "parity": [0, 1],
    }
    assert found.rows is None


def test_one_tensor_is_the_target_of_the_only_task():
    assert adapted((X, DIGIT), ["digit"]).targets.counts == {"digit": 3}


def test_inputs_by_name():
    batch = {"image": X, "meta": {"age": DIGIT}, "digit": DIGIT}
    options = {"input_accessor": {"image": "image", "age": "meta.age"}, "target_accessor": {"digit": "digit"}}
    assert adapted(batch, **options).inputs == {"image": X, "age": DIGIT}


@pytest.mark.parametrize(
    "batch",
    [
        (X, {"digit": DIGIT}),
        (X, {"digit": DIGIT, "parity": None}),
        (X, {"digit": DIGIT, "parity": torch.full((4,), NAN)}),
        (X, [DIGIT, torch.full((4,), -100)]),
        (X, [DIGIT, None]),
    ],
)
def test_a_task_without_labels_is_absent(batch):
    assert list(adapted(batch).targets) == ["digit"]


def test_a_target_whose_accessor_finds_nothing_is_absent():
    accessors = {"digit": "digit", "parity": "parity"}
    assert list(adapted({0: X, "digit": DIGIT}, target_accessor=accessors).targets) == ["digit"]
    assert adapted({0: X}, target_accessor=accessors).targets == {}


def test_another_ignore_index():
    found = BatchAdapter()((X, {"digit": torch.tensor([255, 1, -100, 255])}), NAMES, {"digit": 255})
    assert found.targets.counts == {"digit": 2}
    assert found.targets.partial["digit"].rows.tolist() == [1, 2]


def test_rows_with_any_label_are_labelled():
    numbers = torch.tensor([[1.0, NAN], [1.0, 2.0], [NAN, NAN], [3.0, 4.0]])
    mask = torch.tensor([[1, -100], [1, 0], [-100, -100], [0, 0]])
    found = adapted((X, {"digit": mask, "parity": numbers}))
    assert {name: labels.rows.tolist() for name, labels in found.targets.partial.items()} == {
        "digit": [0, 1, 3],
        "parity": [0, 1, 3],
    }
    assert found.targets.counts == {"digit": 5, "parity": 5}


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (
            (X, {"digits": DIGIT, "parity": PARITY}),
            {},
            "targets: must contain task 'digit', got digits. Did you mean 'digits'?",
        ),
        ((X, {"x": DIGIT, "y": PARITY}), {}, "targets: must contain one of the tasks digit, parity, got"),
        (
            (X, [DIGIT]),
            {},
            "targets: must be a dict by task, or a list in the order digit, parity, got 1 targets.",
        ),
        (
            (X, DIGIT),
            {},
            "targets: must be a dict by task, or a list in the order digit, parity, got Tensor.",
        ),
        (
            (X,),
            {},
            "adapters.batch.target_accessor: must name a part of the batch, not 1, got a tuple of 1 parts.",
        ),
        (X, {}, "adapters.batch.target_accessor: targets are required in this stage, got a Tensor"),
        (
            (X, 1),
            {"target_accessor": None},
            "adapters.batch.target_accessor: targets are required in this stage",
        ),
        (
            {"y": X},
            {"input_accessor": "x"},
            "adapters.batch.input_accessor: must name a part of the batch, not 'x'",
        ),
        (
            {"y": X},
            {"input_accessor": {"a": "x"}},
            "adapters.batch.input_accessor.a: must name a part of the batch, not 'x'",
        ),
        (
            (X, DIGIT),
            {"target_accessor": {"digt": 1}},
            "adapters.batch.target_accessor: no task is called 'digt'.",
        ),
    ],
)
def test_batches_that_do_not_fit(batch, options, message):
    with pytest.raises(UserError) as caught:
        adapted(batch, **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_accessor": None}, "BatchAdapter.input_accessor: must be an index"),
        ({"target_accessor": 1.5}, "BatchAdapter.target_accessor: must be an index"),
        ({"target_accessor": {"digit": []}}, "BatchAdapter.target_accessor.digit: must be an index"),
        ({"task_accessor": {"digit": 1}}, "BatchAdapter.task_accessor: must be an index"),
    ],
)
def test_accessors_that_are_none(options, message):
    with pytest.raises(UserError, match=f"^{message}"):
        BatchAdapter(**options)


@pytest.mark.parametrize("batch", [X, (X, DIGIT), (X, {"other": DIGIT}), (X,)])
def test_a_stage_that_predicts_looks_for_no_targets(batch):
    found = BatchAdapter()(batch, NAMES, need_targets=False)
    assert found.inputs is X
    assert found.targets is None


def test_a_foreign_criterion_takes_targets_as_they_are():
    target = torch.zeros(4, 7)
    assert adapted((X, target), ()).targets is target
    found = adapted((X, {"anything": target}), ())
    assert not isinstance(found.targets, Targets)


# Task ids


@pytest.mark.parametrize(
    "ids", [1, torch.tensor(1), torch.tensor([1]), torch.ones(4, dtype=torch.uint8), [1, 1, 1, 1]]
)
def test_a_batch_of_one_task(ids):
    found = adapted((X, PARITY, ids), task_accessor=2)
    assert found.rows == {"parity": None}
    assert found.targets.counts == {"parity": 2}
    assert found.targets.partial["parity"].rows.tolist() == [0, 1]


def test_a_batch_of_mixed_tasks():
    found = adapted((X, torch.tensor([5, 6, 7, -100]), torch.tensor([1, 0, 1, 0])), task_accessor=2)
    assert {name: rows.tolist() for name, rows in found.rows.items()} == {"digit": [1, 3], "parity": [0, 2]}
    assert {name: target.tolist() for name, target in found.targets.items()} == {
        "digit": [6, -100],
        "parity": [5, 7],
    }
    assert found.targets.counts == {"digit": 1, "parity": 2}
    assert found.targets.partial["digit"].rows.tolist() == [0]


def test_targets_by_task_beside_task_ids():
    found = adapted((X, {"digit": DIGIT, "parity": PARITY}, torch.tensor([0, 0, 1, 1])), task_accessor=2)
    assert list(found.targets) == ["digit"]
    assert found.targets["digit"].tolist() == [3, -100]


def test_task_ids_are_read_in_prediction_too():
    found = BatchAdapter(task_accessor=1)((X, torch.tensor([0, 0, 1, 1])), NAMES, need_targets=False)
    assert list(found.rows) == ["digit", "parity"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (2, "ids must be 0 to 1 for digit, parity, got id 2."),
        (torch.tensor([0, 1, -1, 0]), "ids must be 0 to 1 for digit, parity, got id -1."),
        (
            torch.tensor([0, 1]),
            "must be one integer for the batch, or one for each row, got (2,) int64 for 4 rows.",
        ),
        (
            torch.zeros(4, 1, dtype=torch.long),
            "must be one integer for the batch, or one for each row, got (4, 1)",
        ),
        (0.0, "must be one integer for the batch, or one for each row, got () float32 for 4 rows."),
        (["digit"] * 4, "must be one integer for the batch, or one for each row, got list."),
    ],
)
def test_task_ids_that_are_none(ids, message):
    with pytest.raises(UserError) as caught:
        adapted((X, DIGIT, ids), task_accessor=2)
    assert str(caught.value).startswith(f"adapters.batch.task_accessor: {message}")


def test_task_ids_need_names():
    with pytest.raises(UserError, match="task ids require a criterion that names its tasks"):
        adapted((X, DIGIT, 0), (), task_accessor=2)


def test_an_adapter_tells_its_accessors_and_can_be_pickled():
    adapter = pickle.loads(pickle.dumps(BatchAdapter("x", {"digit": "y"}, 2)))
    assert (
        repr(adapter) == "BatchAdapter(input_accessor='x', target_accessor={'digit': 'y'}, task_accessor=2, "
        "id_accessor=None)"
    )


# How things are called


class Records(nn.Module):
    def forward(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs
        return torch.tensor(1.0)


@pytest.mark.parametrize(
    ("places", "args", "kwargs"),
    [
        ((), ("pred", "target"), {}),
        ((1, 0), ("target", "pred"), {}),
        ((0, 1, 2), ("pred", "target", "inputs"), {}),
        ((2, 1, 0), ("inputs", "target", "pred"), {}),
        (("input", "target"), (), {"input": "pred", "target": "target"}),
        ((0, "y"), ("pred",), {"y": "target"}),
        ((0, None), ("pred",), {}),
        ((None, "y", 0), ("inputs",), {"y": "target"}),
    ],
)
@pytest.mark.parametrize("kind", [CriterionAdapter, MetricsAdapter])
def test_arguments_go_where_they_are_wanted(kind, places, args, kwargs):
    assert kind(*places).arguments("inputs", "pred", "target") == (list(args), kwargs)


def test_the_criterion_is_called_that_way():
    criterion = Records()
    CriterionAdapter("output", "label", 0)(criterion, "x", "o", "t")
    assert (criterion.args, criterion.kwargs) == (("x",), {"output": "o", "label": "t"})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            CriterionAdapter,
            {"pred_argument": 1},
            "CriterionAdapter: positions of arguments must be 0, 1, … without gaps, got [1, 1]",
        ),
        (
            MetricsAdapter,
            {"input_argument": 3},
            "MetricsAdapter: positions of arguments must be 0, 1, … without gaps, got [0, 1, 3]",
        ),
        (
            MetricsAdapter,
            {"target_argument": -1},
            "MetricsAdapter: positions of arguments must be 0, 1, … without gaps",
        ),
        (
            MetricsAdapter,
            {"pred_argument": "x", "target_argument": "x"},
            "MetricsAdapter: keywords of arguments must be unique",
        ),
        (
            MetricsAdapter,
            {"pred_transforms": "argmax"},
            "MetricsAdapter.pred_transforms: must be a callable, a list of callables, or a mapping by task",
        ),
        (LoggingAdapter, {"pred_transforms": [abs, 3]}, "LoggingAdapter.pred_transforms: must be a callable"),
        (
            LoggingAdapter,
            {"target_transforms": {"a": 1}},
            "LoggingAdapter.target_transforms.a: must be a callable",
        ),
        (
            CriterionAdapter,
            {"input_transforms": {"a": abs}},
            "CriterionAdapter.input_transforms: must be a callable or a list",
        ),
    ],
)
def test_adapters_that_cannot_be(kind, options, message):
    with pytest.raises(UserError) as caught:
        kind(**options)
    assert str(caught.value).startswith(message)


def double(value: Tensor) -> Tensor:
    return value * 2


@pytest.mark.parametrize("kind", [MetricsAdapter, LoggingAdapter])
def test_transforms_for_all_tasks_and_by_task(kind):
    one = torch.ones(())
    adapter = kind(
        input_transforms={"a": double},
        pred_transforms=[double, double],
        target_transforms={"a": [double] * 3, "b": None},
    )
    assert adapter.transformed("a", one, one, one) == (2, 4, 8)
    assert adapter.transformed("b", one, one, one) == (1, 4, 1)
    assert adapter.transformed("b", None, one, None) == (None, 4, None)
    assert adapter.tasks() == {"a", "b"}


def test_without_transforms_values_stay_what_they_are():
    value = torch.ones(1)
    assert all(part is value for part in LoggingAdapter().transformed("a", value, value, value))
    assert LoggingAdapter().tasks() == set()


# CriterionAdapter and what criteria return


def regression(reduction="mean"):
    return MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}, reduction=reduction)


OUTPUTS = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([2.0, 2.0])}
TARGETS = {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([1.0, NAN])}


def test_the_total_and_the_losses():
    total, losses = CriterionAdapter()(regression(), None, OUTPUTS, Targets.count(TARGETS))
    assert total == 6
    assert losses == {"a": 5, "b": 1}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pred_transforms": double}, {"a": 20, "b": 9}),
        ({"pred_transforms": {"b": double}}, {"a": 5, "b": 9}),
        ({"target_transforms": {"b": [double, double]}}, {"a": 5, "b": 4}),
        ({"target_transforms": lambda target: target.unsqueeze(-1)}, {"a": 5, "b": 1}),
    ],
)
@pytest.mark.parametrize("count", [Targets.count, dict])
def test_transforms_before_the_criterion(options, expected, count):
    _, losses = CriterionAdapter(**options)(regression(), None, OUTPUTS, count(TARGETS))
    assert losses == expected


def test_a_transform_may_change_the_number_of_elements():
    one_hot = CriterionAdapter(target_transforms=lambda target: nn.functional.one_hot(target, 3).float())
    output, target = torch.rand(4, 3), torch.tensor([0, 1, 2, 2])
    criterion = MultiTaskLoss({"a": nn.MSELoss()})
    total, _ = one_hot(criterion, None, {"a": output}, Targets.count({"a": target}))
    torch.testing.assert_close(total, nn.MSELoss()(output, nn.functional.one_hot(target, 3).float()))


def test_a_transform_may_change_the_number_of_labelled_elements():
    wide = CriterionAdapter(target_transforms=lambda target: target[:, None].expand(-1, 3))
    target = torch.tensor([1.0, NAN])
    output = torch.zeros(2, 3)
    total, _ = wide(MultiTaskLoss({"a": nn.MSELoss()}), None, {"a": output}, Targets.count({"a": target}))
    assert total == 1


def test_a_transform_that_invents_labels_is_an_error():
    adapter = CriterionAdapter(target_transforms={"b": torch.nan_to_num})
    with pytest.raises(UserError, match=r"must keep missing labels missing.*task 'b'"):
        adapter(regression(), None, OUTPUTS, Targets.count(TARGETS))


def test_transforms_by_task_need_names():
    with pytest.raises(
        UserError, match=r"^adapters\.criterion\.pred_transforms: by task require a dict by task"
    ):
        CriterionAdapter(pred_transforms={"a": double})(Records(), None, torch.ones(1), torch.ones(1))


def test_inputs_are_transformed_too():
    criterion = Records()
    CriterionAdapter(input_argument=2, input_transforms=double)(criterion, torch.ones(1), "o", "t")
    assert criterion.args[2] == 2


class Foreign(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, outputs, targets):
        return self.value


ONE, TWO = torch.tensor(1.0), torch.tensor([2.0])


@pytest.mark.parametrize(
    ("value", "losses"),
    [
        (TWO, {}),
        (TWO[None], {}),
        ({"total": TWO}, {}),
        ({"a": ONE, "total": TWO, "b": 3.0}, {"a": 1, "b": 3}),
        ((TWO, {"a": ONE}), {"a": 1}),
        ((TWO, {"a": ONE, "total": TWO}), {"a": 1}),
    ],
)
def test_what_a_foreign_criterion_may_return(value, losses):
    total, found = CriterionAdapter()(Foreign(value), None, None, None)
    assert total.shape == ()
    assert total == 2
    assert found == losses


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"a": ONE, "b": ONE},
            "criterion: the dict of Foreign must have a 'total', the tensor to minimise, got the keys a, b.",
        ),
        ({}, "criterion: the dict of Foreign must have a 'total'"),
        (
            torch.ones(3),
            "criterion: Foreign must return one number, or a dict with 'total', got a tensor of",
        ),
        (
            {"total": torch.ones(3)},
            "criterion: Foreign must return one number, or a dict with 'total', got a tensor",
        ),
        ({"total": 1.0}, "criterion: Foreign must return one number, or a dict with 'total', got float."),
        (
            (1.0, {"a": ONE}),
            "criterion: Foreign must return one number, or a dict with 'total', got float.",
        ),
        ((ONE, TWO), "criterion: Foreign must return one number, or a dict with 'total', got tuple."),
        (None, "criterion: Foreign must return one number, or a dict with 'total', got NoneType."),
        (
            {"total": ONE, "a": torch.ones(2)},
            "criterion: the loss 'a' must be one number, got a tensor of shape (2,).",
        ),
        ({"total": ONE, "a": "x"}, "criterion: the loss 'a' must be one number, got str."),
    ],
)
def test_what_a_foreign_criterion_may_not_return(value, message):
    with pytest.raises(UserError) as caught:
        CriterionAdapter()(Foreign(value), None, None, None)
    assert str(caught.value).startswith(message)


def test_a_subclass_with_a_forward_of_its_own():
    class Own(MultiTaskLoss):
        def forward(self, outputs, targets):
            losses = self.compute_task_losses(outputs, targets)
            return {**losses, "total": losses["a"] * losses["b"]}

    total, losses = CriterionAdapter()(Own({"a": nn.MSELoss(), "b": nn.MSELoss()}), None, OUTPUTS, TARGETS)
    assert (total, losses) == (5, {"a": 5, "b": 1})
