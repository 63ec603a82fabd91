import copy
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from polytask import UserError
from polytask.data import ArrayDataset

NAN = float("nan")


def rows(*places):
    return torch.tensor(places)


@pytest.mark.parametrize(
    "inputs",
    [
        np.arange(6.0).reshape(3, 2),
        np.arange(6, dtype=np.float16).reshape(3, 2),
        np.arange(6, dtype=">f4").reshape(3, 2),
        np.arange(6, dtype=np.longdouble).reshape(3, 2),
        np.arange(5.0, -1, -1)[::-1].reshape(3, 2),
        np.asfortranarray(np.arange(6.0).reshape(3, 2)),
        torch.arange(6.0, requires_grad=True).reshape(3, 2),
        torch.arange(6.0, dtype=torch.float64).reshape(3, 2),
        [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]],
        pd.DataFrame({"a": [0.0, 2.0, 4.0], "b": [1.0, 3.0, 5.0]}),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_numbers_of_every_kind_become_float32(inputs):
    data = ArrayDataset(inputs, {"a": np.zeros(3)})
    taken, _ = data.take(rows(2, 0))
    assert taken.dtype is torch.float32
    assert taken.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert not taken.requires_grad


@pytest.mark.parametrize("kind", ["i1", "i2", "<i4", ">i4", "i8", "u1", "u2", "u4", "u8"])
def test_classes_of_every_integer_become_int64(kind):
    _, targets = ArrayDataset(np.zeros(4), {"a": np.array([1, 0, 2, 1], dtype=kind)}).take(rows(2, 3))
    assert targets["a"].dtype is torch.int64
    assert targets["a"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (np.array([[1], [0]]), torch.tensor([1, 0])),
        (np.array([True, False]), torch.tensor([1, 0])),
        (np.array([[True, False], [False, True]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])),
        (np.array([[1.0], [0.5]]), torch.tensor([[1.0], [0.5]])),
        (np.array([[3, 0], [1, -100]]), torch.tensor([[3, 0], [1, -100]])),
    ],
)
def test_targets_as_people_mean_them(target, expected):
    _, targets = ArrayDataset(np.zeros(2), {"a": target}).take(rows(0, 1))
    torch.testing.assert_close(targets["a"], expected, rtol=0, atol=0)


def test_integer_inputs_keep_their_type():
    data = ArrayDataset({"image": np.zeros((2, 3), np.uint8), "tokens": np.ones((2, 5), np.int32)})
    inputs, targets = data.take(rows(1))
    assert (inputs["image"].dtype, inputs["tokens"].dtype, targets) == (torch.uint8, torch.int32, {})


def test_a_batch_is_a_copy():
    values = torch.zeros(3, 2)
    taken, targets = ArrayDataset(values, {"a": values}).take(rows(0, 1, 2))
    taken += 1
    targets["a"] += 1
    assert not values.any()


def test_rows_one_by_one_are_what_a_torch_loader_collates():
    data = ArrayDataset(
        {"x": np.arange(4.0), "y": np.arange(4)}, {"a": [0.0, NAN, 2.0, 3.0], "b": [0, 1, 2, -100]}
    )
    inputs, targets = next(iter(DataLoader(data, batch_size=4)))
    whole_inputs, whole_targets = data.take(rows(0, 1, 2, 3))
    torch.testing.assert_close(inputs, whole_inputs)
    torch.testing.assert_close(targets, whole_targets, equal_nan=True)
    assert data[-1][0]["x"] == 3.0
    assert len(list(data)) == 4
    with pytest.raises(IndexError):
        data[4]


def test_a_file_is_mapped_and_never_written(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.float32).reshape(6, 2))
    np.save(tmp_path / "y.npy", np.arange(6))
    before = (tmp_path / "x.npy").read_bytes()
    data = ArrayDataset(tmp_path / "x.npy", {"a": str(tmp_path / "y.npy")})
    taken, _ = data.take(rows(5, 1))
    assert taken.tolist() == [[10.0, 11.0], [2.0, 3.0]]
    assert len(pickle.dumps(data)) < 1000
    assert pickle.loads(pickle.dumps(data))[5][1]["a"] == 5
    data.inputs[""].zero_()
    assert (tmp_path / "x.npy").read_bytes() == before


class Squares(ArrayDataset):
    def __init__(self, rows):
        self.rows = rows
        super().__init__(np.arange(rows), {"square": np.arange(rows) ** 2.0})


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
def test_a_subclass_with_arguments_of_its_own_is_copied(clone):
    data = Squares(4)
    other = clone(data)
    data.targets["square"].zero_()
    assert (type(other), other.rows, len(other)) == (Squares, 4, 4)
    assert other[3][1]["square"] == 9


def test_a_map_that_may_not_be_written_is_taken(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3.0))
    data = ArrayDataset(np.load(tmp_path / "x.npy", mmap_mode="r"), {"a": np.arange(3.0)})
    assert data.take(rows(2))[0].tolist() == [2.0]


