import copy
import itertools
import pickle
import random
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset

from polytask import UserError
from polytask.data import (
    Annealed,
    FixedProbabilities,
    Proportional,
    ReplayableLoader,
    RoundRobin,
    TaskLoader,
    Temperature,
    Uniform,
    _seeded,
    create_multitask_dataloader,
)
from polytask.data import _task_loader as module
from polytask.data._random_state import host_state, set_host_state

SAMPLERS = [
    RoundRobin(),
    Uniform(),
    Proportional(),
    Temperature(2.0, cap=3),
    Annealed(3),
    FixedProbabilities({"a": 1, "b": 2, "c": 3}),
]
samplers = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


def torch_loader(rows, size, **options):
    return DataLoader(TensorDataset(torch.arange(rows)), size, **options)


def loaders():
    """Of every kind, each with a batch size of its own: 5, 4 and 2 batches."""
    return {
        "a": create_multitask_dataloader(torch.arange(10), {"a": torch.zeros(10)}, 2, seed=3),
        "b": torch_loader(12, 3, shuffle=True),
        "c": [torch.tensor([0, 1]), torch.tensor([2])],
    }


def plain(batches):
    return [
        {
            name: (batch if isinstance(batch, torch.Tensor) else batch[0]).tolist()
            for name, batch in step.items()
        }
        for step in batches
    ]


def forever(loader):
    return itertools.chain.from_iterable(itertools.repeat(loader))


@samplers
@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_a_step_has_so_many_tasks_in_the_loaders_order(sampler, tasks):
    steps = list(TaskLoader(loaders(), sampler, tasks_per_step=tasks, seed=0, epoch=40))
    assert len(steps) == 40
    assert all(len(step) == tasks and sorted(step) == list(step) for step in steps)


@pytest.mark.parametrize(
    ("sampler", "tasks", "epoch", "length"),
    [
        (RoundRobin(), 3, "shortest", 2),
        (RoundRobin(), 3, "longest", 5),
        (RoundRobin(), 1, "shortest", 6),
        (RoundRobin(), 1, "longest", 15),
        (Uniform(), 2, "longest", 8),
        (Proportional(), 1, "shortest", 11),
        (Proportional(), 1, "longest", 11),
        (FixedProbabilities({"a": 1, "b": 1, "c": 0}), 1, "longest", 10),
        (FixedProbabilities({"a": 1, "b": 1, "c": 0}), 1, "shortest", 8),
        (Temperature(), 1, 7, 7),
    ],
)
def test_how_long_an_epoch_is(sampler, tasks, epoch, length):
    loader = TaskLoader(loaders(), sampler, tasks_per_step=tasks, epoch=epoch, seed=0)
    assert len(loader) == length == len(list(loader))


def test_a_loader_that_ends_begins_again_and_goes_on_in_the_next_epoch():
    loader = TaskLoader({"a": torch_loader(5, 1), "b": torch_loader(2, 1)}, RoundRobin(), epoch=4)
    steps = [
        (name, *rows) for step in plain(itertools.islice(forever(loader), 12)) for name, rows in step.items()
    ]
    assert [row for name, row in steps if name == "a"] == [0, 1, 2, 3, 4, 0]
    assert [row for name, row in steps if name == "b"] == [0, 1, 0, 1, 0, 1]


def test_proportional_epochs_see_rows_about_equally_often():
    loader = TaskLoader({"a": torch_loader(300, 1), "b": torch_loader(100, 1)}, Proportional(), seed=0)
    seen = Counter(name for step in loader for name in step)
    assert len(loader) == 400
    assert seen["a"] == pytest.approx(300, abs=30)


@samplers
@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("used", [0, 1, 4, 7, 8, 11, 19])
def test_an_epoch_goes_on_where_it_was(sampler, tasks, used):
    def make(seed):
        torch.manual_seed(seed)
        return TaskLoader(loaders(), sampler, tasks_per_step=tasks, epoch=8)

    whole = make(0)
    steps = forever(whole)
    for _ in range(used):
        next(steps)
        torch.rand(1)  # training draws too
    state, numbers = whole.state_dict(), host_state()
    expected = plain(itertools.islice(steps, 30))
    again = make(1)
    again.load_state_dict(state)
    set_host_state(numbers)
    assert plain(itertools.islice(forever(again), 30)) == expected


