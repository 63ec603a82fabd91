"""Whether a target is a class or a value, and which categories there are, is what the training rows tell."""

import functools
import hashlib
import io
import math
import pickle
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torchmetrics import MeanSquaredError

from polytask import System, UserError
from polytask.checkpoint import load_weights
from polytask.data import ArrayLoader, TableColumns, TableDataset, TableInputs, TableStream, TableTargets
from polytask.losses import MultiTaskLoss
from polytask.models import MultiHead

# Text of the cells of a target, and what it means if the training rows are values, or classes.
FILES = {
    "whole": (["3", "4", "1", "0"], [3, 4, 1, 0], [3, 4, 1, 0]),
    "negative": (["3", "-2", "5"], [3, -2, 5], None),
    "minus 100": (["-100", "3", ""], [-100, 3, math.nan], [-100, 3, -100]),
    "minus 100.0": (["-100.0", "3.0", ""], [-100, 3, math.nan], [-100, 3, -100]),
    "missing": (["0.0", "1.0", "", "2.0"], [0, 1, math.nan, 2], [0, 1, -100, 2]),
    "empty": (["", ""], [math.nan] * 2, [-100] * 2),
    "fractions": (["0.5", "1"], [0.5, 1], None),
}
TRAINED = {"values": ["1.5", "2", "-100", "0"], "classes": ["0", "1", "2", "3", "4", "-100"]}


