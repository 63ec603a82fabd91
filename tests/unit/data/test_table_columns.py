import copy
import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.checkpoint import load_weights
from polytask.data import TableColumns

TRAIN = pa.table(
    {
        "age": [20.0, None, 40.0, 60.0],
        "time": [1.6e9, 1.6e9 + 1, 1.6e9 + 2, 1.6e9 + 3],
        "city": ["Rome", "Bern", "Rome", None],
        "code": [7, 7, 8, 9],
    }
)


@pytest.fixture
def columns():
    made = TableColumns(["age", "time"], ["city", "code"], max_categories=2, embedding_dim=3)
    made.learn([TRAIN])
    return made


def new():
    return TableColumns(["age", "time"], ["city", "code"], max_categories=2, embedding_dim=3)


def saved(module):
    """A checkpoint of a model that has the columns as a layer, as a file would hold it."""
    file = io.BytesIO()
    torch.save({"state_dict": nn.Sequential(module).state_dict()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_numbers_are_scaled_and_missing_ones_are_the_mean(columns):
    numeric = columns.encode(TRAIN)["numeric"]
    assert numeric[1, 0] == 0
    known = numeric[[0, 2, 3], 0]
    assert float(known.mean()) == pytest.approx(0, abs=1e-6)
    assert float(known.std(correction=0)) == pytest.approx(1, rel=1e-6)


def test_a_column_far_from_zero_keeps_its_digits(columns):
    expected = (np.arange(4) - 1.5) / np.std(np.arange(4))
    assert columns.encode(TRAIN)["numeric"][:, 1].tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_categories_are_numbered_by_how_often_they_occur(columns):
    assert columns.encode(TRAIN)["categories"].tolist() == [[1, 1], [2, 1], [1, 2], [0, 0]]


def test_unknown_categories_are_none(columns):
    table = pa.table(
        {"age": [1.0] * 3, "time": [1.0] * 3, "city": ["Oslo", None, "Bern"], "code": [1, None, 8]}
    )
    assert columns.encode(table)["categories"].tolist() == [[0, 0], [0, 0], [2, 2]]


def test_no_category_is_embedded_as_zeros(columns):
    inputs = columns.encode(TRAIN)
    output = columns(inputs)
    assert output.shape == (4, columns.output_dim) == (4, 8)
    assert torch.equal(output[:, :2], inputs["numeric"])
    assert not output[3, 2:].any()
    assert output[0, 2:].all()
    # Two columns' categories of one number are two.
    assert not torch.equal(output[0, 2:5], output[0, 5:8])


def test_no_category_is_not_trained(columns):
    columns(columns.encode(TRAIN)).sum().backward()
    assert not columns.embedding.weight.grad[0].any()
    assert columns.embedding.weight.grad[1].any()


def test_parts_teach_what_the_whole_does(columns):
    parts = new()
    parts.learn(TRAIN.slice(begin, 1) for begin in range(4))
    assert torch.equal(parts.encode(TRAIN)["categories"], columns.encode(TRAIN)["categories"])
    torch.testing.assert_close(parts.encode(TRAIN)["numeric"], columns.encode(TRAIN)["numeric"])


def test_texts_and_whole_numbers_are_one_category():
    columns = TableColumns(categorical=["code"])
    columns.learn([pa.table({"code": [3, 4, 4]})])
    assert columns.encode(pa.table({"code": ["3", "4"]}))["categories"].tolist() == [[2], [1]]


def test_without_categories_inputs_are_one_tensor():
    columns = TableColumns(["age"])
    columns.learn([TRAIN])
    inputs = columns.encode(TRAIN)
    assert inputs.shape == (4, 1)
    assert inputs.dtype == torch.float32
    assert columns(inputs) is inputs
    assert list(columns.parameters()) == []


def test_more_rows_than_a_block():
    columns = TableColumns(["x", "y"])
    table = pa.table({"x": np.arange(20_000.0), "y": np.arange(20_000.0)[::-1]})
    columns.learn([table])
    inputs = columns.encode(table).double().numpy()
    expected = (np.arange(20_000) - 9999.5) / np.arange(20_000).std()
    np.testing.assert_allclose(inputs[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(inputs[:, 1], expected[::-1], atol=1e-6)


def test_a_constant_column_is_zero():
    columns = TableColumns(["x"])
    columns.learn([pa.table({"x": [0.1] * 7})])
    assert columns.encode(pa.table({"x": [0.1, 1.1]})).flatten().tolist() == pytest.approx([0, 1], abs=1e-6)


def test_an_infinite_number_stays_infinite_when_it_was_not_learnt_from(columns):
    table = pa.table({"age": [float("inf")], "time": [1.6e9], "city": ["Rome"], "code": [7]})
    assert columns.encode(table)["numeric"][0, 0] == float("inf")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, float("inf")], "column 'x': must contain finite numbers"),
        ([None, None], "column 'x': requires a number in training"),
        (["1", "one"], "column 'x': must contain numbers, got 'one' in row 2"),
    ],
)
def test_what_cannot_be_learnt(values, text):
    with pytest.raises(UserError) as raised:
        TableColumns(["x"]).learn([pa.table({"x": values})])
    assert text in str(raised.value)


def test_nothing_is_encoded_before_anything_is_learnt():
    with pytest.raises(UserError, match="must learn from training data first"):
        new().encode(TRAIN)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "must have at least one column"),
        ({"numeric": ["a"], "categorical": ["a"]}, "'a' twice"),
        ({"numeric": ["a"], "max_categories": 0}, "max_categories"),
        ({"numeric": ["a"], "embedding_dim": 1.5}, "embedding_dim"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, text):
    with pytest.raises(UserError, match=text):
        TableColumns(**arguments)


# ---- in a checkpoint --------------------------------------------------------------------------


def test_a_checkpoint_carries_what_was_learnt(columns):
    loaded = new()
    load_weights(nn.Sequential(loaded), saved(columns), "ckpt")
    for name, part in columns.encode(TRAIN).items():
        assert torch.equal(loaded.encode(TRAIN)[name], part)
    assert torch.equal(loaded(loaded.encode(TRAIN)), columns(columns.encode(TRAIN)))


def test_a_checkpoint_takes_the_place_of_what_was_learnt(columns):
    other = new()
    other.learn([TRAIN.slice(2)])
    load_weights(nn.Sequential(other), saved(columns), "ckpt")
    assert other.encode(TRAIN)["categories"].tolist() == columns.encode(TRAIN)["categories"].tolist()


def test_saving_what_was_loaded_changes_nothing(columns):
    loaded = new()
    loaded.load_state_dict(columns.state_dict())
    assert torch.equal(loaded.get_extra_state(), columns.get_extra_state())


def test_a_checkpoint_that_learnt_nothing_teaches_nothing():
    loaded = new()
    loaded.load_state_dict(new().state_dict())
    with pytest.raises(UserError, match="must learn from training data first"):
        loaded.encode(TRAIN)


def test_neither_a_lower_precision_nor_a_copy_changes_what_was_learnt(columns):
    expected = columns.encode(TRAIN)["numeric"]
    for made in (columns.to(torch.bfloat16), copy.deepcopy(columns), pickle.loads(pickle.dumps(columns))):
        assert torch.equal(made.encode(TRAIN)["numeric"], expected)


def test_other_columns_do_not_fit_a_checkpoint(columns):
    other = TableColumns(["age"], ["city", "code"], max_categories=2, embedding_dim=3)
    with pytest.raises(UserError, match="of another shape"):
        load_weights(nn.Sequential(other), saved(columns), "ckpt")
