import functools
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from polytask import System, UserError
from polytask.callbacks import ExactResume
from polytask.data import (
    ReplayableLoader,
    TableColumns,
    TableDataset,
    TableInputs,
    TableStream,
    _table_stream,
)
from polytask.models import HardParameterSharing, TaskHead

ROWS = 230


class Places(TableInputs):
    """The number of each row as it is; remembers how many rows were encoded at a time."""

    names = ("x",)

    def __init__(self):
        self.sizes = []

    def encode(self, table):
        self.sizes.append(len(table))
        return torch.tensor(table["x"].to_numpy())


@pytest.fixture
def folder(tmp_path):
    """Three files in row groups of 25; the first is of one class, the last of another."""
    for i, (begin, end) in enumerate([(0, 100), (100, 180), (180, ROWS)]):
        table = pa.table({"x": list(range(begin, end)), "y": [i] * (end - begin)})
        pq.write_table(table, tmp_path / f"{i}.parquet", row_group_size=25)
    return tmp_path


def stream(folder, **options):
    return TableStream(folder, Places(), {"y": "y"}, **{"batch_size": 8, **options})


def seen(loader):
    return [inputs.tolist() for inputs, _ in loader]


def flat(batches):
    return [row for batch in batches for row in batch]


def as_process(monkeypatch, rank, processes):
    monkeypatch.setattr(_table_stream, "ranks", lambda: (rank, processes))


def test_in_order_a_stream_is_the_table(folder):
    batches = seen(stream(folder))
    assert flat(batches) == list(range(ROWS))
    assert [len(batch) for batch in batches] == [8] * 28 + [6]
    assert len(stream(folder)) == len(batches) == 29


def test_targets_belong_to_their_rows(folder):
    for inputs, targets in stream(folder, shuffle=True, window=50):
        assert targets["y"].tolist() == [(x >= 100) + (x >= 180) for x in inputs.tolist()]


@pytest.mark.parametrize("window", [1, 7, 50, 1000])
@pytest.mark.parametrize("batch_size", [1, 8, 64, 500])
def test_shuffled_every_row_comes_once(folder, window, batch_size):
    data = stream(folder, shuffle=True, window=window, batch_size=batch_size)
    batches = seen(data)
    assert sorted(flat(batches)) == list(range(ROWS))
    assert len(batches) == len(data)
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}


def test_memory_holds_a_window(folder):
    data = stream(folder, shuffle=True, window=60)
    list(data)
    assert max(data.columns.sizes) < 60 + 25


