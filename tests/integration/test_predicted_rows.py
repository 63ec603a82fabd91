"""Predictions are those of their rows: in the order of the data, by any loader, on one process or two."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Sampler

from polytask import System
from polytask.adapters import BatchAdapter
from polytask.data import ArrayDataset, ArrayLoader, TableInputs, TableStream, TaskLoader
from polytask.predictions import PredictionWriter, read_predictions
from tests.processes import join, run_on_two
from tests.training import quiet_trainer

ROWS = 11
TASKS = ("one", "three")
BY_TASK = {"one": ROWS, "three": 5}


class Model(nn.Module):
    """Of the value of a row, from which the row follows; heads of two widths."""

    task_names = TASKS

    def forward(self, x, task=None):
        x = x.reshape(len(x), -1)[:, :1]
        outputs = [2 * x[:, 0], x * torch.tensor([1.0, 10.0, 100.0])]
        return dict(zip(TASKS, outputs, strict=True)) if task is None else outputs[task]


class Rows(Dataset):
    """Row i is the number i, with an id, and the task that has it."""

    def __init__(self, count=ROWS):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        return torch.tensor([float(row)]), f"id{row}", torch.tensor(int(row >= 6))


class Reversed(Sampler):
    def __init__(self, count=ROWS):
        self.count = count

    def __len__(self):
        return self.count

    def __iter__(self):
        return iter(range(self.count - 1, -1, -1))


class Lengths(Sampler):
    """Batches of the user's own: odd rows, then even rows."""

    def __len__(self):
        return 2

    def __iter__(self):
        yield list(range(1, ROWS, 2))
        yield list(range(0, ROWS, 2))


class Endless(IterableDataset):
    def __iter__(self):
        return (Rows()[row] for row in range(ROWS))


def arrays(count=ROWS, **options):
    values = torch.arange(float(count))[:, None]
    return ArrayLoader(ArrayDataset(values, {"one": values[:, 0]}), batch_size=3, seed=0, **options)


class Values(TableInputs):
    """The column x as it is."""

    names = ("x",)

    def encode(self, table):
        return torch.from_numpy(table["x"].to_numpy())[:, None].float()


def stream(folder):
    # The test of two processes has written them.
    for number, (begin, end) in enumerate(((0, 4), (4, ROWS))):
        if not (file := folder / f"{number}.parquet").exists():
            pq.write_table(pa.table({"x": np.arange(begin, end) * 1.0}), file)
    return TableStream(sorted(folder.glob("*.parquet")), Values(), batch_size=2, shuffle=True)


LOADERS = {
    "in order": lambda _: DataLoader(Rows(), batch_size=3),
    "shuffled": lambda _: DataLoader(Rows(), batch_size=3, shuffle=True),
    "shuffled, without the last batch": lambda _: DataLoader(Rows(), 3, shuffle=True, drop_last=True),
    "of single rows": lambda _: DataLoader(Rows(), batch_size=1, shuffle=True),
    "with workers": lambda _: DataLoader(Rows(), 3, shuffle=True, num_workers=2),
    "with a sampler": lambda _: DataLoader(Rows(), 3, sampler=Reversed()),
    "with a batch sampler": lambda _: DataLoader(Rows(), batch_sampler=Lengths()),
    "of an iterable": lambda _: DataLoader(Endless(), 3),
    "of arrays": lambda _: arrays(),
    "of arrays, without the last batch": lambda _: arrays(drop_last=True),
    "of a stream": lambda folder: DataLoader(stream(folder), batch_size=None),
    "of a stream with workers": lambda folder: DataLoader(stream(folder), batch_size=None, num_workers=2),
    "mixed tasks": lambda _: DataLoader(Rows(), 3),
    "mixed tasks, shuffled": lambda _: DataLoader(Rows(), 3, shuffle=True),
    "several": lambda _: {"new": DataLoader(Rows(4), 3, shuffle=True), "old": arrays()},
    "of tasks": lambda _: TaskLoader({name: arrays(count) for name, count in BY_TASK.items()}),
    "of tasks, of samples": lambda _: TaskLoader(
        {name: DataLoader(Rows(count), 2, shuffle=True) for name, count in BY_TASK.items()}
    ),
    "of tasks, of distributed samples": lambda _: TaskLoader(
        {
            name: DataLoader(Rows(count), 2, sampler=DistributedSampler(Rows(count)))
            for name, count in BY_TASK.items()
        }
    ),
}
# Two processes share the rows of loaders that Lightning or polytask splits among them.
ON_TWO = [name for name in LOADERS if name not in {"of an iterable", "of tasks, of samples"}]
ON_ONE = [name for name in LOADERS if "distributed" not in name]


def predict(folder: Path, name: str, **options):
    loader = LOADERS[name](folder)
    adapter = BatchAdapter(0, 1)
    if "mixed" in name:
        adapter = BatchAdapter(0, 1, task_accessor=2, id_accessor={"name": 1})
    elif isinstance(loader, DataLoader) and "stream" not in name:
        adapter = BatchAdapter(0, 1, id_accessor=1)
    system = System(Model(), nn.MSELoss(), adapters={"batch": adapter}, dataloaders={"predict": loader})
    writer = PredictionWriter(folder / "predictions")
    quiet_trainer(callbacks=[writer], **options).predict(system, return_predictions=False)


