"""A value is one category in a Parquet file and in the CSV file that pandas, polars or pyarrow make of it."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import torch

from polytask import UserError
from polytask.data import TableColumns, TableDataset, TableTargets
from polytask.data._text_forms import by_text, text_form

NIGHT = datetime.datetime(2020, 7, 28)
UTC = datetime.UTC
# Two different values of each type, and a missing one.
COLUMNS = {
    "int64": pa.array([3, None, 7]),
    "int8": pa.array([3, None, -7], pa.int8()),
    "uint64": pa.array([2**63 + 1, None, 5], pa.uint64()),
    "large integers": pa.array([10**17 + 1, None, 10**17 + 2]),
    "whole floats": pa.array([3.0, None, 10_000_000.0]),
    "float64": pa.array([0.1, None, -2.5]),
    "float32": pa.array([0.1, None, 2.5], pa.float32()),
    "large and small floats": pa.array([1e20, None, 1.5e-7]),
    "floats of middle size": pa.array([123456789012.0, None, 0.000015]),
    "zero and its negative": pa.array([-0.0, None, 1.0]),
    "booleans": pa.array([True, None, False]),
    "strings": pa.array(["a", None, "A"]),
    "large strings": pa.array(["a", None, "b"], pa.large_string()),
    "codes with zeros": pa.array(["007", None, "7"]),
    "versions": pa.array(["3.10", None, "3.1"]),
    "dictionary of strings": pa.array(["a", None, "b"]).dictionary_encode(),
    "dictionary of integers": pa.array([3, None, 4]).dictionary_encode(),
    "dates": pa.array([datetime.date(2020, 7, 28), None, datetime.date(2021, 1, 1)]),
    "midnights": pa.array([NIGHT, None, datetime.datetime(2021, 1, 1)]),
    "seconds": pa.array([NIGHT.replace(hour=10), None, NIGHT.replace(hour=11, minute=30)]),
    "microseconds": pa.array([NIGHT.replace(microsecond=120), None, NIGHT.replace(second=1)]),
    "with a time zone": pa.array(
        [NIGHT.replace(hour=10, tzinfo=UTC), None, NIGHT.replace(hour=11, tzinfo=UTC)],
        pa.timestamp("us", "Europe/Berlin"),
    ),
    "times": pa.array([datetime.time(10, 0), None, datetime.time(10, 30, 1)]),
    "decimals": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("3.00")]),
}
WRITERS = {
    "pyarrow": pc.write_csv,
    "pandas": lambda table, path: table.to_pandas(types_mapper=pd.ArrowDtype).to_csv(path, index=False),
    "pandas' own types": lambda table, path: table.to_pandas().to_csv(path, index=False),
    "polars": lambda table, path: polars.from_arrow(table).write_csv(path),
}
# Integers beyond 2 ** 53 with a missing value are other numbers in pandas, and float32 is widened there.
LOST = {
    ("pandas' own types", "uint64"),
    ("pandas' own types", "large integers"),
    ("pandas", "float32"),
}


def numbers(trained, read):
    columns = TableColumns(categorical=["c"])
    TableDataset(trained, columns, train=True)
    return TableDataset(read, columns).take(torch.arange(3))[0]["categories"].flatten().tolist()


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_value_is_one_category_in_every_format(kind, writer, tmp_path):
    if (writer, kind) in LOST:
        pytest.skip("the writer changes the values")
    table = pa.table({"c": COLUMNS[kind], "y": [1, 2, 3]})
    parquet, csv = tmp_path / "t.parquet", tmp_path / "t.csv"
    pq.write_table(table, parquet)
    WRITERS[writer](table, csv)
    found = {tuple(numbers(a, b)) for a in (parquet, csv) for b in (parquet, csv)}
    assert found in ({(1, 0, 2)}, {(2, 0, 1)})


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2)])
@pytest.mark.parametrize("values", [[b"ab", b"cd"], [b"a'", b'"b'], [b"\xff\x00", b"\xfe\x00"]])
def test_bytes_are_what_pandas_writes_of_them(kind, values, tmp_path):
    table = pa.table({"c": pa.array([*values, None], kind), "y": [1, 2, 3]})
    pq.write_table(table, tmp_path / "t.parquet")
    table.to_pandas().to_csv(tmp_path / "t.csv", index=False)
    a, b = tmp_path / "t.parquet", tmp_path / "t.csv"
    assert numbers(a, a) == numbers(a, b) == numbers(b, a) == numbers(b, b)
    assert sorted(numbers(a, b)) == [0, 1, 2]


def test_an_integer_that_a_missing_value_has_made_floating_point(tmp_path):
    ids = [3, 7, 10_000_000, 12_345_678]
    pd.DataFrame({"c": ids}).to_parquet(tmp_path / "train.parquet")
    later = pd.DataFrame({"c": [3, None, 12_345_678]})
    later.to_csv(tmp_path / "later.csv", index=False)
    later.to_parquet(tmp_path / "later.parquet")
    assert "3.0" in (tmp_path / "later.csv").read_text()
    columns = TableColumns(categorical=["c"])
    data = TableDataset(tmp_path / "train.parquet", columns, train=True)
    known = data.take(torch.arange(4))[0]["categories"].flatten().tolist()
    for later in ("later.csv", "later.parquet"):
        found = numbers(tmp_path / "train.parquet", tmp_path / later)
        assert found == [known[0], 0, known[3]]


def test_a_float_that_is_nan_in_a_file_is_missing(tmp_path):
    pq.write_table(pa.table({"c": [1.0, float("nan"), 2.0]}), tmp_path / "t.parquet")
    assert numbers(tmp_path / "t.parquet", tmp_path / "t.parquet") == [1, 0, 2]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        *((text, text) for text in ("", "-", "a", "007", "3.10", "1.50", "1e", "b'", "b'a", "12e4", "1,5")),
        *((text, text) for text in ("None", "nan", "TrUe", "2020-07-28", "20:30", "1_000", "10:00:00")),
        ("3.", "3"),
        ("-3.000", "-3"),
        ("-0.0", "0"),
        ("3.000000000000000000e+00", "3"),
        ("0.000000e+00", "0"),
        ("1.250e-03", "0.00125"),
        ("1E+20", "100000000000000000000"),
        ("9.223372036854776e+18", "9223372036854775808"),
        ("TRUE", "true"),
        ("2020-07-28T00:00", "2020-07-28"),
        ("2020-07-28T10:00:00.500", "2020-07-28 10:00:00.5"),
        ("2020-07-28 10:00:00+0200", "2020-07-28 08:00:00Z"),
        ("2020-07-28 10:00:00.250+02:00", "2020-07-28 08:00:00.25Z"),
        ("2020-13-28 10:00:00+02:00", "2020-13-28 10:00:00+02:00"),
        ("10:00:00.000", "10:00:00"),
    ],
)
def test_forms(text, form):
    assert text_form(text) == form
    assert text_form(form) == form


def test_known_strings_count_before_their_forms():
    assert by_text([("1", "a"), ("1.0", "b")], ["1", "1.0", "1.00"]) == ["a", "b", "a"]


def test_lists_are_no_categories():
    with pytest.raises(UserError, match="column 'c': must hold numbers, strings, booleans or times"):
        TableColumns(categorical=["c"]).learn([pa.table({"c": [[1], [2]]})])


# ---- the same for targets, numbers and what stands for a missing value ------------------------


@pytest.mark.parametrize("classes", [["no", "3", "True"], ["no", "3.0", "true"]])
def test_classes_are_found_by_value(classes):
    targets = TableTargets({"t": "c"}, {"t": classes})
    for values, expected in (
        ([3, None], [1, -100]),
        ([3.0, None], [1, -100]),
        (["3.0", "3", "no"], [1, 1, 0]),
        ([True, None], [2, -100]),
        (["TRUE", "true"], [2, 2]),
    ):
        assert targets.encode(pa.table({"c": values}))["t"].tolist() == expected
    one = TableTargets({"t": "c"}, {"t": classes[1]})
    assert one.encode(pa.table({"c": [3.0, 4.0, None]}))["t"].tolist() == [1, 0, -100]


def test_booleans_of_a_csv_file_are_those_of_a_parquet_file(tmp_path):
    frame = pd.DataFrame({"x": [True, False, None, True], "y": [True, False, True, None]}, dtype="boolean")
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    rows = []
    for name in ("t.parquet", "t.csv"):
        data = TableDataset(tmp_path / name, TableColumns(["x"]), {"y": "y"}, train=True)
        inputs, targets = data.take(torch.arange(4))
        rows.append((inputs.flatten().tolist(), targets["y"].tolist()))
    assert rows[0] == rows[1]
    assert rows[0][1] == [1, 0, 1, -100]
    assert rows[0][0] == pytest.approx([0.5**0.5, -(2**0.5), 0, 0.5**0.5])


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.int16()])
@pytest.mark.parametrize("missing", ["999", "999.0"])
def test_a_number_stands_for_a_missing_value_in_every_format(kind, missing, tmp_path):
    table = pa.table({"x": pa.array([1, 999, 3], kind), "y": [0, 1, 0]})
    pq.write_table(table, tmp_path / "t.parquet")
    table.to_pandas().to_csv(tmp_path / "t.csv", index=False)
    for name in ("t.parquet", "t.csv"):
        columns = TableColumns(["x"])
        data = TableDataset(tmp_path / name, columns, {"y": "y"}, train=True, missing=[missing])
        assert data.take(torch.arange(3))[0].flatten().tolist() == [-1, 0, 1], name


def test_random_floats_are_one_category_in_every_format(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=300) * 10.0 ** rng.integers(-30, 30, 300)
    table = pa.table({"c": values, "y": np.arange(300)})
    pq.write_table(table, tmp_path / "t.parquet")
    for name, write in WRITERS.items():
        write(table, tmp_path / f"{name}.csv")
        columns = TableColumns(categorical=["c"], max_categories=300)
        TableDataset(tmp_path / "t.parquet", columns, train=True)
        found = TableDataset(tmp_path / f"{name}.csv", columns).take(torch.arange(300))[0]["categories"]
        assert sorted(found.flatten().tolist()) == list(range(1, 301)), name