def test_a_window_mixes_row_groups_and_files(folder):
    torch.manual_seed(0)
    windows = [flat(seen(stream(folder, shuffle=True, window=100)))[:96] for _ in range(5)]
    assert all(len({x // 25 for x in window}) >= 4 for window in windows)
    first = [len({(x >= 100) + (x >= 180) for x in window[:8]}) for window in windows]
    assert max(first) > 1


def test_the_order_follows_from_the_seed_and_changes_with_the_epoch(folder):
    orders = []
    for _ in range(2):
        torch.manual_seed(3)
        data = stream(folder, shuffle=True, window=50)
        orders.append([seen(data), seen(data)])
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]


def test_it_resumes_in_the_middle_of_an_epoch(folder):
    for make in (lambda data: data, lambda data: DataLoader(data, batch_size=None, num_workers=2)):
        torch.manual_seed(3)
        loader = ReplayableLoader(make(stream(folder, shuffle=True, window=50)))
        batches = iter(loader)
        for _ in range(5):
            next(batches)
        state = loader.state_dict()
        rest = seen(batches)
        torch.manual_seed(99)
        torch.rand(3)
        again = ReplayableLoader(make(stream(folder, shuffle=True, window=50)))
        again.load_state_dict(state)
        assert seen(again) == rest
        assert len(rest) == len(again) - 5


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_share_the_rows(folder, workers, shuffle):
    data = stream(folder, shuffle=shuffle, window=50)
    loader = DataLoader(data, batch_size=None, num_workers=workers)
    batches = seen(loader)
    assert sorted(flat(batches)) == list(range(ROWS))
    assert len(batches) == len(loader) == 29


def test_more_workers_than_batches(folder):
    loader = DataLoader(stream(folder, batch_size=ROWS), batch_size=None, num_workers=2)
    assert sorted(flat(seen(loader))) == list(range(ROWS))


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_the_rows_in_evaluation(folder, monkeypatch, processes):
    rows = []
    for rank in range(processes):
        as_process(monkeypatch, rank, processes)
        rows += flat(seen(stream(folder)))
    assert sorted(rows) == list(range(ROWS))


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_make_as_many_steps_in_training(folder, monkeypatch, processes):
    rows, steps = [], set()
    for rank in range(processes):
        as_process(monkeypatch, rank, processes)
        batches = seen(stream(folder, shuffle=True, window=50))
        rows += flat(batches)
        steps.add((len(batches), len(flat(batches))))
    assert len(steps) == 1
    assert len(set(rows)) == len(rows) > ROWS - processes


def test_spawned_workers_serve_their_process(folder, monkeypatch):
    as_process(monkeypatch, 1, 2)
    data = pickle.loads(pickle.dumps(stream(folder)))
    own = flat(seen(data))
    as_process(monkeypatch, 0, 1)
    assert flat(seen(data)) == own == list(range(115, ROWS))


def test_workers_of_a_process_share_its_rows(folder, monkeypatch):
    as_process(monkeypatch, 1, 2)
    loader = DataLoader(stream(folder, shuffle=True, window=50), batch_size=None, num_workers=2)
    assert sorted(flat(seen(loader))) == list(range(115, ROWS))


def test_it_learns_what_a_table_in_memory_does(folder):
    own, other = TableColumns(["x"], ["y"]), TableColumns(["x"], ["y"])
    streamed = TableStream(folder, own, {"y": "y"}, batch_size=ROWS, train=True)
    table = TableDataset(folder, other, {"y": "y"}, train=True)
    (inputs, targets), *rest = streamed
    expected, labels = table.take(torch.arange(ROWS))
    assert not rest
    torch.testing.assert_close(inputs, expected)
    assert torch.equal(targets["y"], labels["y"])


def test_it_may_have_no_targets(folder):
    inputs, targets = next(iter(TableStream(folder, Places())))
    assert len(inputs) == 32
    assert targets == {}


def test_a_gap_across_files_is_found(tmp_path):
    for i, label in enumerate((0, 2)):
        pq.write_table(pa.table({"x": [1.0], "y": [label]}), tmp_path / f"{i}.parquet")
    columns = TableColumns(["x"])
    with pytest.raises(UserError, match="0 to 2 without gaps, got none of class 1"):
        TableStream(tmp_path, columns, {"y": "y"}, train=True)
    assert columns.revision == 0


@pytest.mark.parametrize("shuffle", [False, True])
def test_files_whose_types_differ_are_one_table(tmp_path, shuffle):
    pq.write_table(pa.table({"x": [1, 2], "y": [0, 1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"y": [0.5, 2.0], "x": [3.5, None]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"x": pa.nulls(2), "y": pa.nulls(2)}), tmp_path / "2.parquet")
    whole = TableDataset(tmp_path, TableColumns(["x"]), {"y": "y"}, train=True)
    expected, targets = whole.take(torch.arange(6))
    # Windows that end with a file: each would have a type of its own.
    found = list(
        TableStream(tmp_path, TableColumns(["x"]), {"y": "y"}, batch_size=2, window=2, train=True)
        if not shuffle
        else TableStream(tmp_path, TableColumns(["x"]), {"y": "y"}, batch_size=6, shuffle=True, train=True)
    )
    inputs = torch.cat([batch for batch, _ in found])
    labels = torch.cat([own["y"] for _, own in found])
    assert {own["y"].dtype for _, own in found} == {torch.float32}
    rows = torch.cat([inputs, labels.unsqueeze(1)], 1).nan_to_num(-9)
    others = torch.cat([expected, targets["y"].unsqueeze(1)], 1).nan_to_num(-9)
    assert sorted(rows.tolist()) == sorted(others.tolist())


def test_types_that_do_not_go_together(tmp_path):
    pq.write_table(pa.table({"x": [1], "y": [0]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"x": ["a"], "y": [0]}), tmp_path / "1.parquet")
    with pytest.raises(UserError, match="a column must have one type in all files"):
        stream(tmp_path)


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"window": 0}, {"batch_size": 2.5}, {"batch_size": True}]
)
def test_sizes_that_are_none(folder, options):
    with pytest.raises(UserError, match=r"TableStream\.(batch_size|window)"):
        stream(folder, **options)


def test_files_that_cannot_be_streamed(tmp_path, folder):
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match="must be a Parquet file"):
        stream(tmp_path / "t.csv")
    path = folder / "1.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"1\.parquet: must be a complete Parquet file"):
        stream([path])


def test_a_column_that_a_file_lacks(folder):
    pq.write_table(pa.table({"xx": [1], "y": [0]}), folder / "9.parquet")
    with pytest.raises(UserError, match=r"9\.parquet: no column is called 'x'\. Did you mean 'xx'\?"):
        stream(folder)


def test_files_without_rows(tmp_path):
    pq.write_table(pa.table({"x": np.zeros(0), "y": np.zeros(0)}), tmp_path / "0.parquet")
    with pytest.raises(UserError, match="must have at least one row"):
        stream(tmp_path)


# Lightning cannot know that workers share the rows.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined")
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("workers", [None, 2])
def test_a_system_trains_from_it_and_resumes(folder, tmp_path, workers):
    def fit(run, checkpoint=None):
        torch.manual_seed(0)
        columns = TableColumns(["x"])
        data = TableStream(folder, columns, {"y": "y"}, batch_size=8, shuffle=True, window=50, train=True)
        whole = TableStream(folder, columns, {"y": "y"}, batch_size=64)
        if workers is not None:
            data = DataLoader(data, batch_size=None, num_workers=workers)
        system = System(
            HardParameterSharing(torch.nn.Sequential(columns, torch.nn.Linear(1, 4)), {"y": TaskHead(4, 3)}),
            torch.nn.CrossEntropyLoss(),
            functools.partial(torch.optim.SGD, lr=0.1),
            dataloaders={"train": data, "val": whole},
        )
        saving = ModelCheckpoint(tmp_path / run, "{step}", every_n_train_steps=11, save_top_k=-1)
        trainer = pl.Trainer(
            max_steps=40,
            callbacks=[saving, ExactResume()],
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(system, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        return system.state_dict()

    expected = fit("whole")
    for step in (11, 33):
        resumed = fit(f"from_{step}", tmp_path / "whole" / f"step={step}.ckpt")
        assert expected.keys() == resumed.keys()
        assert all(torch.equal(expected[name], resumed[name]) for name in expected)
