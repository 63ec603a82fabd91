import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, WeightedRandomSampler

from polytask import UserError
from polytask.data import ReplayableLoader
from polytask.data._random_state import drawn, host_state, set_host_state

ROWS = list(range(14))


class Noise(torch.utils.data.Dataset):
    """Rows that carry a draw from every source of random numbers."""

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return index, torch.rand(()).item(), random.random(), np.random.rand()


class Stream(IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        yield from ROWS[info.id if info else 0 :: info.num_workers if info else 1]


class Lazy(torch.utils.data.Sampler):
    """Draws each index when it is asked for."""

    def __iter__(self):
        return (random.randrange(len(ROWS)) for _ in ROWS)

    def __len__(self):
        return len(ROWS)


def own():
    return torch.Generator().manual_seed(5)


LOADERS = {
    "shuffled": lambda: DataLoader(ROWS, 3, shuffle=True),
    "in order": lambda: DataLoader(ROWS, 3),
    "generator": lambda: DataLoader(ROWS, 3, shuffle=True, generator=own()),
    "sampler's generator": lambda: DataLoader(ROWS, 3, sampler=RandomSampler(ROWS, generator=own())),
    "with replacement": lambda: DataLoader(
        ROWS, 3, sampler=RandomSampler(ROWS, replacement=True, num_samples=40, generator=own())
    ),
    "weighted": lambda: DataLoader(ROWS, 3, sampler=WeightedRandomSampler([1.0] * 14, 14)),
    "batch sampler": lambda: DataLoader(ROWS, batch_sampler=BatchSampler(RandomSampler(ROWS), 3, True)),
    "no batches": lambda: DataLoader(ROWS, batch_size=None, shuffle=True),
    "lazy sampler": lambda: DataLoader(ROWS, 3, sampler=Lazy()),
    "noise": lambda: DataLoader(Noise(), 3, shuffle=True),
    "noise in workers": lambda: DataLoader(Noise(), 3, shuffle=True, num_workers=2),
    "stream": lambda: DataLoader(Stream(), 3),
    "stream in workers": lambda: DataLoader(Stream(), 3, num_workers=2),
    "list": lambda: [torch.tensor([i]) for i in ROWS],
}


def plain(batch):
    if isinstance(batch, list):
        return [item.tolist() for item in batch]
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def use(batches, count, draws=True):
    """Take batches as training does: each step draws random numbers of its own."""
    taken = []
    for _ in range(count):
        taken.append(plain(next(batches)))
        if draws:
            torch.rand(3)
    return taken


def seed(number):
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def rest_of_two_epochs(loader, batches):
    rest = [plain(batch) for batch in batches]
    return [*rest, *(plain(batch) for batch in loader)], torch.rand(()).item(), random.random()


@pytest.mark.parametrize("used", [1, 3])
@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_goes_on_where_it_stopped(make, used):
    seed(0)
    loader = ReplayableLoader(make())
    list(loader)
    batches = iter(loader)
    use(batches, used)
    state, numbers = loader.state_dict(), host_state()
    expected = rest_of_two_epochs(loader, batches)

    seed(99)
    again = ReplayableLoader(make())
    again.load_state_dict(state)
    set_host_state(numbers)
    assert rest_of_two_epochs(again, iter(again)) == expected


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_yields_what_the_bare_loader_yields(make):
    seed(0)
    loader = make()
    expected = [plain(batch) for _ in range(2) for batch in loader]
    seed(0)
    wrapped = ReplayableLoader(make())
    assert [plain(batch) for _ in range(2) for batch in wrapped] == expected


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_between_epochs_a_new_one_begins(make):
    seed(0)
    loader = ReplayableLoader(make())
    list(loader)
    state, numbers = loader.state_dict(), host_state()
    assert state["batches"] == 0
    expected = [plain(batch) for batch in loader]

    again = ReplayableLoader(make())
    again.load_state_dict(state)
    set_host_state(numbers)
    assert [plain(batch) for batch in again] == expected


@given(
    rows=st.integers(1, 20),
    size=st.integers(1, 6),
    drop_last=st.booleans(),
    used=st.integers(0, 20),
    number=st.integers(0, 9),
)
@settings(max_examples=40)
def test_used_and_rest_make_the_epoch(rows, size, drop_last, used, number):
    def loader():
        return ReplayableLoader(DataLoader(range(rows), size, shuffle=True, drop_last=drop_last))

    seed(number)
    whole = [plain(batch) for batch in loader()]
    used = min(used, max(len(whole) - 1, 0))
    seed(number)
    first = loader()
    taken = use(iter(first), used)
    again = loader()
    again.load_state_dict(first.state_dict())
    if not used:
        seed(number)
    assert taken + [plain(batch) for batch in again] == whole


def test_passes_over_without_loading():
    class Counted(Noise):
        loads = 0

        def __getitem__(self, index):
            Counted.loads += 1
            return index

    loader = ReplayableLoader(DataLoader(Counted(), 2))
    use(iter(loader), 5)
    again = ReplayableLoader(DataLoader(Counted(), 2))
    again.load_state_dict(loader.state_dict())
    Counted.loads = 0
    next(iter(again))
    assert Counted.loads == 2


def test_nothing_is_drawn_before_the_first_batch():
    loader = ReplayableLoader(DataLoader(ROWS, 3, shuffle=True))
    before = host_state()
    batches = iter(loader)
    assert not drawn(before, host_state())
    next(batches)
    assert drawn(before, host_state()) == {"torch"}


def test_last_batch_ends_the_epoch_before_the_iterator_does():
    loader = ReplayableLoader(DataLoader(ROWS, 7))
    batches = iter(loader)
    use(batches, 2)
    assert loader.state_dict()["batches"] == 0


def test_an_abandoned_epoch_counts_from_its_own_start():
    loader = ReplayableLoader(DataLoader(ROWS, 3))
    use(iter(loader), 3)
    use(iter(loader), 2)
    assert loader.state_dict()["batches"] == 2


@pytest.mark.parametrize("used", [0, 2])
def test_persistent_workers_keep_the_order_and_say_what_they_cannot(used):
    def make():
        return ReplayableLoader(DataLoader(ROWS, 3, shuffle=True, num_workers=2, persistent_workers=True))

    seed(0)
    loader = make()
    list(loader)
    batches = iter(loader)
    use(batches, used)
    state, numbers = loader.state_dict(), host_state()
    expected = rest_of_two_epochs(loader, batches)

    again = make()
    again.load_state_dict(state)
    set_host_state(numbers)
    with pytest.warns(UserWarning, match="Persistent workers"):
        assert rest_of_two_epochs(again, iter(again)) == expected


def test_persistent_workers_are_exact_in_their_first_epoch():
    def make():
        return ReplayableLoader(DataLoader(Noise(), 3, shuffle=True, num_workers=2, persistent_workers=True))

    seed(0)
    loader = make()
    batches = iter(loader)
    use(batches, 2)
    state, numbers = loader.state_dict(), host_state()
    expected = rest_of_two_epochs(loader, batches)

    again = make()
    again.load_state_dict(state)
    set_host_state(numbers)
    assert rest_of_two_epochs(again, iter(again)) == expected


class RandomStream(IterableDataset):
    def __iter__(self):
        return (torch.rand(()) for _ in ROWS)


@pytest.mark.parametrize(("draws", "warns"), [(True, True), (False, False)])
def test_a_stream_that_shares_numbers_with_training_is_told(draws, warns, recwarn):
    loader = ReplayableLoader(DataLoader(RandomStream(), 3))
    use(iter(loader), 2, draws)
    state, numbers = loader.state_dict(), host_state()
    again = ReplayableLoader(DataLoader(RandomStream(), 3))
    again.load_state_dict(state)
    set_host_state(numbers)
    next(iter(again))
    assert ["same random state" in str(warning.message) for warning in recwarn] == [True] * warns


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(ROWS, 2), "the same number of batches, 5, got 7."),
        (DataLoader(ROWS, 3, num_workers=2), "the same number of workers, 0, got 2."),
    ],
)
def test_another_loader_is_refused(loader, message):
    state = ReplayableLoader(DataLoader(ROWS, 3)).state_dict()
    with pytest.raises(UserError, match=re.escape(message)):
        ReplayableLoader(loader).load_state_dict(state)