def test_named_classes():
    texts = np.array([["cat"], ["dog"], [None], [NAN], [""]], dtype=object)
    data = ArrayDataset(np.zeros(5), {"kind": texts}, classes={"kind": ["bird", "cat", "dog"]})
    assert data.targets["kind"].tolist() == [1, 2, -100, -100, -100]
    frame = pd.Series(["dog", "bird"])
    assert ArrayDataset([0, 0], {"kind": frame}, classes=data.classes).targets["kind"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("inputs", "targets", "options", "message"),
    [
        (
            np.zeros((4, 2)),
            {"a": np.zeros(3)},
            {},
            "task 'a': must have a row for each of the 4 rows of inputs, got 3, in an array of shape (3,).",
        ),
        (
            {"left": np.zeros(4), "right": np.zeros(5)},
            {"a": np.zeros(4)},
            {},
            "inputs.right: must have a row for each of the 4 rows of inputs.left, got 5, "
            "in an array of shape",
        ),
        (np.zeros(2), {"a": [NAN, NAN]}, {}, "task 'a': requires a label, got none in its targets. Leave"),
        (np.zeros(2), {"a": [-100, -100]}, {}, "task 'a': requires a label, got none in its targets. Leave"),
        (np.zeros(2), {"a": [7, 7]}, {"ignore_index": 7}, "task 'a': requires a label, got none"),
        (
            np.zeros(2),
            {"a": [0, -1]},
            {},
            "task 'a': class labels must be 0 or more, or -100 for a missing label, got class -1. Renumber",
        ),
        (
            np.zeros(2),
            {"a": [0, 3]},
            {"classes": {"a": 3}},
            "task 'a': class labels must be from 0 to 2 for 3 classes, got class 3.",
        ),
        (
            np.zeros(2),
            {"a": ["cat", "dog"]},
            {},
            "task 'a': targets must be numbers, or strings with named classes, got strings such as 'cat', "
            "'dog'. Pass classes={'a': [...]} with the classes' names in order.",
        ),
        (
            np.zeros(2),
            {"a": ["cat", "dgo"]},
            {"classes": {"a": ["cat", "dog"]}},
            "task 'a': no class is called 'dgo'. Did you mean 'dog'?",
        ),
        (np.zeros(1), {"a": [1]}, {"classes": {"b": 2}}, "classes: no task is called 'b'. Tasks: a."),
        (np.zeros(1), [[1]], {}, "targets: must be a dict by task, got list. Write {'task': ...}."),
        (np.zeros(1), {"loss": [1]}, {}, "targets: 'loss' is reserved for log keys."),
        ({}, {"a": [1]}, {}, "inputs: must contain at least one array, got an empty dict."),
        (np.zeros((0, 3)), None, {}, "inputs: must have at least one row, got none."),
        (
            3.0,
            None,
            {},
            "inputs: must be a dense array of real numbers, with a row for each sample, got float64",
        ),
        (
            np.zeros(2, complex),
            None,
            {},
            "inputs: must contain numbers, got complex128 such as 0j, 0j.",
        ),
        (torch.zeros(2).to_sparse(), None, {}, "inputs: must be a dense array of real numbers"),
        (["a.txt", "b.txt"], None, {}, "inputs: must contain numbers, got strings such as 'a.txt', 'b.txt'."),
        ("nowhere.npy", None, {}, "inputs: must be an existing file, got nowhere.npy."),
    ],
)
def test_arrays_that_cannot_be_used(inputs, targets, options, message):
    with pytest.raises(UserError) as caught:
        ArrayDataset(inputs, targets, **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("kind", ["text", "cut", "objects", "npz"])
def test_files_that_are_no_array(tmp_path, kind):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(100.0) if kind == "cut" else np.array([{}], dtype=object), allow_pickle=True)
    if kind == "text":
        path.write_text("1,2,3")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, a=np.zeros(3))
    with pytest.raises(UserError, match=re.escape("inputs: must be an .npy file")):
        ArrayDataset(path)


def test_dense_labels_are_checked_throughout():
    maps = np.full((3, 2, 2), -100)
    maps[2, 1, 1] = -3
    with pytest.raises(UserError, match=r"task 'a': class labels must be 0 or more.* got class -3"):
        ArrayDataset(np.zeros(3), {"a": maps})


@pytest.mark.parametrize("kind", ["string", "object"])
def test_texts_that_are_missing_in_a_series(kind):
    texts = pd.Series(["b", None, "a", pd.NA], dtype=kind)
    data = ArrayDataset(np.zeros(4), {"kind": texts}, classes={"kind": ["a", "b"]})
    assert data.targets["kind"].tolist() == [1, -100, 0, -100]


@pytest.mark.parametrize("given", [3, ["a", "b", "c"]])
def test_classes_that_a_missing_one_made_floating_point(given):
    data = ArrayDataset(np.zeros(3), {"kind": [2.0, NAN, 0.0]}, classes={"kind": given})
    assert data.take(rows(0, 1, 2))[1]["kind"].tolist() == [2, -100, 0]
    assert data.take(rows(0))[1]["kind"].dtype == torch.int64
    with pytest.raises(UserError, match=r"task 'kind': class labels must be whole numbers, got 0\.5\."):
        ArrayDataset(np.zeros(2), {"kind": [0.5, 1.0]}, classes={"kind": given})


@pytest.mark.parametrize("given", [0, -1, True, 2.5, "ab", [], ["a", "a"]])
def test_classes_that_are_none(given):
    with pytest.raises(
        UserError, match=r"classes\.kind: must be the number of classes, or their unique names in order"
    ):
        ArrayDataset(np.zeros(2), {"kind": [0, 1]}, classes={"kind": given})


def test_values_that_are_told_from_texts():
    with pytest.raises(UserError, match="got objects such as"):
        ArrayDataset(np.zeros(2), {"kind": np.array([{}, None])})
    with pytest.raises(UserError, match=r"inputs: must have rows of one shape: "):
        ArrayDataset([[1, 2], [3]])
