import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polytask import UserError
from polytask.data import ArrayDataset, ArrayLoader, _seeded, create_multitask_dataloader
from polytask.data import _array_loader as module


def loader(rows=10, **options):
    values = torch.arange(float(rows))
    return create_multitask_dataloader(values, {"a": -values}, **{"batch_size": 4, "seed": 0, **options})


def seen(batches):
    return [inputs.tolist() for inputs, _ in batches]


@pytest.fixture
def processes(monkeypatch):
    """Pretends to be one process of several."""

    def be(rank, world):
        for place in (_seeded, module):
            monkeypatch.setattr(place, "ranks", lambda: (rank, world))

    return be


def test_inputs_and_targets_stay_together():
    for inputs, targets in loader():
        assert torch.equal(targets["a"], -inputs)


def test_each_pass_has_an_order_of_its_own_and_every_row():
    shuffled = loader()
    first, second = seen(shuffled), seen(shuffled)
    assert first != second
    for batches in (first, second):
        assert sorted(itertools.chain(*batches)) == list(range(10))
        assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [first, second] == [seen(again) for again in [loader()] for _ in range(2)]
    assert seen(loader(seed=1)) != first


def test_without_shuffling_rows_come_as_they_are():
    assert seen(loader(shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert seen(loader(shuffle=False, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(loader(drop_last=True)) == 2


def test_torchs_seed_is_the_default():
    orders = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        orders.append(seen(loader(seed=None)))
    assert orders[0] == orders[1] != orders[2]


def test_the_order_takes_nothing_from_training():
    before = torch.get_rng_state()
    list(loader())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("used", range(8))
def test_a_pass_goes_on_where_it_was(used, prefetch):
    whole = loader(prefetch=prefetch)
    passes = itertools.chain.from_iterable(itertools.repeat(whole))
    seen(itertools.islice(passes, used))
    state = whole.state_dict()
    expected = seen(itertools.islice(passes, 9))
    again = loader(seed=9)
    again.load_state_dict(state)
    assert seen(itertools.islice(itertools.chain.from_iterable(itertools.repeat(again)), 9)) == expected


def test_a_pass_that_was_left_is_not_taken_up_again():
    whole = loader()
    next(iter(whole))
    assert seen(whole) == [seen(other) for other in [loader()] for _ in range(2)][1]


def test_a_state_is_plain_data(tmp_path):
    whole = loader()
    next(iter(whole))
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["batches"] == 1


@pytest.mark.parametrize(
    ("other", "message"),
    [({"rows": 11}, "the same number of rows, 10"), ({"batch_size": 5}, "the same number of batches")],
)
def test_the_state_of_another_loader_is_refused(other, message):
    with pytest.raises(UserError, match=message):
        loader(**other).load_state_dict(loader().state_dict())


def test_batches_are_made_ahead_in_a_thread():
    threads, made = [], []

    def make(rows):
        threads.append(threading.current_thread())
        made.append(int(rows))
        return rows

    batches = module.ahead(make, torch.arange(6), 2)
    next(batches)
    assert next(batches) == 1
    batches.close()
    assert threading.current_thread() not in threads
    assert made in ([0, 1, 2, 3], [0, 1, 2])


def test_with_a_device_batches_are_pinned_and_made_ahead(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda batch: pinned.append(batch) or batch)
    given = {"x": torch.arange(10.0), "y": torch.arange(10)}
    whole = create_multitask_dataloader(given, {"a": torch.zeros(10)}, 5, seed=0)
    assert whole.prefetch == 2
    for inputs, targets in whole:
        assert all(any(part is own for own in pinned) for part in (*inputs.values(), targets["a"]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_are_in_pinned_memory():
    inputs, targets = next(iter(loader()))
    assert inputs.is_pinned()
    assert targets["a"].is_pinned()


def test_what_goes_wrong_in_the_thread_is_raised_here():
    def fail(rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(module.ahead(fail, torch.arange(3), 2))


@given(
    rows=st.integers(1, 60),
    world=st.integers(1, 5),
    size=st.integers(1, 9),
    drop=st.booleans(),
    shuffle=st.booleans(),
)
@settings(max_examples=300)
def test_processes_share_the_rows(rows, world, size, drop, shuffle):
    data = ArrayDataset(torch.arange(rows), {"a": torch.zeros(rows)})
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(world):
            for place in (_seeded, module):
                patch.setattr(place, "ranks", lambda rank=rank: (rank, world))
            try:
                own = ArrayLoader(data, size, shuffle, drop_last=drop, seed=0)
            except UserError:
                assert rows < world * (size if drop else 1)
                assert not parts
                return
            batches = seen(own)
            assert len(batches) == len(own)
            assert all(0 < len(batch) <= size for batch in batches)
            assert not drop or all(len(batch) == size for batch in batches)
            parts.append(batches)
    counts = {len(batches) for batches in parts}
    # One row more cannot be in the same number of batches of one.
    assert len(counts) == 1 or (size == 1 and not shuffle and max(counts) - min(counts) == 1)
    taken = [row for batches in parts for batch in batches for row in batch]
    assert len(set(taken)) == len(taken)
    if not drop:
        assert len(taken) == (rows // world * world if shuffle else rows)
    else:
        assert len(taken) == rows // world // size * size * world


def test_processes_need_a_common_seed(processes):
    unseeded = loader(seed=None)
    processes(1, 2)
    with pytest.raises(UserError, match=r"ArrayLoader.seed: is required with several processes"):
        list(unseeded)
    assert len(list(loader(seed=None, shuffle=False))) == 2


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [((0.5, 0.25), [[-2.0, 2.0]]), (([0.0, 1.0], [1.0, 0.5]), [[0.0, 0.0]]), ((0, [0.5, 1]), [[0.0, 1.0]])],
)
def test_bytes_are_normalised_in_one_go(normalize, expected):
    images = np.array([[0, 255]], dtype=np.uint8)
    batches = create_multitask_dataloader(images, {"a": [0.0]}, normalize=normalize)
    inputs, _ = next(iter(batches))
    assert inputs.dtype is torch.float32
    torch.testing.assert_close(inputs, torch.tensor(expected))


def test_channels_of_named_images_are_normalised():
    images = torch.rand(6, 3, 4, 5)
    given = {"image": images, "speed": torch.ones(6)}
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    pair = (mean.tolist(), std.tolist())
    inputs, _ = next(iter(create_multitask_dataloader(given, {"a": [0.0] * 6}, normalize={"image": pair})))
    torch.testing.assert_close(inputs["image"].mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs["image"].std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    assert (inputs["speed"] == 1).all()
    assert not torch.equal(images, inputs["image"])


def test_a_batch_is_augmented_as_a_whole_where_training_draws():
    def flip(inputs, targets):
        return inputs.flip(1), {**targets, "threads": threading.current_thread()}

    batches = create_multitask_dataloader(
        torch.arange(6).view(3, 2), {"a": [0.0] * 3}, shuffle=False, augment=flip, prefetch=2
    )
    inputs, targets = next(iter(batches))
    assert inputs.tolist() == [[1, 0], [3, 2], [5, 4]]
    assert targets["threads"] is threading.current_thread()


@pytest.mark.parametrize(
    ("target", "found"),
    [([0, 1, 3], "none of class 2"), ([1, 2, 3], "none of class 0"), ([0, 2, -100], "none of class 1")],
)
def test_training_needs_a_row_of_each_class(target, found):
    with pytest.raises(UserError) as caught:
        create_multitask_dataloader(np.zeros(3), {"kind": target})
    assert str(caught.value).startswith(
        f"task 'kind': class labels must be 0 to {max(target)} without gaps, got {found}."
    )
    assert f"classes={{'kind': {max(target) + 1}}}" in str(caught.value)
    create_multitask_dataloader(np.zeros(3), {"kind": target}, classes={"kind": 4})
    create_multitask_dataloader(np.zeros(3), {"kind": target}, shuffle=False)
    create_multitask_dataloader(np.zeros(3), {"kind": np.array(target, float)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: must be an integer of at least 1, got 0."),
        ({"batch_size": True}, "batch_size: must be an integer of at least 1, got True."),
        (
            {"batch_size": 11, "drop_last": True},
            "batch_size: must leave at least one batch, got 10 rows for 1",
        ),
        ({"prefetch": -1}, "prefetch: must be an integer of at least 0, got -1."),
        ({"seed": -1}, "seed: must be an integer of at least 0 or None, got -1."),
        ({"seed": 1.5}, "seed: must be an integer of at least 0 or None, got 1.5."),
        ({"normalize": 0.5}, "normalize: must be a pair of mean and standard deviation, got 0.5."),
        ({"normalize": (0.5, 0.0)}, "normalize: standard deviations must be above 0, got 0.0."),
        ({"normalize": (float("nan"), 1)}, "normalize: must be a finite number, got nan."),
        ({"normalize": ([0, 0], [1, 1])}, "normalize: must have 1 number, or 1 for rows of shape (), got 2."),
        ({"normalize": {"imgae": (0, 1)}}, "normalize.imgae: no input is called 'imgae'."),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(UserError) as caught:
        loader(**options)
    assert str(caught.value).startswith(message)


def test_one_pair_is_for_every_input():
    both = {"left": torch.zeros(1, 2), "right": torch.ones(1, 2)}
    inputs, _ = next(iter(create_multitask_dataloader(both, {"a": [0.0]}, normalize=(1, 0.5))))
    assert (inputs["left"].tolist(), inputs["right"].tolist()) == ([[-2.0, -2.0]], [[0.0, 0.0]])


def test_other_data_sets_are_for_torchs_loader():
    with pytest.raises(UserError, match=r"dataset: must be a polytask.data.ArrayDataset, got list\."):
        ArrayLoader([1, 2])


def test_numbers_of_numpy_are_numbers():
    images = np.arange(12, dtype=np.float32).reshape(4, 3)
    ours = create_multitask_dataloader(
        images,
        {"a": np.zeros(4)},
        np.int64(4),
        shuffle=False,
        seed=np.uint8(3),
        normalize=(images.mean(0), torch.from_numpy(images.std(0))),
    )
    inputs, _ = next(iter(ours))
    np.testing.assert_allclose(inputs, (images - images.mean(0)) / images.std(0), rtol=1e-6)
    assert (type(ours.batch_size), type(ours.seed)) == (int, int)
    whole = create_multitask_dataloader(images, normalize=(images.mean(), images.std()), shuffle=False)
    torch.testing.assert_close(next(iter(whole))[0].mean(), torch.zeros(()), atol=1e-6, rtol=0)
