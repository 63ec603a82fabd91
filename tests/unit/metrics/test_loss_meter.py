import io
import math

import pytest
import torch

from polytask.metrics import _loss_meter as _meter
from polytask.metrics._loss_meter import LossMeter


def one(value):
    return torch.tensor(float(value))


def added(meter, *steps):
    """Steps as (loss of a, loss of b or None, total, labels of a, rows)."""
    for number, (a, b, total, count, size) in enumerate(steps):
        losses = {"a": one(a)} if b is None else {"a": one(a), "b": one(b)}
        meter.add(losses, one(total), {"a": count, "b": 10}, size, number)
    return meter


def test_tasks_are_averaged_over_labels_and_the_total_over_rows():
    meter = added(LossMeter(["a", "b"]), (1, None, 1, 30, 32), (5, 7, 12, 10, 96))
    assert meter.read() == {"a": 2.0, "b": 7.0, "total": 9.25}
    assert meter.read() == {}
    assert meter.epoch() == {"a": 2.0, "b": 7.0, "total": 9.25}


def test_an_epoch_is_made_of_its_readings():
    meter = added(LossMeter(["a", "b"]), (1, 1, 2, 10, 10))
    meter.read()
    added(meter, (3, 1, 4, 30, 10))
    assert meter.epoch() == {"a": 2.5, "b": 1.0, "total": 3.0}
    meter.reset()
    assert meter.epoch() == {}


def test_losses_that_are_no_tasks_count_by_rows():
    meter = LossMeter([])
    meter.add({"extra": one(1)}, one(1), {}, 10, 0)
    meter.add({"extra": one(4)}, one(4), {}, 20, 1)
    assert meter.epoch() == {"total": 3.0, "extra": 3.0}


def test_graphs_are_not_kept():
    meter = LossMeter(["a"])
    loss = torch.ones((), requires_grad=True) * 2
    meter.add({"a": loss}, loss, {}, 1, 0)
    assert not any(value.requires_grad for values, _, _ in meter.window for value in values.values())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_loss_that_is_not_finite_is_kept(value):
    meter = added(LossMeter(["a", "b"]), (1, 1, 2, 1, 1), (1, value, value, 1, 1), (value, 1, value, 1, 1))
    meter.read()
    found, step = meter.bad
    assert (sorted(found), step) == (["b", "total"], 1)
    assert all(each == value or (math.isnan(each) and math.isnan(value)) for each in found.values())


def test_losses_of_different_precision():
    meter = LossMeter(["a", "b"])
    meter.add({"a": one(1).double(), "b": torch.ones(1).bfloat16()}, one(2).half(), {}, 1, 0)
    assert meter.read() == {"a": 1.0, "b": 1.0, "total": 2.0}


def test_steps_that_nobody_reads_are_bounded(monkeypatch):
    monkeypatch.setattr(_meter, "_MOST_STEPS", 4)
    meter = LossMeter(["a", "b"])
    for _ in range(10):
        added(meter, (1, 2, 3, 1, 1))
        assert len(meter.window) < 4
    assert meter.read() == {"a": 1.0, "b": 2.0, "total": 3.0}
    assert meter.counts == {"a": 10.0, "b": 100.0, "total": 10.0}


@pytest.mark.parametrize("most", [2, 1000])
def test_a_restored_epoch_goes_on_bit_for_bit(most, monkeypatch):
    monkeypatch.setattr(_meter, "_MOST_STEPS", most)
    torch.manual_seed(0)
    steps = [(*torch.rand(3).tolist(), 3 + i, 7 + i) for i in range(9)]
    meter = added(LossMeter(["a", "b"]), *steps[:2])
    meter.read()
    added(meter, *steps[2:5])
    file = io.BytesIO()
    torch.save(meter.state_dict(), file)
    file.seek(0)
    other = LossMeter(["a", "b"])
    other.load_state_dict(torch.load(file, weights_only=True))
    added(meter, *steps[5:])
    added(other, *steps[5:])
    assert other.read() == meter.read()
    assert other.epoch() == meter.epoch()


def test_sums_are_added_up_over_processes():
    meter = added(LossMeter(["a", "b"]), (1, None, 1, 10, 10))
    theirs = torch.tensor([[30.0, 4.0, 50.0], [10.0, 2.0, 10.0]])
    assert meter.epoch(lambda ours: ours + theirs) == {"a": 2.0, "b": 2.0, "total": 3.0}