def expected(name: str) -> list[dict]:
    """What the file has to hold, row by row."""

    def outputs(row, tasks=TASKS):
        values = {"one": 2.0 * row, "three": [row * 1.0, row * 10.0, row * 100.0]}
        return {task: values[task] if task in tasks else None for task in TASKS}

    if "several" in name:
        return [{"loader": "new", "row": row, **outputs(row)} for row in range(4)] + [
            {"loader": "old", "row": row, **outputs(row)} for row in range(ROWS)
        ]
    if "of tasks" in name:
        return [
            {"loader": task, "row": row, **outputs(row, [task])}
            for task, count in BY_TASK.items()
            for row in range(count)
        ]
    if "mixed" in name:
        return [
            {"row": row, "name": f"id{row}", **outputs(row, [TASKS[int(row >= 6)]])} for row in range(ROWS)
        ]
    ids = "arrays" not in name and "stream" not in name
    return [{"row": row, **({"id": f"id{row}"} if ids else {}), **outputs(row)} for row in range(ROWS)]


def found(folder: Path) -> list[dict]:
    (file,) = (folder / "predictions").iterdir()
    assert file.name == "predictions.parquet"
    return pq.read_table(file).to_pylist()


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    # Which a user who has a sampler of his own is told by Lightning.
    pytest.mark.filterwarnings("ignore:.*custom batch sampler"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
]


@pytest.mark.parametrize("name", ON_ONE)
def test_rows_are_in_the_order_of_the_data(tmp_path, name):
    predict(tmp_path, name)
    assert found(tmp_path) == expected(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_TWO)
def test_two_processes_write_what_one_does(tmp_path, forkserver, name):
    if "stream" in name:
        LOADERS[name](tmp_path)
    run_on_two(forkserver, "tests.integration.test_predicted_rows", f"{tmp_path}", name)
    assert found(tmp_path) == expected(name)


def test_a_loader_given_to_the_trainer_is_written_in_the_order_of_the_data(tmp_path):
    """Which polytask has no part in: Lightning says which rows its batches are."""
    system = System(Model(), nn.MSELoss(), adapters={"batch": BatchAdapter(0, 1, id_accessor=1)})
    trainer = quiet_trainer(callbacks=[PredictionWriter(tmp_path / "predictions")])
    loader = DataLoader(Rows(), batch_size=3, sampler=Reversed())
    trainer.predict(system, loader, return_predictions=False)
    assert found(tmp_path) == expected("with a sampler")


def test_columns_are_not_hidden_by_tasks(tmp_path):
    class Named(nn.Module):
        task_names = ("row", "id")

        def forward(self, x):
            return {"row": 2 * x[:, 0], "id": x[:, 0]}

    adapters = {"batch": BatchAdapter(0, 1, id_accessor=1)}
    system = System(Named(), nn.MSELoss(), adapters=adapters)
    trainer = quiet_trainer(callbacks=[PredictionWriter(tmp_path)])
    trainer.predict(system, DataLoader(Rows(2), batch_size=2), return_predictions=False)
    columns = read_predictions(tmp_path, rows=True)
    assert {name: values.tolist() for name, values in columns.items()} == {
        "_row": [0, 1],
        "_id": ["id0", "id1"],
        "row": [0.0, 2.0],
        "id": [0.0, 1.0],
    }


TABLE = """\
project: .
seed: 0
vars:
  columns: {_target_: polytask.data.TableColumns, numeric: [x]}
  targets:
    _target_: polytask.data.TableTargets
    columns: {sold: sold, price: price}
    classes: {sold: ["no", "yes", "maybe"]}
trainer: {max_epochs: 1, accelerator: cpu}
system:
  model:
    _target_: polytask.models.MultiHead
    backbone: "$@vars.columns"
    heads:
      sold: {_target_: torch.nn.Linear, in_features: 1, out_features: 3}
      price: {_target_: torch.nn.Linear, in_features: 1, out_features: 1}
  criterion:
    _target_: polytask.losses.MultiTaskLoss
    task_losses: {sold: {_target_: torch.nn.CrossEntropyLoss}, price: {_target_: torch.nn.MSELoss}}
  optimizer: {_target_: torch.optim.SGD, lr: 0.01}
  dataloaders:
    train: &loader
      _target_: polytask.data.ArrayLoader
      batch_size: 3
      dataset:
        _target_: polytask.data.TableDataset
        files: t.csv
        columns: "$@vars.columns"
        targets: "$@vars.targets"
        train: true
    predict: *loader
"""


@pytest.mark.slow
def test_classes_and_targets_are_written_by_name(demo, cli):
    """With an ArrayLoader that shuffles by default."""
    sold, prices = ["yes", "no", "", "maybe"], ["1.5", "", "2.5", "3.5"]
    lines = [f"{row},{kind},{price}" for row, (kind, price) in enumerate(zip(sold, prices, strict=True))]
    (demo / "t.csv").write_text("\n".join(["x,sold,price", *lines]))
    (demo / "table.yaml").write_text(TABLE)
    assert cli("fit", "table.yaml", "--run-dir", "run").code == 0
    result = cli("predict", "--run-dir", "run", "--ckpt", "last", "--with-targets")
    assert result.code == 0, result.err
    columns = pq.read_table("run/predictions/predictions.parquet").to_pydict()
    assert columns["row"] == [0, 1, 2, 3]
    scores = np.array(columns["sold"])
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(columns["sold.probability"], shares, rtol=1e-5)
    names = ["no", "yes", "maybe"]
    assert columns["sold.label"] == [names[index] for index in scores.argmax(axis=1)]
    assert columns["sold.target"] == [1, 0, None, 2]
    assert columns["price.target"] == [1.5, None, 2.5, 3.5]


if __name__ == "__main__":
    join(sys.argv[1])
    predict(Path(sys.argv[1]), sys.argv[2], devices=2, strategy="ddp")
