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
    assert read_predictions(tmp_path / "predictions", rows=True)["row"].tolist() == list(range(10))
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
    class Changing(Shapes):
        calls = 0

        def forward(self, x):
            Changing.calls += 1
            return {"vector": x if Changing.calls == 1 else x.flatten()[: len(x)]}

    with pytest.raises(UserError, match=r"column 'vector': must have values of one type and one number of dim"):
        predict(tmp_path, system(Changing()), list(torch.randn(4, 3)), 2)
    assert not list((tmp_path / "predictions").iterdir())


class Tokens(nn.Module):
    """As many outputs as tokens, a vector for each."""

    task_names = ("tag", "words")

    def forward(self, x):
        lengths = (x != 0).sum(dim=1).tolist()
        tokens = x.float()
        rows = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
        return {"tag": torch.stack([tokens, -tokens], dim=2), "words": rows}


def test_outputs_whose_length_varies_are_lists(tmp_path):
    """Between batches, which are padded, and between the rows of one."""
    sentences = [[1, 2], [3], [4, 5, 6], [7, 8, 9, 1]]
    padded = [torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sentences[i : i + 2]], True) for i in (0, 2)]
    trainer = quiet_trainer(callbacks=[PredictionWriter(tmp_path)])
    trainer.predict(system(Tokens()), DataLoader(padded, batch_size=None), return_predictions=False)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table["words"].to_pylist() == sentences
    rows = [row + [0] * (width - len(row)) for row, width in zip(sentences, (2, 2, 4, 4), strict=True)]
    assert table["tag"].to_pylist() == [[[token, -token] for token in row] for row in rows]
    assert read_predictions(tmp_path)["words"][2] == [4, 5, 6]


def test_a_foreign_criterion_without_names_writes_one_column(tmp_path):
    class Total(nn.Module):
        def forward(self, outputs, targets):
            return outputs.mean()

    found = predict(tmp_path, System(nn.Linear(3, 2), Total()), list(torch.randn(4, 3)))
    assert found["output"].shape == (4, 2)


def test_predictions_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="polytask predict"):
        read_predictions(tmp_path)
