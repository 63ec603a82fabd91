import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polytask import UserError
from polytask.data._table_files import CSVFormat, read_table, table_files
from polytask.data._table_values import as_numbers, cleaned

GOOD = "a,b\n1,x\n2,y\n"


def read(files, columns=("a", "b"), missing=("",), **form):
    return read_table(table_files(files), columns, CSVFormat(**form), missing).to_pydict()


def message(files, *args, **form):
    with pytest.raises(UserError) as raised:
        read(files, *args, **form)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(GOOD)
    return path


def test_csv_parquet_and_gzip_hold_the_same(tmp_path, table):
    packed, parquet = tmp_path / "t.csv.gz", tmp_path / "t.parquet"
    packed.write_bytes(gzip.compress(GOOD.encode()))
    pq.write_table(pa.table({"a": ["1", "2"], "b": ["x", "y"]}), parquet)
    assert read(table) == read(packed) == read(str(parquet)) == {"a": ["1", "2"], "b": ["x", "y"]}


def test_columns_come_in_the_order_asked_for_and_once(table):
    assert list(read(table, ("b", "a", "b"))) == ["b", "a"]


def test_a_file_without_a_line_of_names(tmp_path):
    path = tmp_path / "adult.data"
    path.write_text("1; x\n2; y\n")
    assert read(path, names=["a", "b"], delimiter=";") == {"a": ["1", "2"], "b": ["x", "y"]}
    assert "line 1: must have as many cells as names, 3, got 2 cells" in message(
        path, names=["a", "b", "c"], delimiter=";"
    )


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert read(path)["a"] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ('a,b\n1,2\n3,"4\n5,6\n7,8\n', 3, "unexpected end of data"),
        ('a,b\n1,2\n3,"4\n5,"6"\n', 3, "',' expected after '\"'"),
    ],
    ids=["to_the_end", "to_the_next_quote"],
)
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_quote_that_is_not_closed_is_named_with_its_line(tmp_path, text, line, found, ending):
    path = tmp_path / f"table.{ending}"
    path.write_bytes(gzip.compress(text.encode()) if ending == "csv.gz" else text.encode())
    rule = f"a quoted cell must end with a quote: {found}. Close the quote."
    assert message(path) == f"{path}, line {line}: {rule}"


def test_a_quote_within_a_cell_is_one(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('a,b\n1,5" pipe\n2,7\n')
    assert read(path)["b"] == ['5" pipe', "7"]


@pytest.mark.parametrize(
    ("text", "line", "cells"),
    [
        ("a,b\n1,x\n2\n3,z\n", 3, 1),
        ("a,b\n1,x,9\n", 2, 3),
        ('a,b\n"1\n1",x\n\n2,y,z\n', 5, 3),
        ("a,b\n" + "1,x\n" * 300_000 + "1\n", 300_002, 1),
    ],
)
def test_a_ragged_row_is_named_with_its_line(tmp_path, text, line, cells):
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert message(path) == f"{path}, line {line}: a row must have 2 cells, got {cells}. Correct the row."


def test_a_quoted_delimiter_ends_no_cell(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,"x, y"\n')
    assert read(path)["b"] == ["x, y"]


def test_a_column_that_is_not_there(tmp_path, table):
    assert "no column is called 'bb'. Did you mean 'b'?" in message(table, ("a", "bb"))
    parquet = tmp_path / "t.parquet"
    pq.write_table(pa.table({"age": [1], "b": [1]}), parquet)
    assert f"{parquet}: no column is called 'agee'. Did you mean 'age'?" in message(parquet, ("agee",))


def test_a_column_that_is_there_twice(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,a\n1,2\n")
    assert "column names must be unique, got 'a' twice" in message(path, ("a",))


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_parquet_file_that_is_cut_off(tmp_path, keep):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": list(range(1000)), "b": ["x"] * 1000}), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path}: must be a complete Parquet file" in message(path)


def test_a_parquet_file_with_a_torn_page(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": list(range(5000)), "b": ["x"] * 5000}), path)
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    assert f"{path}: must be a complete Parquet file" in message(path)


def test_a_gzip_file_that_is_cut_off(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,x\n" * 20_000)[:-20])
    assert f"{path}: must be a complete CSV file" in message(path)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n1,\xff\xfe\n")
    assert "must be a complete CSV file" in message(path)


@pytest.mark.parametrize("text", ["", "\n", "a,b\n"])
def test_a_file_without_rows(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert "must have at least one" in message(path)
    assert "at least" in message(path)


def test_files_that_are_not_there(tmp_path, table):
    assert "there is no such file. Did you mean 'table.csv'?" in message(tmp_path / "tabel.csv")
    assert "there is no such file" in message(tmp_path / "nowhere" / "x.csv")
    assert "must name at least one file" in message([])


def test_a_folder_is_its_files_by_name(tmp_path):
    for name, value in (("b", 2), ("a", 1), ("_hidden", 3)):
        pq.write_table(pa.table({"a": [value], "b": [value]}), tmp_path / f"{name}.parquet")
    (tmp_path / "_SUCCESS").touch()
    assert read(tmp_path)["a"] == [1, 2]
    (tmp_path / "c.csv").write_text(GOOD)
    assert "a folder must contain files of one format, got a.parquet and c.csv" in message(tmp_path)


def test_an_empty_folder(tmp_path):
    assert "a folder must contain files of one format, got none" in message(tmp_path)


def test_files_of_different_types(tmp_path):
    pq.write_table(pa.table({"a": [1], "b": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [0.5], "b": [1]}), tmp_path / "2.parquet")
    assert read(tmp_path)["a"] == [1.0, 0.5]
    pq.write_table(pa.table({"a": ["x"], "b": [1]}), tmp_path / "3.parquet")
    assert "a column must have one type in all files" in message(tmp_path)


def test_missing_texts_and_spaces(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n ?,NA\n 1 ,\n")
    assert read(path, missing=["", "?"]) == {"a": [None, "1"], "b": ["NA", None]}


def test_texts_that_are_numbered_are_texts():
    table = pa.table({"a": pa.array(["x ", None, "?"]).dictionary_encode()})
    assert cleaned(table, ["?"])["a"].to_pylist() == ["x", None, None]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None], [1, float("nan")]),
        ([True, None], [1, float("nan")]),
        (["1e3", None, "nan"], [1000, float("nan"), float("nan")]),
        ([2**60 + 1], [float(2**60)]),
    ],
)
def test_numbers(values, expected):
    for column in (pa.array(values), pa.chunked_array([pa.array(values)])):
        assert as_numbers(column, "a").tolist() == pytest.approx(expected, nan_ok=True)


def test_a_text_that_is_no_number_is_named_with_its_row():
    with pytest.raises(UserError, match=r"column 'a': must contain numbers, got 'x' in row 3\."):
        as_numbers(pa.array(["1", None, "x"]), "a")
    with pytest.raises(UserError, match=r"column 'a': must contain numbers, got list"):
        as_numbers(pa.array([[1]]), "a")


@pytest.mark.parametrize("delimiter", ["", ";;", None])
def test_a_delimiter_that_is_none(delimiter):
    with pytest.raises(UserError, match="delimiter: must be one character"):
        CSVFormat(delimiter=delimiter)