def test_a_loader_with_its_own_state_is_refused():
    with pytest.raises(UserError, match=r"must not have a state_dict, got ReplayableLoader"):
        ReplayableLoader(ReplayableLoader(DataLoader(ROWS)))


def test_state_is_plain_data(tmp_path):
    loader = ReplayableLoader(DataLoader(ROWS, 3, shuffle=True, generator=own()))
    use(iter(loader), 1)
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert ReplayableLoader.owns(loaded)
    assert not ReplayableLoader.owns({"batches": 1})
    assert not drawn(loaded["start"]["random"], loader.state_dict()["start"]["random"])


def test_shows_what_lightning_reads():
    loader = DataLoader(ROWS, 3, shuffle=True)
    wrapped = ReplayableLoader(loader)
    assert len(wrapped) == 5
    for name in ("dataset", "sampler", "batch_sampler", "batch_size", "worker_init_fn", "_iterator"):
        assert getattr(wrapped, name) is getattr(loader, name)
    wrapped.worker_init_fn = print
    wrapped._iterator = "gone"
    assert (loader.worker_init_fn, loader._iterator) == (print, "gone")
    assert not hasattr(ReplayableLoader([1]), "sampler")
    with pytest.raises(TypeError):
        len(ReplayableLoader(DataLoader(Stream())))