def write(path, cells, form):
    file = path.with_suffix(f".{form}")
    if form == "csv":
        file.write_text("x,t\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
        return file
    values = [float(cell) if cell else None for cell in cells]
    whole = all(cell == "" or cell.lstrip("-").isdigit() for cell in cells)
    kind = pa.int64() if whole and any(cells) else pa.float64()
    known = [value if value is None or kind != pa.int64() else int(value) for value in values]
    pq.write_table(pa.table({"x": np.arange(len(cells)) * 1.0, "t": pa.array(known, kind)}), file)
    return file


def shared_targets(columns):
    targets = TableTargets({"t": "t"})
    return columns, columns, targets, targets


def shared_columns(columns):
    return columns, columns, {"t": "t"}, {"t": "t"}


def restored_columns(columns):
    """As in another process, which loads a checkpoint and never sees the training rows."""
    return columns, None, {"t": "t"}, {"t": "t"}


@pytest.mark.parametrize("carried", [shared_targets, shared_columns, restored_columns])
@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("later", FILES)
@pytest.mark.parametrize("trained", TRAINED)
def test_the_training_rows_decide(trained, later, form, carried, tmp_path):
    cells, values, classes = FILES[later]
    expected = values if trained == "values" else classes
    train_columns, columns, train_targets, targets = carried(TableColumns(["x"]))
    train = TableDataset(
        write(tmp_path / "a", TRAINED[trained], form), train_columns, train_targets, train=True
    )
    if columns is None:
        columns = TableColumns(["x"])
        columns.load_state_dict(train_columns.state_dict())

    def read():
        data = TableDataset(write(tmp_path / "b", cells, form), columns, targets)
        return data.take(torch.arange(len(cells)))[1]["t"]

    if expected is None:
        with pytest.raises(UserError, match="task 't': class labels must be"):
            read()
        return
    found = read()
    assert found.dtype == train.targets["t"].dtype
    assert found.tolist() == pytest.approx(expected, nan_ok=True)
    if form == "parquet":
        stream = TableStream(tmp_path / "b.parquet", columns, targets, batch_size=1, window=1)
        streamed = torch.cat([own["t"] for _, own in stream])
        assert streamed.tolist() == pytest.approx(expected, nan_ok=True)


def test_what_is_validated_may_be_read_before_the_training_rows(tmp_path):
    columns = TableColumns(["x"])
    later = TableDataset(write(tmp_path / "b", ["3", "4"], "csv"), columns, {"t": "t"})
    TableDataset(write(tmp_path / "a", TRAINED["values"], "csv"), columns, {"t": "t"}, train=True)
    assert later.take(torch.arange(2))[1]["t"].tolist() == [3.0, 4.0]
    assert later.targets["t"].dtype == torch.float32


def test_arguments_count_more_than_the_training_rows(tmp_path):
    columns = TableColumns(["x"])
    TableDataset(write(tmp_path / "a", TRAINED["values"], "csv"), columns, {"t": "t"}, train=True)
    named = TableTargets({"t": "t"}, task_types={"t": "classification"})
    data = TableDataset(write(tmp_path / "b", ["1.0", ""], "csv"), columns, named)
    assert data.targets["t"].tolist() == [1, -100]


def test_inputs_of_ones_own_carry_the_types_too(tmp_path):
    class Numbers(TableInputs):
        names = ("x",)

        def encode(self, table):
            return torch.tensor([[float(x)] for x in table["x"].to_pylist()])

    columns = Numbers()
    TableDataset(write(tmp_path / "a", TRAINED["values"], "csv"), columns, {"t": "t"}, train=True)
    data = TableDataset(write(tmp_path / "b", ["3", "4"], "csv"), columns, {"t": "t"})
    assert data.targets["t"].tolist() == [3.0, 4.0]
    assert data.targets["t"].dtype == torch.float32


def test_a_later_part_of_a_stream_shows_that_a_column_has_values(tmp_path):
    rows = {"x": [1.0, 2.0, 3.0], "t": ["3", "4", "0.5"]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet", row_group_size=1)
    for train in (True, False):
        columns = TableColumns(["x"])
        columns.learn([pa.table(rows)])
        stream = TableStream(tmp_path, columns, {"t": "t"}, batch_size=1, window=1, train=train)
        assert [own["t"].tolist() for _, own in stream] == [[3.0], [4.0], [0.5]]


def test_a_validation_counts_every_value(tmp_path):
    """Whole numbers, -100 among them, are values of a regression: the mean square is that of numpy."""
    columns, targets = TableColumns(["x"]), TableTargets({"t": "t"})
    train = TableDataset(write(tmp_path / "a", TRAINED["values"], "csv"), columns, targets, train=True)
    cells = ["-100", "-100", "3", "3"]
    data = TableDataset(write(tmp_path / "b", cells, "csv"), columns, targets)
    model = MultiHead(columns, {"t": nn.Linear(1, 1)})
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    system = System(
        model,
        MultiTaskLoss({"t": nn.MSELoss()}),
        functools.partial(torch.optim.SGD, lr=0.1),
        metrics={"t": MeanSquaredError()},
    )
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", enable_checkpointing=False, **quiet)
    (values,) = trainer.validate(system, ArrayLoader(data, batch_size=8, shuffle=False), verbose=False)
    expected = np.mean(np.array(cells, float) ** 2)
    assert values["val/t/MeanSquaredError/epoch"] == pytest.approx(expected)
    assert values["val/loss/t/epoch"] == pytest.approx(expected)
    assert train.targets["t"].tolist() == [1.5, 2, -100, 0]


# ---- checkpoints ------------------------------------------------------------------------------


def checkpoint(module):
    file = io.BytesIO()
    torch.save({"state_dict": nn.Sequential(module).state_dict()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("tasks", [{}, {"t": "regression"}, {"t": "classification", "u": "regression"}])
@pytest.mark.parametrize("known", [{}, {"v": "regression"}])
def test_a_checkpoint_carries_the_types(tasks, known):
    table = pa.table({"x": [1.0, 2.0], "c": ["a", "b"]})
    columns, loaded = (TableColumns(["x"], ["c"], max_categories=3) for _ in range(2))
    columns.learn([table])
    columns.learn_target_types(tasks)
    loaded.learn_target_types(known)
    load_weights(nn.Sequential(loaded), checkpoint(columns), "ckpt")
    assert {task: loaded.target_type(task) for task in tasks} == tasks
    copied = pickle.loads(pickle.dumps(loaded))
    assert {task: copied.target_type(task) for task in tasks} == tasks
    assert loaded.encode(table)["categories"].tolist() == [[1], [2]]


@pytest.mark.parametrize("known", [{}, {"t": "regression"}])
def test_a_state_of_the_former_version_is_loaded(known):
    """One number, 2 for each numeric column, ``max_categories`` for each categorical one."""
    table = pa.table({"x": [1.0, 3.0], "c": ["True", "b"]})
    columns = TableColumns(["x"], ["c"], max_categories=3)
    columns.learn([table])
    state = checkpoint(columns)
    # The former version knew a value by the string that the file had.
    categories = [_former_digest("b"), _former_digest("True"), 0]
    former = np.concatenate([[1], np.array([2.0, 1.0]).view(np.int64), categories])
    assert state["state_dict"]["0._extra_state"].shape == former.shape
    state["state_dict"]["0._extra_state"] = torch.from_numpy(former)
    loaded = TableColumns(["x"], ["c"], max_categories=3)
    loaded.learn_target_types(known)
    load_weights(nn.Sequential(loaded), state, "ckpt")
    assert loaded.target_type("t") == known.get("t")
    inputs = loaded.encode(table)
    assert inputs["numeric"].tolist() == [[-1.0], [1.0]]
    assert inputs["categories"].tolist() == [[2], [1]]


def _former_digest(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


@pytest.mark.parametrize(
    "other",
    [
        {"numeric": ["x"], "categorical": ["c"], "max_categories": 3},
        {"numeric": ["x", "y"], "categorical": ["c"], "max_categories": 1},
        {"numeric": ["x", "y"]},
    ],
)
def test_the_state_of_other_columns_is_refused(other):
    columns = TableColumns(["x", "y"], ["c"], max_categories=3)
    columns.learn([pa.table({"x": [1.0, 2.0], "y": [1.0, 5.0], "c": ["a", "b"]})])
    columns.learn_target_types({"t": "regression"})
    loaded = TableColumns(**other)
    with pytest.raises(UserError, match="must have the columns of the saved ones"):
        loaded.set_extra_state(columns.get_extra_state())
    with pytest.raises(UserError, match="of another shape"):
        load_weights(nn.Sequential(loaded), checkpoint(columns), "ckpt")


# ---- unseen categories ------------------------------------------------------------------------


def city(path, values):
    pq.write_table(pa.table({"c": pa.array(values, pa.string())}), path)
    return path


def trained(tmp_path, values=("Bern", "Bern", "Rome"), **options):
    columns = TableColumns(categorical=["c"], **options)
    data = TableDataset(city(tmp_path / "train.parquet", values), columns, train=True)
    data.take(torch.arange(1))
    return columns


def readers(file, columns):
    yield lambda: TableDataset(file, columns).take(torch.arange(1))
    yield lambda: list(TableStream(file, columns, batch_size=2, window=2))


def test_unseen_categories_are_counted(tmp_path):
    columns = trained(tmp_path)
    file = city(tmp_path / "later.parquet", ["Oslo", None, "Bern", "Lima", "Rome"])
    for read in readers(file, columns):
        with pytest.warns(UserWarning, match="column 'c': 2 of 4 values, such as 'Oslo'"):
            read()


def test_a_column_with_nothing_known_is_an_error(tmp_path):
    columns = trained(tmp_path)
    file = city(tmp_path / "later.parquet", ["Oslo", None, "bern", "Oslo"])
    for read in readers(file, columns):
        with pytest.raises(UserError, match="column 'c': must hold categories of the training data"):
            read()


def test_what_is_missing_is_not_unseen(tmp_path):
    columns = trained(tmp_path)
    for values in (["Rome", None], [None, None]):
        for read in readers(city(tmp_path / "later.parquet", values), columns):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                read()


def test_the_training_rows_are_not_reported(tmp_path):
    values = ["Bern", "Bern", "Rome", "Oslo"]
    columns = trained(tmp_path, values, max_categories=1)
    with pytest.warns(UserWarning, match="2 of 4 values"):
        TableDataset(tmp_path / "train.parquet", columns).take(torch.arange(1))


def test_the_training_rows_of_another_run_are_reported(tmp_path):
    former = trained(tmp_path)
    columns = TableColumns(categorical=["c"])
    data = TableDataset(city(tmp_path / "new.parquet", ["Lima", "Bern"]), columns, train=True)
    columns.load_state_dict(former.state_dict())
    with pytest.warns(UserWarning, match="1 of 2 values, such as 'Lima'"):
        data.take(torch.arange(1))


def test_a_stream_says_it_once(tmp_path):
    columns = trained(tmp_path)
    stream = TableStream(city(tmp_path / "later.parquet", ["Oslo", "Bern"]), columns)
    with pytest.warns(UserWarning, match="1 of 2 values"):
        list(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(stream)


def test_a_column_without_a_category_cannot_be_learnt(tmp_path):
    with pytest.raises(UserError, match="column 'c': requires a category in training, got none"):
        trained(tmp_path, [None, None])


# ---- max_categories by column -----------------------------------------------------------------


def test_max_categories_by_column():
    table = pa.table({"a": list("xxyz"), "b": list("ppqr"), "c": list("kkll")})
    columns = TableColumns(categorical=["a", "b", "c"], max_categories={"a": 1, "b": 2}, embedding_dim=4)
    columns.learn([table])
    inputs = columns.encode(table)
    assert inputs["categories"].tolist() == [[1, 1, 1], [1, 1, 1], [0, 2, 2], [0, 0, 2]]
    assert columns.embedding.weight.shape == (1 + 1 + 2 + 1 + 100 + 1, 4)
    output = columns(inputs).reshape(4, 3, 4)
    weight = columns.embedding.weight
    expected = [[1, 3, 6], [1, 3, 6], [None, 4, 7], [None, None, 7]]
    for row, indices in enumerate(expected):
        for column, index in enumerate(indices):
            own = torch.zeros(4) if index is None else weight[index]
            assert torch.equal(output[row, column], own)
    loaded = TableColumns(categorical=["a", "b", "c"], max_categories={"a": 1, "b": 2}, embedding_dim=4)
    load_weights(nn.Sequential(loaded), checkpoint(columns), "ckpt")
    assert torch.equal(loaded(loaded.encode(table)), columns(inputs))


def test_one_number_is_that_number_for_each():
    one = TableColumns(categorical=["a", "b"], max_categories=3)
    each = TableColumns(categorical=["a", "b"], max_categories={"a": 3, "b": 3})
    assert one.embedding.weight.shape == each.embedding.weight.shape
    assert one.get_extra_state().shape == each.get_extra_state().shape


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"citi": 3}, "no categorical column is called 'citi'. Did you mean 'city'?"),
        ({"age": 3}, "no categorical column is called 'age'"),
        ({"city": 0}, "TableColumns.max_categories.city: must be an integer of at least 1, got 0"),
        ({"city": True}, "TableColumns.max_categories.city"),
    ],
)
def test_max_categories_that_cannot_be_used(given, text):
    with pytest.raises(UserError) as raised:
        TableColumns(["age"], ["city"], max_categories=given)
    assert text in str(raised.value)
