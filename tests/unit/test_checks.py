"""What counts as a number: numpy's integers wherever Python's do, booleans nowhere."""

import functools
import importlib
import inspect
import types
import typing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import tests.cases
from polytask import UserError
from polytask._checks import (
    check_integer,
    check_number,
    check_probability,
    is_integer,
    is_name,
    is_number,
    is_number_or_bool,
)
from polytask.data import ArrayDataset, ArrayLoader, TableColumns, Uniform
from polytask.diagnostics import Affinities
from polytask.losses import MultiTaskLoss
from polytask.models import MLP
from polytask.weighting import UPGrad

ROOMS = (
    "models",
    "weighting",
    "losses",
    "data",
    "callbacks",
    "diagnostics",
    "gradients",
    "adapters",
    "system",
)
# Records that are returned or read from files, not arguments; and models that would be downloaded.
LEFT_OUT = {"Affinities", "Grouping", "Stop", "HuggingFaceEncoder", "TimmBackbone"}


@pytest.mark.parametrize(
    "value", [3, np.int8(3), np.int64(3), np.uint16(3), np.array(3), torch.tensor(3)], ids=repr
)
def test_integers(value):
    assert is_integer(value)
    assert is_integer(value, 3, 3)
    assert not is_integer(value, 4)
    assert not is_integer(value, None, 2)
    assert type(check_integer(value, "n")) is int
    assert type(check_number(value, "n")) is float


@pytest.mark.parametrize(
    "value",
    [
        *(
            True,
            np.True_,
            torch.tensor(True),
            3.0,
            np.float64(3),
            "3",
            None,
            [3],
            np.array([3]),
            np.array("3"),
        ),
        *(np.timedelta64(3), np.timedelta64(3, "s"), np.datetime64(3, "s"), torch.tensor(3, device="meta")),
    ],
    ids=repr,
)
def test_what_is_no_integer(value):
    assert not is_integer(value)
    with pytest.raises(UserError, match=r"^n: must be an integer, got "):
        check_integer(value, "n")