def test_a_state_is_plain_data(tmp_path):
    loader = TaskLoader(loaders(), Uniform(), seed=0)
    next(iter(loader))
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert ReplayableLoader.owns(loaded)
    TaskLoader(loaders(), Uniform()).load_state_dict(loaded)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))])
def test_a_copy_draws_the_same_tasks_in_its_next_epoch(clone):
    loader = TaskLoader(loaders(), Uniform(), seed=0)
    next(iter(loader))
    other = clone(loader)
    assert [list(step) for step in other] == [list(step) for step in loader]


def test_draws_do_not_depend_on_what_training_draws():
    def names(noise):
        loader = TaskLoader(loaders(), Uniform(), seed=0, epoch=50)
        return [list(step) for step in loader if not noise or random.random() < 2]

    assert names(False) == names(True)
    epochs = forever(TaskLoader(loaders(), Uniform(), seed=0, epoch=50))
    first, second = ([list(next(epochs)) for _ in range(50)] for _ in range(2))
    assert names(False) == first != second


def test_evaluation_sees_every_loader_once():
    loader = TaskLoader(loaders())
    steps = plain(loader)
    assert [list(step) for step in steps] == [["a"]] * 5 + [["b"]] * 4 + [["c"]] * 2
    assert len(loader) == 11
    for name, rows in (("a", 10), ("b", 12), ("c", 3)):
        assert sorted(row for step in steps for row in step.get(name, [])) == list(range(rows))


class Stream(IterableDataset):
    def __iter__(self):
        yield from range(5)


def test_streams_have_no_length():
    streams = {"a": DataLoader(Stream(), 2), "b": torch_loader(3, 1)}
    evaluation = TaskLoader(streams)
    with pytest.raises(TypeError):
        len(evaluation)
    assert len(list(evaluation)) == 6
    assert len(list(TaskLoader(streams, RoundRobin(), epoch=9, seed=0))) == 9
    with pytest.raises(UserError, match=r"epoch: must be a number of steps if a loader has no length.*'a'"):
        TaskLoader(streams, Uniform())
    with pytest.raises(UserError, match=r"task 'a': must have a loader with a length for Proportional"):
        TaskLoader(streams, Proportional(), epoch=3)


def test_distributed_samplers_are_told_the_pass():
    sampler = DistributedSampler(range(4), 2, 0, seed=1)
    loader = TaskLoader({"a": torch_loader(4, 1, sampler=sampler)}, RoundRobin(), epoch=3, seed=0)
    state = None
    steps = forever(loader)
    told = []
    for _ in range(6):
        next(steps)
        told.append(sampler.epoch)
        state = loader.state_dict() if len(told) == 3 else state
    assert told == [0, 0, 1, 1, 2, 2]
    again = TaskLoader({"a": torch_loader(4, 1, sampler=sampler)}, RoundRobin(), epoch=3, seed=0)
    again.load_state_dict(state)
    next(iter(again))
    assert sampler.epoch == 1


def test_processes_draw_the_same_tasks_and_share_the_rows(monkeypatch):
    drawn = []
    for rank in range(2):
        for place in (_seeded, module):
            monkeypatch.setattr(place, "ranks", lambda rank=rank: (rank, 2))
        monkeypatch.setattr("polytask.data._array_loader.ranks", lambda rank=rank: (rank, 2))
        random.seed(rank)
        torch.manual_seed(rank)
        arrays = {
            name: create_multitask_dataloader(torch.arange(40), {name: torch.zeros(40)}, 2, seed=3)
            for name in ("a", "b")
        }
        drawn.append(plain(TaskLoader(arrays, Uniform(), seed=0, epoch=12)))
    assert [list(step) for step in drawn[0]] == [list(step) for step in drawn[1]]
    for name in ("a", "b"):
        one, other = ({row for step in steps for row in step.get(name, [])} for steps in drawn)
        assert one
        assert not one & other
    with pytest.raises(UserError, match=r"TaskLoader.seed: is required with several processes"):
        list(TaskLoader(arrays, Uniform()))


