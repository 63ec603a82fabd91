"""Checkpoints that are read without running code, and weights that fit or are refused as a whole."""

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.checkpoint import check_optimizer, load_weights, read_checkpoint
from polytask.weighting import MoCo


def save(path, **entries):
    torch.save({"state_dict": {}, **entries}, path)
    return path


def test_a_checkpoint_is_read_on_the_host(tmp_path):
    tensor = torch.arange(3)
    found = read_checkpoint(save(tmp_path / "a.ckpt", state_dict={"x": tensor}, epoch=3))
    assert found["epoch"] == 3
    assert torch.equal(found["state_dict"]["x"], tensor)


def test_a_missing_file_names_its_neighbours(tmp_path):
    save(tmp_path / "best.ckpt")
    with pytest.raises(UserError, match=r"must be an existing file, got .*bst\.ckpt\. Did you mean '.*best\.ckpt'\?"):
        read_checkpoint(tmp_path / "bst.ckpt")
    with pytest.raises(UserError, match="`best` or `last`"):
        read_checkpoint(tmp_path / "none" / "bst.ckpt")


def test_an_object_is_not_plain_data(tmp_path):
    path = save(tmp_path / "a.ckpt", module=nn.Linear(1, 1))
    with pytest.raises(UserError, match="must have tensors and plain data only"):
        read_checkpoint(path)


@pytest.mark.parametrize("size", [0, 1, 100, 1000])
def test_a_file_that_was_cut_off_is_told(tmp_path, size):
    path = save(tmp_path / "a.ckpt", state_dict={"x": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"--ckpt .*a\.ckpt"):
        read_checkpoint(path)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="must be an existing file"):
        read_checkpoint(tmp_path)


def test_weights_are_loaded():
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    load_weights(other, {"state_dict": one.state_dict()}, "x")
    assert torch.equal(one.weight, other.weight)


def aggregator(tasks, steps):
    weighting = MoCo()
    weighting.setup([f"task{i}" for i in range(tasks)])
    for _ in range(steps):
        weighting(torch.eye(tasks, 4))
    return weighting


def test_a_state_without_a_size_takes_the_saved_one():
    saved, other = aggregator(2, steps=1), aggregator(2, steps=0)
    load_weights(other, {"state_dict": saved.state_dict()}, "x")
    assert torch.equal(other.average.rows, saved.average.rows)
    assert other.average.rows.shape == (2, 4)


def test_a_state_without_a_size_is_for_its_number_of_tasks():
    with pytest.raises(UserError, match=r"another architecture, got 3 of another shape, such as shares"):
        load_weights(aggregator(3, steps=0), {"state_dict": aggregator(2, steps=1).state_dict()}, "x")


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Linear(2, 4), r"2 of another shape, such as weight \(3, 2\) for \(4, 2\)"),
        (nn.Linear(2, 3, bias=False), r"1 not in the model, such as bias"),
        (
            nn.Sequential(nn.Linear(2, 3)),
            r"2 missing from it, such as 0\.weight; 2 not in the model, such as weight",
        ),
    ],
)
def test_weights_that_differ_are_counted_and_nothing_is_loaded(model, found):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=f"x: the checkpoint is from another architecture, got {found}"):
        load_weights(model, {"state_dict": nn.Linear(2, 3).state_dict()}, "x")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def sgd(*groups, **options):
    return torch.optim.SGD(
        [{"params": nn.Linear(1, 1).parameters()} for _ in range(*groups)], lr=0.1, **options
    )


def test_an_optimizer_of_the_same_kind_may_have_other_values():
    saved = sgd(1)
    torch.optim.lr_scheduler.StepLR(saved, 1)
    check_optimizer(sgd(1, momentum=0.9), {"optimizer_states": [saved.state_dict()]}, "x")
    check_optimizer(sgd(1), {}, "x")


@pytest.mark.parametrize("other", [sgd(2), torch.optim.Adam(nn.Linear(1, 1).parameters())])
def test_another_optimizer_is_refused(other):
    with pytest.raises(UserError, match="x: must be resumed with the same optimizer"):
        check_optimizer(other, {"optimizer_states": [sgd(1).state_dict()]}, "x")
