"""The Parquet file of predictions, row by row."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from polytask import System
from polytask import UserError
from polytask.adapters import BatchAdapter, LoggingAdapter
from polytask.predictions import PredictionWriter, read_predictions
from tests.training import quiet_trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning", "ignore:.*does not have many workers"
)


class Shapes(nn.Module):
    """A number, a vector and an image for each row."""

    task_names = ("number", "vector", "image")

    def forward(self, x):
        return {"number": x[:, 0], "vector": x * 2, "image": x[:, None, :, None].expand(-1, 2, -1, 4)}


class Routed(nn.Module):
    task_names = ("first", "second", "third")

    def forward(self, x, task_id):
        return 100.0 * task_id + x[:, 0]


def predict(tmp_path, system, rows, batch_size=4):
    trainer = quiet_trainer(
        default_root_dir=tmp_path,
        callbacks=[PredictionWriter(tmp_path / "predictions")],
    )
    trainer.predict(system, DataLoader(rows, batch_size=batch_size), return_predictions=False)
    return read_predictions(tmp_path / "predictions")


def system(model=None, **options):
    return System(model or Shapes(), nn.MSELoss(), **options)


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_rows_come_in_the_order_of_the_data_whatever_the_batches(tmp_path, batch_size):
    x = torch.randn(10, 3)
    found = predict(tmp_path, system(), list(x), batch_size)
    assert list(found) == ["number", "vector", "image"]
    assert np.array_equal(found["number"].astype(np.float32), x[:, 0].numpy())
    assert np.array_equal(found["vector"].astype(np.float32), (2 * x).numpy())
    assert np.array_equal(found["image"], Shapes()(x)["image"].numpy())
    assert pq.read_metadata(tmp_path / "predictions/predictions.parquet").num_rows == 10


def test_mixed_rows_are_put_back_in_order_and_other_tasks_are_null(tmp_path):
    ids = [2, 2, 0, 1, 0, 2, 1]
    rows = [(torch.tensor([float(i)]), torch.tensor(0.0), torch.tensor(task)) for i, task in enumerate(ids)]
    adapters = {"batch": BatchAdapter(0, 1, task_accessor=2)}
    predict(tmp_path, system(Routed(), adapters=adapters), rows, 2)
    table = pq.read_table(tmp_path / "predictions/predictions.parquet")
    # The first batch holds the third task only, the others join it as columns of the same kind.
    for task, name in enumerate(Routed.task_names):
        expected = [100.0 * task + i if own == task else None for i, own in enumerate(ids)]
        assert table[name].to_pylist() == expected


def test_what_is_written_is_what_the_logging_adapter_makes(tmp_path):
    adapter = LoggingAdapter(pred_transforms={"vector": lambda vector: vector.argmax(dim=1)})
    x = torch.randn(5, 3)
    found = predict(tmp_path, system(adapters={"logging": adapter}), list(x))
    assert found["vector"].tolist() == x.argmax(dim=1).tolist()


def test_half_precision_is_written_as_single(tmp_path):
    class Half(Shapes):
        def forward(self, x):
            return {"number": x[:, 0].bfloat16()}

    assert predict(tmp_path, system(Half()), [torch.ones(3)])["number"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (lambda x: x.sum(), r"shape \(\)"),
        (lambda x: x[:-1], r"shape \(3, 3\)"),
        (lambda x: "text", "str"),
    ],
)
def test_an_output_without_a_row_for_each_input_is_refused(tmp_path, output, found):
    class Odd(Shapes):
        def forward(self, x):
            return {"number": output(x)}

    with pytest.raises(
        UserError, match=rf"task 'number': the output must be a tensor .* 4 inputs, got {found}"
    ):
        predict(tmp_path, system(Odd()), list(torch.randn(4, 3)))


def test_a_run_that_fails_leaves_no_file(tmp_path):
    class Growing(Shapes):
        calls = 0

        def forward(self, x):
            Growing.calls += 1
            return {"vector": x.repeat(1, Growing.calls)}

    with pytest.raises(
        UserError, match=r"task 'vector': must have outputs of one shape.*\[6\].* after .*\[3\]"
    ):
        predict(tmp_path, system(Growing()), list(torch.randn(4, 3)), 2)
    assert not list((tmp_path / "predictions").iterdir())


def test_a_foreign_criterion_without_names_writes_one_column(tmp_path):
    class Total(nn.Module):
        def forward(self, outputs, targets):
            return outputs.mean()

    found = predict(tmp_path, System(nn.Linear(3, 2), Total()), list(torch.randn(4, 3)))
    assert found["output"].shape == (4, 2)


def test_predictions_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="polytask predict"):
        read_predictions(tmp_path)