@pytest.mark.parametrize("sampler", [None, RoundRobin()])
def test_a_torch_loader_has_to_share_its_rows_among_processes(monkeypatch, sampler):
    monkeypatch.setattr(module, "ranks", lambda: (0, 2))
    loader = TaskLoader({"a": torch_loader(4, 1)}, sampler, seed=0)
    with pytest.raises(UserError, match=r"task 'a': its loader must split the rows among the processes"):
        next(iter(loader))
    shared = torch_loader(4, 1, sampler=DistributedSampler(range(4), 2, 0))
    next(iter(TaskLoader({"a": shared}, sampler, seed=0)))
    next(
        iter(TaskLoader({"a": DataLoader(Stream(), 2)}, sampler, seed=0, **({"epoch": 1} if sampler else {})))
    )


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({}, {}, "loaders: needs at least one task, got none."),
        ([[1]], {}, "loaders: must be a dict of loaders by task, got list."),
        ({"loss": [1]}, {}, "loaders: 'loss' is reserved for log keys."),
        ({"a": 3}, {}, "task 'a': must have a loader, an iterable of batches, got int."),
        (
            {"a": []},
            {},
            "task 'a': must have a loader with at least one batch, got none. Check its data set.",
        ),
        (
            {"a": [1]},
            {"sampler": Uniform},
            "sampler: must be a task sampler of polytask.data, got Uniform. Pass an",
        ),
        ({"a": [1]}, {"sampler": "uniform"}, "sampler: must be a task sampler of polytask.data, got str."),
        (
            {"a": [1]},
            {"sampler": Uniform(), "tasks_per_step": 2},
            "tasks_per_step: must be an integer from 1 to 1, got",
        ),
        (
            {"a": [1]},
            {"sampler": Uniform(), "tasks_per_step": 0},
            "tasks_per_step: must be an integer from 1 to 1, got",
        ),
        (
            {"a": [1]},
            {"sampler": Uniform(), "epoch": "longst"},
            "epoch: must be 'shortest', 'longest' or a number of steps, got 'longst'. "
            "Did you mean 'longest'?",
        ),
        (
            {"a": [1]},
            {"sampler": Uniform(), "epoch": 0},
            "epoch: must be 'shortest', 'longest' or a number of steps, got",
        ),
        (
            {"a": [1]},
            {"epoch": 3},
            "epoch: must be left at its default without a sampler, when every loader is used once, got",
        ),
        (
            {"a": [1], "b": [1]},
            {"sampler": FixedProbabilities({"a": 1, "b": 0}), "tasks_per_step": 2},
            "tasks_per_step: must be at most 1, the number of tasks with a probability above 0, "
            "got 2. Reduce it.",
        ),
    ],
)
def test_unusable_options(given, options, message):
    with pytest.raises(UserError) as caught:
        TaskLoader(given, **options)
    assert str(caught.value).startswith(message)


class Silent:
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (Silent(), r"task 'a': its loader must yield batches.*got none in pass 1\. Check its data set"),
        (
            iter([1, 2]),
            r"task 'a': its loader must yield batches.*got none in pass 2\. Pass a loader, not an",
        ),
    ],
)
def test_a_loader_that_yields_nothing_is_told_with_its_task(loader, message):
    with pytest.raises(UserError, match=message):
        list(TaskLoader({"a": loader}, RoundRobin(), epoch=5, seed=0))


def test_the_state_of_other_tasks_is_refused():
    state = TaskLoader({"a": [1, 2], "b": [1, 2]}, Uniform(), epoch=4).state_dict()
    with pytest.raises(UserError, match="task 'c': requires a position in the checkpoint"):
        TaskLoader({"a": [1, 2], "c": [1, 2]}, Uniform(), epoch=4).load_state_dict(state)
    with pytest.raises(UserError, match=r"the same number of tasks, 2, got 1"):
        TaskLoader({"a": [1, 2]}, Uniform(), epoch=4).load_state_dict(state)
    with pytest.raises(UserError, match=r"the same number of batches, 4, got 5"):
        TaskLoader({"a": [1, 2], "b": [1, 2]}, Uniform(), epoch=5).load_state_dict(state)
    with pytest.raises(UserError, match=r"TaskLoader\.sampler: is required to resume"):
        TaskLoader({"a": [1, 2]}).load_state_dict(state)
