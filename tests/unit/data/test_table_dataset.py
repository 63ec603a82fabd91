import copy
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from polytask import UserError
from polytask.data import ArrayLoader, TableColumns, TableDataset, TableInputs, TableTargets

HOUSES = "rooms,city,price,sold\n3,Bern,1.5,yes\n5,Rome,,no\n4,Bern,2.5,\n8,,4.5,no\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "houses.csv"
    path.write_text(HOUSES)
    return path


def columns():
    return TableColumns(["rooms"], ["city"], max_categories=5, embedding_dim=2)


def houses(file, made=None, **options):
    targets = TableTargets({"price": "price", "sold": "sold"}, {"sold": ["no", "yes"]})
    return TableDataset(file, made or columns(), targets, **{"train": True, **options})


def test_rows_and_batches(file):
    data = houses(file)
    inputs, targets = data[1]
    assert len(data) == 4
    assert inputs["numeric"].tolist() == pytest.approx([0.0])
    assert inputs["categories"].tolist() == [2]
    assert targets["price"].isnan()
    assert targets["sold"] == 0
    inputs, targets = data.take(torch.tensor([3, 0]))
    assert inputs["categories"].tolist() == [[0], [1]]
    assert targets["sold"].tolist() == [0, 1]
    assert data.take(torch.tensor([2]))[1]["sold"].tolist() == [-100]


def test_loaders_of_ours_and_of_torch_give_the_same(file):
    data = houses(file)
    own = list(ArrayLoader(data, 3, shuffle=False))
    others = list(DataLoader(data, 3))
    assert len(own) == len(others) == 2
    for (inputs, targets), (theirs, labels) in zip(own, others, strict=True):
        for name in inputs:
            assert torch.equal(inputs[name], theirs[name])
        for name in targets:
            assert torch.equal(targets[name].nan_to_num(9), labels[name].nan_to_num(9))


def test_columns_are_shared_between_training_and_the_rest(file, tmp_path):
    later = tmp_path / "later.csv"
    later.write_text("rooms,city\n5,Oslo\n9,Rome\n")
    made = columns()
    houses(file, made)
    data = TableDataset(later, made)
    with pytest.warns(UserWarning, match="1 of 2 values, such as 'Oslo'"):
        inputs, targets = data[0]
    assert inputs["numeric"].tolist() == pytest.approx([0.0])
    assert inputs["categories"].tolist() == [0]
    assert targets == {}
    assert data[1][0]["categories"].tolist() == [2]


def test_what_is_loaded_after_the_rows_were_read_is_heeded(file, tmp_path):
    trained, made = columns(), columns()
    houses(file, trained)
    other = tmp_path / "other.csv"
    other.write_text("rooms,city,price,sold\n50,Rome,1.5,yes\n60,Rome,1.5,no\n")
    data = houses(other, made)
    before = data[0][0]
    made.load_state_dict(trained.state_dict())
    after = data[0][0]
    assert before["categories"].tolist() == [1]
    assert after["categories"].tolist() == [2]
    assert after["numeric"] > 5 > before["numeric"]


def test_without_training_there_is_nothing_to_encode_with(file):
    data = houses(file, train=False)
    with pytest.raises(UserError, match="must learn from training data first"):
        data[0]


def test_parts_are_apart_and_the_same_each_time(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [float(i) for i in range(100)], "y": list(range(100))}), path)
    made = TableColumns(["x"])
    numbers = TableTargets({"y": "y"}, task_types={"y": "regression"})

    def rows(*part, seed=0):
        data = TableDataset(path, made, numbers, part=part, seed=seed, train=part[0] == 0)
        return data.targets["y"].tolist()

    parts = [rows(0, 0.7), rows(0.7, 0.8), rows(0.8, 1)]
    assert [len(part) for part in parts] == [70, 10, 20]
    assert sorted(row for part in parts for row in part) == list(range(100))
    assert parts[0] != sorted(parts[0])
    assert rows(0, 0.7) == parts[0] != rows(0, 0.7, seed=1)


@pytest.mark.parametrize("part", [[0.5, 0.5], [0.5, 0.2], [0, 1.2], [0.5], [0, 0.01], ["0", "1"]])
def test_parts_that_are_none(file, part):
    with pytest.raises(UserError, match="part: "):
        houses(file, part=part)


def test_only_the_rows_of_training_teach(file):
    made = columns()
    houses(file, made, part=[0, 0.5], seed=1)
    inputs = TableDataset(file, made, part=[0, 0.5], seed=1).take(torch.arange(2))[0]
    assert inputs["numeric"].flatten().tolist() in ([-1, 1], [1, -1])


def test_a_copy_does_not_read_the_file_again(file):
    data = houses(file)
    file.unlink()
    for made in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert torch.equal(made[2][0]["numeric"], data[2][0]["numeric"])
        assert len(made) == 4


def test_inputs_of_ones_own(file):
    class Lengths(TableInputs):
        names = ("city",)

        def encode(self, table):
            return torch.tensor([[float(len(text or ""))] for text in table["city"].to_pylist()])

    data = TableDataset(file, Lengths(), {"price": "price"}, train=True)
    assert data[3][0].tolist() == [0]
    assert repr(data).startswith("TableDataset(rows=4, ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rooms,city,price,sold\n1,a,2,maybe\n", "task 'sold': no class is called 'maybe'"),
        ("rooms,city,price,sold\n1,a,,yes\n", "task 'price': requires a label"),
        ("rooms,city,price,sold\nx,a,1.5,yes\n", "column 'rooms': must contain numbers"),
        ("rooms,city,prise,sold\n1,a,1,yes\n", "no column is called 'price'. Did you mean 'prise'?"),
        ("rooms,city,price,sold\n1,a,1\n", "line 2: a row must have 4 cells, got 3"),
    ],
)
def test_tables_that_cannot_be_used(file, text, message):
    file.write_text(text)
    with pytest.raises(UserError) as raised:
        houses(file)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_columns_are_inputs(file):
    with pytest.raises(UserError, match=r"columns: must be a polytask.data.TableColumns.*got list"):
        TableDataset(file, ["rooms"])


def test_a_task_without_a_label_is_no_matter_where_nothing_is_trained(file):
    made = columns()
    houses(file, made)
    file.write_text("rooms,city,price,sold\n1,Bern,,\n")
    data = houses(file, made, train=False)
    assert data[0][1]["sold"] == -100


def test_a_training_that_is_refused_teaches_nothing(file):
    made = columns()
    file.write_text("rooms,city,price,sold\n1,a,,yes\n")
    with pytest.raises(UserError, match="requires a label"):
        houses(file, made)
    assert made.revision == 0
