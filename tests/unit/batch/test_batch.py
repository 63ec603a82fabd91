from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch

from polytask import UserError
from polytask.batch import Batch, access, check_accessor, count_rows, find, move, take_rows
from polytask.losses import Targets

CPU = torch.device("cpu")
META = torch.device("meta")
Pair = namedtuple("Pair", ["image", "label"])


@dataclass
class Sample:
    image: int
    labels: dict


@pytest.mark.parametrize(
    ("batch", "accessor", "expected"),
    [
        ((5, 6), 0, 5),
        ([5, 6], -1, 6),
        ({"a": 5}, "a", 5),
        ({0: 5}, 0, 5),
        ({"a": {"b": [5, 6]}}, "a.b.1", 6),
        ({"a.b": 5, "a": {"b": 6}}, "a.b", 5),
        ((5, {"digit": 6}), "1.digit", 6),
        ((5, {"digit": 6}), "-1.digit", 6),
        (Pair(5, 6), "label", 6),
        (Pair(5, 6), 1, 6),
        (Sample(5, {"digit": 6}), "labels.digit", 6),
        ({"a": 5, "b": 6}, lambda batch: batch["a"] + batch["b"], 11),
    ],
)
def test_accessors(batch, accessor, expected):
    assert access(batch, accessor, "input_accessor") == expected


@pytest.mark.parametrize(
    ("batch", "accessor", "message"),
    [
        (
            (1, 2),
            2,
            "x: must name a part of the batch, not 2, got a tuple of 2 parts. Parts are numbered from 0.",
        ),
        (
            (1, 2),
            -3,
            "x: must name a part of the batch, not -3, got a tuple of 2 parts. Parts are numbered from 0.",
        ),
        (
            {"image": 1},
            "imgae",
            "x: must name a part of the batch, not 'imgae', got a dict with the keys image. "
            "Did you mean 'image'?",
        ),
        ({"a": {"b": 1}}, "a.c", "x: must name a part of the batch, not 'a.c', got a dict with the keys a"),
        (
            {"keys": 1},
            "values",
            "x: must name a part of the batch, not 'values', got a dict with the keys keys",
        ),
        ({"a": 1}, 0, "x: must name a part of the batch, not 0, got a dict with the keys a"),
        (
            3,
            "a",
            "x: must name a part of the batch, not 'a', got a int. "
            "Name the part by an index, a key or a dotted path.",
        ),
    ],
)
def test_a_part_that_is_not_there(batch, accessor, message):
    assert find(batch, accessor) == (False, None)
    with pytest.raises(UserError) as caught:
        access(batch, accessor, "x")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("accessor", [None, 1.0, True, ["a"], {"a": None}, {"a": {"b": 0}}])
def test_what_is_no_accessor(accessor):
    with pytest.raises(UserError, match=r"^x.*: must be an index, a key, a dotted path or a callable"):
        check_accessor(accessor, "x", by_name=True)


def test_a_mapping_is_an_accessor_only_where_names_make_sense():
    check_accessor({"a": 0}, "x", by_name=True)
    with pytest.raises(UserError):
        check_accessor({"a": 0}, "x")


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        (torch.zeros(4, 2), 4),
        (torch.zeros(()), 1),
        ({"a": [torch.zeros(3)]}, 3),
        ((torch.zeros(2), torch.zeros(9)), 2),
        ("text", 1),
        (None, 1),
        ([], 1),
        ({"name": ["a", "b", "c"], "mask": None, "x": torch.zeros(4)}, 4),
        ({"scale": torch.tensor(2.0), "x": [None, {"y": torch.zeros(5, 2)}]}, 5),
        ({"name": ["a", "b", "c"], "mask": None}, 3),
        ((torch.tensor(1.0), "text"), 1),
    ],
)
def test_rows_are_counted_on_the_first_tensor(value, rows):
    assert count_rows(value) == rows


def test_rows_are_taken_of_every_tensor():
    value = {"a": [torch.arange(4)], "b": (torch.arange(8).reshape(4, 2), "text")}
    taken = take_rows(value, torch.tensor([3, 0]))
    assert taken["a"][0].tolist() == [3, 0]
    assert taken["b"][0].tolist() == [[6, 7], [0, 1]]
    assert taken["b"][1] == "text"
    assert take_rows(value, None) is value


def test_everything_in_a_batch_is_moved():
    targets = Targets.count({"a": torch.zeros(2), "b": torch.tensor([0, -100])})
    batch = Batch(
        {"x": [torch.zeros(2)], "pair": Pair(torch.zeros(1), "text")},
        targets,
        2,
        {"a": torch.tensor([0])},
    )
    moved = batch.to(META)
    found = [moved.inputs["x"][0], moved.inputs["pair"].image, *moved.targets.values()]
    found += [moved.targets.partial["b"].rows, moved.rows["a"]]
    assert {value.device.type for value in found} == {"meta"}
    assert isinstance(moved.inputs["pair"], Pair)
    assert moved.inputs["pair"].label == "text"
    assert moved.targets.full == {"a"}
    assert moved.targets.counts == {"a": 2, "b": 1}


def test_what_knows_how_to_move_is_asked_to():
    class Packed:
        def to(self, device):
            return device

    assert move(Packed(), META) is META
    assert move([Packed, 1], CPU) == [Packed, 1]