@pytest.mark.parametrize("value", [0.5, np.float16(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_numbers(value):
    assert is_number(value)
    assert is_number_or_bool(value)
    assert (check_number(value, "x", above=0, below=1), check_probability(value, "p")) == (0.5, 0.5)
    assert type(check_number(value, "x")) is type(check_probability(value, "p")) is float


@pytest.mark.parametrize(
    "value",
    [
        *(True, np.True_, "0.5", None, 1j, [0.5], np.datetime64("2020-01-01"), np.timedelta64(1)),
        *(torch.tensor(0.5, requires_grad=True), torch.tensor(0.5, device="meta"), torch.tensor(1j)),
    ],
    ids=repr,
)
def test_what_is_no_number(value):
    assert not is_number(value)
    assert is_number_or_bool(value) == (value is True or isinstance(value, np.bool_))
    for check in (check_number, check_probability):
        with pytest.raises(UserError, match=r"^x: must be a "):
            check(value, "x")


@pytest.mark.parametrize(
    ("limits", "value", "rule"),
    [
        ({}, float("nan"), "must be a finite number, got nan."),
        ({}, 10**400, f"must be a finite number, got {10**199}…."),
        ({"above": 0}, 0, "must be a finite number above 0, got 0."),
        (
            {"least": 0, "below": 1},
            np.float32(1),
            "must be a finite number of at least 0 and below 1, got 1.0.",
        ),
        ({"above": 0, "most": 1}, 2, "must be a finite number above 0 and at most 1, got 2."),
    ],
)
def test_the_range_is_in_the_message(limits, value, rule):
    with pytest.raises(UserError) as caught:
        check_number(value, "x", **limits)
    assert str(caught.value) == f"x: {rule}"


@pytest.mark.parametrize(
    ("limits", "rule"),
    [((5,), "of at least 5"), ((None, 1), "of at most 1"), ((0, 1), "from 0 to 1"), ((5, 9), "from 5 to 9")],
)
def test_the_range_of_integers_is_in_the_message(limits, rule):
    with pytest.raises(UserError) as caught:
        check_integer(np.int64(3), "n", *limits)
    assert str(caught.value) == f"n: must be an integer {rule}, got 3."


def test_names():
    assert is_name("digit_2")
    assert not any(map(is_name, ("2digit", "", "a-b", "é", None, 3)))


# ---- public constructors ------------------------------------------------------------------------


def integers_of(function):
    """Parameters that may be an integer, by the annotation."""
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    for name, hint in hints.items():
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        if name != "return" and int in (typing.get_args(hint) if union else (hint,)):
            yield name


def public():
    """Public classes and functions of these rooms with the parameters that may be an integer."""
    for room in ROOMS:
        module = importlib.import_module(f"polytask.{room}")
        for name in module.__all__:
            member = getattr(module, name)
            if callable(member) and name not in LEFT_OUT:
                yield from ((member, parameter) for parameter in integers_of(member))


@functools.cache
def constructed():
    """Arguments with which `tests.cases` calls the public classes and functions."""
    calls: dict[typing.Any, list[dict[str, typing.Any]]] = {}

    def note(member, given, named):
        bound = inspect.signature(member).bind(*given, **named)
        bound.apply_defaults()
        calls.setdefault(member, []).append(bound.arguments)

    def recording(cls, original):
        def init(self, *given, **named):
            if type(self) is cls:
                note(cls, given, named)
            original(self, *given, **named)

        return functools.wraps(original)(init)

    def calling(function):
        def call(*given, **named):
            note(function, given, named)
            return function(*given, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for member in {member for member, _ in public()}:
            if inspect.isclass(member):
                patch.setattr(member, "__init__", recording(member, member.__init__))
            elif hasattr(tests.cases, member.__name__):
                patch.setattr(tests.cases, member.__name__, calling(member))
        for case in [*tests.cases.MODELS, *tests.cases.PARTS, *tests.cases.WEIGHTINGS]:
            case.build()
    return calls


def heads():
    return {"a": nn.Linear(6, 2), "b": nn.Linear(6, 1)}


def rows():
    return ArrayDataset(np.zeros((4, 2)), {"a": np.array([0, 1, 0, 1])})


def experts(**options):
    return {"expert": functools.partial(MLP, 12, [7], 6), "heads": heads(), "gate": 12, **options}


def levels(**options):
    layers = [functools.partial(MLP, 12, [7], 6), functools.partial(MLP, 6, [], 6)]
    return {"experts": layers, "heads": heads(), "gates": [12, 6], **options}


def table(folder):
    pq.write_table(pa.table({"x": [0.5, 1.0, 2.0, 4.0], "y": [0, 1, 0, 1]}), folder / "t.parquet")
    return {"files": folder, "columns": TableColumns(["x"]), "targets": {"y": "y"}}


def affinities():
    values = np.array([[0.0, 0.2], [0.3, 0.0]])
    return Affinities(("a", "b"), "lookahead", values, shared_parameters=5, task_parameters={"a": 1, "b": 1})


def system():
    criterion = MultiTaskLoss({"a": nn.MSELoss()}, weighting=UPGrad())
    return {"model": nn.Linear(2, 1), "criterion": criterion, "optimizer": torch.optim.SGD}


def loaders():
    return {"loaders": {name: ArrayLoader(rows(), 2, seed=0) for name in "ab"}, "sampler": Uniform()}


# Calls by name and parameter that `tests.cases` does not make with an integer.
CALLS = {
    ("CGC", "task_experts"): lambda folder: experts(task_experts=1),
    ("CGC", "gate_input"): lambda folder: experts(gate_input=0),
    ("MMoE", "gate_input"): lambda folder: experts(gate_input=0),
    ("DSelectK", "gate_input"): lambda folder: experts(gate_input=0),
    ("PLE", "gate_input"): lambda folder: levels(gate_input=0),
    ("HardParameterSharing", "representation_dim"): lambda folder: {
        "backbone": nn.Linear(12, 6),
        "task_heads": heads(),
        "representation_dim": 6,
    },
    ("create_hard_sharing_model", "shared_head_dim"): lambda folder: {
        "backbone": MLP(12, [], 6),
        "task_configs": {"a": {"output_dim": 2}},
        "shared_head_dim": 4,
    },
    ("create_hard_sharing_model", "representation_dim"): lambda folder: {
        "backbone": nn.Sequential(nn.Linear(12, 6)),
        "task_configs": {"a": {"output_dim": 2}},
        "representation_dim": 6,
    },
    ("DenseHead", "size"): lambda folder: {"input_dim": 3, "output_dim": 2, "size": 8},
    ("DynamicWeightAverage", "window_size"): lambda folder: {
        "task_losses": {"a": nn.MSELoss()},
        "window_size": 3,
    },
    ("TorchJDWeighting", "seed"): lambda folder: {"method": tests.cases.aggregation.UPGrad(), "seed": 1},
    ("Annealed", "epochs"): lambda folder: {"epochs": 3},
    ("ArrayDataset", "ignore_index"): lambda folder: {"inputs": [[0.0]], "ignore_index": 255},
    ("ArrayLoader", "batch_size"): lambda folder: {"dataset": rows(), "batch_size": 2},
    ("ArrayLoader", "seed"): lambda folder: {"dataset": rows(), "seed": 2},
    ("ArrayLoader", "prefetch"): lambda folder: {"dataset": rows(), "prefetch": 1},
    ("create_multitask_dataloader", "batch_size"): lambda folder: {"inputs": [[0.0]], "batch_size": 1},
    ("create_multitask_dataloader", "ignore_index"): lambda folder: {"inputs": [[0.0]], "ignore_index": 255},
    ("create_multitask_dataloader", "seed"): lambda folder: {"inputs": [[0.0]], "seed": 2},
    ("create_multitask_dataloader", "prefetch"): lambda folder: {"inputs": [[0.0]], "prefetch": 1},
    ("KorniaAugmentation", "ignore_index"): lambda folder: {"transforms": [], "ignore_index": 255},
    ("TableColumns", "max_categories"): lambda folder: {"categorical": ["x"], "max_categories": 3},
    ("TableColumns", "embedding_dim"): lambda folder: {"categorical": ["x"], "embedding_dim": 3},
    ("TableDataset", "seed"): lambda folder: {**table(folder), "part": [0, 0.5], "seed": 3},
    ("TableStream", "batch_size"): lambda folder: {**table(folder), "batch_size": 2},
    ("TableStream", "window"): lambda folder: {**table(folder), "window": 8},
    ("TaskLoader", "tasks_per_step"): lambda folder: {**loaders(), "tasks_per_step": 2},
    ("TaskLoader", "epoch"): lambda folder: {**loaders(), "epoch": 4},
    ("TaskLoader", "seed"): lambda folder: {**loaders(), "seed": 4},
    ("Freezer", "until_epoch"): lambda folder: {"names": ["a"], "until_epoch": 2},
    ("Freezer", "until_step"): lambda folder: {"names": ["a"], "until_step": 2},
    ("Affinity", "every"): lambda folder: {"every": 2},
    ("GradientRecorder", "every"): lambda folder: {"every": 2},
    ("LossRecorder", "every"): lambda folder: {"every": 2},
    ("WeightRecorder", "every"): lambda folder: {"every": 2},
    ("group_tasks", "groups"): lambda folder: {"affinities": affinities(), "groups": 2},
    ("group_tasks", "budget"): lambda folder: {"affinities": affinities(), "groups": 2, "budget": 40},
    ("Engine", "refresh_every"): lambda folder: {
        "model": nn.Linear(2, 1),
        "weighting": UPGrad(),
        "refresh_every": 2,
    },
    ("Engine", "steps_per_epoch"): lambda folder: {
        "model": nn.Linear(2, 1),
        "weighting": UPGrad(),
        "steps_per_epoch": 2,
    },
    ("System", "refresh_every"): lambda folder: {**system(), "refresh_every": 2},
    ("BatchAdapter", "input_accessor"): lambda folder: {"input_accessor": 0},
    ("BatchAdapter", "target_accessor"): lambda folder: {"target_accessor": 1},
    ("BatchAdapter", "task_accessor"): lambda folder: {"task_accessor": 2},
    ("BatchAdapter", "id_accessor"): lambda folder: {"id_accessor": 2},
    ("CriterionAdapter", "pred_argument"): lambda folder: {"pred_argument": 0},
    ("CriterionAdapter", "target_argument"): lambda folder: {"target_argument": 1},
    ("CriterionAdapter", "input_argument"): lambda folder: {"input_argument": 2},
    ("MetricsAdapter", "pred_argument"): lambda folder: {"pred_argument": 0},
    ("MetricsAdapter", "target_argument"): lambda folder: {"target_argument": 1},
    ("MetricsAdapter", "input_argument"): lambda folder: {"input_argument": 2},
}


def call_of(member, parameter, folder):
    made = CALLS.get((member.__name__, parameter))
    if made is not None:
        return made(folder)
    for arguments in constructed().get(member, []):
        if is_integer(arguments[parameter]):
            return dict(arguments)
    raise AssertionError(f"{member.__name__} has no case with an integer for {parameter}: add one to CALLS")


@pytest.mark.parametrize(
    ("member", "parameter"), [pytest.param(*pair, id=f"{pair[0].__name__}-{pair[1]}") for pair in public()]
)
def test_public_arguments_take_the_integers_of_numpy_and_no_boolean(member, parameter, tmp_path):
    arguments = call_of(member, parameter, tmp_path)
    given = arguments[parameter]
    plain = member(**arguments)
    made = member(**{**arguments, parameter: np.int64(given)})
    if isinstance(made, nn.Module):
        assert repr(made) == repr(plain)
        sizes = [
            {name: value.shape for name, value in module.state_dict().items()} for module in (made, plain)
        ]
        assert sizes[0] == sizes[1]
    with pytest.raises(UserError) as caught:
        member(**{**arguments, parameter: True})
    assert "True" in str(caught.value) or "bool" in str(caught.value)
