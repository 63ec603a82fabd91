"""None, NaN, NA and NaT are missing in every container that holds targets or inputs."""

import numpy as np
import pandas as pd
import polars
import pytest
import torch

from polytask import UserError
from polytask.data import ArrayDataset, create_multitask_dataloader
from polytask.data._missing_values import array_with_missing, is_missing_value, missing_of, numbers_of
from polytask.data._tensors import as_inputs, as_tensor, as_tensors

MISSING = {"None": None, "nan": float("nan"), "NA": pd.NA, "NaT": pd.NaT, "numpy": np.float32("nan")}
VALUES = {
    "integers": ([2, 0, 1], [2, 0, -100, 1], torch.int64),
    "booleans": ([True, False, True], [1, 0, -100, 1], torch.int64),
    "floats": ([0.5, 2.0, 1.0], [0.5, 2.0, float("nan"), 1.0], torch.float32),
    "strings": (["c", "a", "b"], [2, 0, -100, 1], torch.int64),
}
OBJECTS = {
    "list": list,
    "tuple": tuple,
    "object array": lambda values: np.array([*values, None], dtype=object)[:-1],
    "object series": lambda values: pd.Series(values, dtype=object),
}
SERIES = {
    "integers": ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt64", "int64[pyarrow]", "uint8[pyarrow]"),
    "booleans": ("boolean", "bool[pyarrow]"),
    "floats": ("Float32", "Float64", "float64", "double[pyarrow]"),
    "strings": ("string", "str", "string[python]", "string[pyarrow]", "category"),
}
POLARS = {
    "integers": (polars.Int8, polars.UInt32, polars.Int64),
    "booleans": (polars.Boolean,),
    "floats": (polars.Float32, polars.Float64),
    "strings": (polars.String, polars.Categorical),
}


def with_missing(kind, value):
    first, second, last = VALUES[kind][0]
    return [first, second, value, last]


def containers(kind):
    for name, make in OBJECTS.items():
        for missing, value in MISSING.items():
            # numpy makes floating point numbers of these, which are values.
            if (
                name in ("list", "tuple")
                and kind in ("integers", "booleans")
                and isinstance(value, float | np.floating)
            ):
                continue
            yield f"{name} with {missing}", make(with_missing(kind, value))
    for dtype in SERIES[kind]:
        yield f"pandas {dtype}", pd.Series(with_missing(kind, None), dtype=dtype)
    for dtype in POLARS[kind]:
        yield f"polars {dtype}", polars.Series(with_missing(kind, None), dtype=dtype)


FAMILY = [
    pytest.param(kind, column, id=f"{kind}: {name}") for kind in VALUES for name, column in containers(kind)
]


def same(found, expected):
    return found.tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("kind", "column"), FAMILY)
def test_a_missing_value_is_no_label(kind, column):
    _, expected, dtype = VALUES[kind]
    classes = {"t": ["a", "b", "c"]} if kind == "strings" else None
    data = ArrayDataset(np.zeros((4, 1)), {"t": column}, classes=classes)
    found = data.take(torch.arange(4))[1]["t"]
    assert found.dtype == dtype
    assert same(found, expected)
    loader = create_multitask_dataloader(np.zeros((4, 1)), {"t": column}, 4, classes=classes, shuffle=False)
    assert same(next(iter(loader))[1]["t"], expected)


@pytest.mark.parametrize(("kind", "column"), [own for own in FAMILY if own.values[0] != "strings"])
def test_a_batch_may_hold_missing_values(kind, column):
    expected = VALUES[kind][1]
    assert same(as_tensors({"t": column}, "targets")["t"], expected)
    assert same(as_tensor(column, "targets", -100), expected)
    floats = [float(value) if value != -100 else float("nan") for value in expected]
    assert same(as_inputs(column, torch.float32), floats)


@pytest.mark.parametrize("value", MISSING.values(), ids=MISSING)
@pytest.mark.parametrize("make", [list, lambda rows: np.array(rows, dtype=object), pd.DataFrame])
def test_rows_of_several_values(make, value):
    nan = float("nan")
    rows = make([[1.0, value], [0.5, 2.0]])
    data = ArrayDataset(rows, {"t": rows})
    inputs, targets = data.take(torch.arange(2))
    for found in (inputs, targets["t"]):
        assert same(found.flatten(), [1.0, nan, 0.5, 2.0])
    several = ArrayDataset([[0.0]] * 2, {"t": make([[True, value], [False, True]])})
    assert same(several.take(torch.arange(2))[1]["t"].flatten(), [1, nan, 0, 1])


def test_another_label_than_the_default_is_ignored():
    data = ArrayDataset([[0.0]] * 3, {"t": [1, pd.NA, 0]}, ignore_index=255)
    assert data.targets["t"].tolist() == [1, 255, 0]


@pytest.mark.parametrize(
    "column", [[None, None], [pd.NA, float("nan")], pd.Series([None, None], dtype="Int64")]
)
def test_a_task_with_missing_values_only(column):
    with pytest.raises(UserError, match="task 't': requires a label"):
        ArrayDataset([[0.0]] * 2, {"t": column})


@pytest.mark.parametrize("column", [[1, "a", None], [{}, None], [[1], None]])
def test_what_is_neither_a_number_nor_missing(column):
    with pytest.raises(UserError, match="targets must be numbers, or strings with named classes"):
        ArrayDataset([[0.0]] * len(column), {"t": np.array([*column, 0], dtype=object)[:-1]})


@pytest.mark.parametrize("value", [0, "", "nan", False, [], {}, np.zeros(2), np.array([np.nan]), b""])
def test_what_is_not_missing(value):
    assert not is_missing_value(value)


def test_arrays_stay_as_they_are():
    for array in (np.arange(3), np.array([1.0, np.nan]), np.array(["a", "nan"])):
        assert array_with_missing(array) is array
    assert array_with_missing([1, 2]).dtype == np.int64
    assert array_with_missing(polars.Series([1, 2])).dtype == np.int64
    assert missing_of(np.array([[1, None], [pd.NA, 2]], dtype=object)).tolist() == [
        [False, True],
        [True, False],
    ]
    assert numbers_of(np.array([1, "a"], dtype=object)) is None
    assert numbers_of(np.array([1, True], dtype=object)).tolist() == [1, 1]
