import math

import pyarrow as pa
import pytest
import torch

from polytask import UserError
from polytask.data import TableTargets


def encode(values, **options):
    return TableTargets({"t": "c"}, **options).encode(pa.table({"c": values}))["t"]


def check(*parts, **options):
    TableTargets({"t": "c"}, **options).learn(pa.table({"c": part}) for part in parts)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, None], [0, 1, -100]),
        ([0, -100, 1], [0, -100, 1]),
        (["0", "1", None], [0, 1, -100]),
        ([True, False, None], [1, 0, -100]),
    ],
)
def test_whole_numbers_and_truth_values_are_classes(values, expected):
    found = encode(values)
    assert found.dtype == torch.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("values", [[0.5, None, 2.0], ["0.5", None, "2.0"]])
def test_other_numbers_are_numbers(values):
    found = encode(values)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([0.5, math.nan, 2.0], nan_ok=True)


def test_types_that_are_named():
    numbers = encode([3, None], task_types={"t": "regression"})
    assert numbers.dtype == torch.float32
    assert numbers.tolist() == pytest.approx([3, math.nan], nan_ok=True)
    assert encode([1.0, None], task_types={"t": "classification"}).tolist() == [1, -100]


def test_texts_are_numbered_in_the_order_of_the_classes():
    assert encode(["low", None, "high"], classes={"t": ["low", "mid", "high"]}).tolist() == [0, -100, 2]
    numbered = pa.chunked_array([["low"], ["high"]]).dictionary_encode()
    assert encode(numbered, classes={"t": ["low", "high"]}).tolist() == [0, 1]


def test_one_text_against_all_others():
    assert encode(["low", None, "high"], classes={"t": "high"}).tolist() == [0, -100, 1]


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        (["low", "high"], {}, "task 't': targets must be numbers, or strings with named classes, got 'low'"),
        (["lo"], {"classes": {"t": ["low", "up"]}}, "no class is called 'lo'. Did you mean 'low'?"),
        (
            [0, -1],
            {},
            "class labels must be 0 or more, or -100 for a missing label, got class -1. "
            "Write task_types: {t: regression}",
        ),
        ([0.5], {"task_types": {"t": "classification"}}, "class labels must be whole numbers, got 0.5"),
        ([math.inf], {"task_types": {"t": "classification"}}, "class labels must be whole numbers, got inf"),
        ([0, 3], {"classes": {"t": 3}}, "class labels must be from 0 to 2 for 3 classes, got class 3"),
    ],
)
def test_labels_that_are_no_classes(values, options, text):
    with pytest.raises(UserError) as raised:
        encode(values, **options)
    assert text in str(raised.value)
    assert "task 't'" in str(raised.value)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([[0, 2], [3, 0]], "class labels must be 0 to 3 without gaps, got none of class 1"),
        ([[1, 2]], "class labels must be 0 to 2 without gaps, got none of class 0"),
        ([[None, None]], "requires a label, got none in column 'c'"),
        ([pa.array([None, None], pa.float64())], "requires a label"),
    ],
)
def test_what_cannot_be_trained_on(parts, text):
    with pytest.raises(UserError) as raised:
        check(*parts)
    assert text in str(raised.value)


def test_what_can_be_trained_on():
    check([0, 2], [1, None])
    check([0, 2], classes={"t": 3})
    check([None, 0.5])
    check(["low"], classes={"t": ["low", "high"]})
    check([0])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (({},), "needs at least one task"),
        (({"1": "c"},), "a task name must be a letter"),
        (({"t": "c"}, {"s": ["a"]}), "no task is called 's'"),
        (({"t": "c"}, {"t": ["a", "a"]}), "their unique names in order"),
        (({"t": "c"}, {"t": []}), "their unique names in order"),
        (({"t": "c"}, {"t": 0}), "the number of classes"),
        (({"t": "c"}, {"t": [False, True]}), "Quote numbers"),
        (({"t": "c"}, None, {"t": "regresion"}), "Did you mean 'regression'"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, text):
    with pytest.raises(UserError, match=text):
        TableTargets(*arguments)
