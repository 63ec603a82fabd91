"""One loader made of several tasks' own loaders."""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from torch.utils.data import DataLoader, IterableDataset

from polytask._checks import check_integer, is_integer
from polytask._errors import UserError, hint
from polytask._tasks import check_task_names
from polytask.batch import TaskBatches
from polytask.data._positions import in_order
from polytask.data._replay import ReplayableLoader, State, check_same, length_of
from polytask.data._seeded import SeededLoader, ranks
from polytask.data._task_samplers import TaskSampler

_END = object()
# Steps sampled at once: few enough to keep 1,000 tasks' probabilities small.
_BLOCK = 256


class TaskLoader(SeededLoader):
    r"""Batches of several tasks, each from a loader of the task's own.

    In training a step samples tasks, and takes a batch of each one's data; `polytask.System` calls the model
    with each batch, as ``model(inputs, i)`` for the *i*-th task, and sums the losses in one step. A loader
    that ends starts again, and continues from its position in the next epoch. The sampled tasks follow from
    the seed, the epoch and the step, on all processes alike. ``state_dict`` holds the position of every
    loader, so that a run resumes in the middle of an epoch.

    In evaluation there is no sampler: every task's loader is used once, one task after another.

    With several processes the tasks' loaders must split their rows among them: an `ArrayLoader` does, and a
    `torch.utils.data.DataLoader` with a distributed sampler, whose ``set_epoch`` is called.

    Args:
        loaders: By task any iterable of batches, with a batch size of its own. A batch's targets are
            those of the task, or a dict with the task in it.
        sampler: How tasks are sampled, one of `RoundRobin`, `Uniform`, `Proportional`, `Temperature`,
            `Annealed`, `FixedProbabilities`; None for evaluation.
        tasks_per_step: Tasks in a step, each once.
        epoch: The length of an epoch: until the ``shortest`` or the ``longest`` loader is exhausted once, on
            average with the first epoch's probabilities; or a number of steps.
        seed: Seed of the sampler, 0 or more; None for torch's own seed at this moment. Required with several
            processes.

    Raises:
        UserError: If a loader has no batch, an option is out of range, or fewer tasks than a step takes have
            a probability above 0.

    Example:
        >>> from polytask.data import Proportional, create_multitask_dataloader
        >>> loaders = {
        ...     "height": create_multitask_dataloader([[0.0]] * 60, {"height": [1.0] * 60}, batch_size=10),
        ...     "kind": create_multitask_dataloader([[0.0]] * 40, {"kind": [0, 1] * 20}, batch_size=20),
        ... }
        >>> loader = TaskLoader(loaders, sampler=Proportional(), seed=0)
        >>> len(loader), [list(batch) for batch in loader][:4]
        (8, [['kind'], ['height'], ['height'], ['height']])
        >>> [list(batch) for batch in TaskLoader(loaders)].count(["kind"])
        2
    """

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Any]],
        sampler: TaskSampler | None = None,
        *,
        tasks_per_step: int = 1,
        epoch: Literal["shortest", "longest"] | int = "longest",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        _check_kinds(loaders, sampler)
        self.names = check_task_names(loaders, "loaders")
        self.loaders = {name: _checked(name, loader, sampler) for name, loader in loaders.items()}
        self.task_sampler = sampler
        self.tasks_per_step = check_integer(tasks_per_step, "tasks_per_step", 1, len(self.names))
        self.epoch: str | int = int(epoch) if is_integer(epoch, 1) else epoch
        self._check()
        self._begun = dict.fromkeys(self.names, 0)
        self._forget()

    def _check(self) -> None:
        tasks, epoch = self.tasks_per_step, self.epoch
        number, options = is_integer(epoch, 1), ("shortest", "longest")
        if not number and epoch not in options:
            rule = "must be 'shortest', 'longest' or a number of steps"
            raise UserError("epoch", rule, repr(epoch), hint(str(epoch), options))
        if self.task_sampler is None:
            for name, given in (("tasks_per_step", tasks != 1), ("epoch", epoch != "longest")):
                if given:
                    rule = "must be left at its default without a sampler, when every loader is used once"
                    raise UserError(name, rule, repr(getattr(self, name)), "Pass a sampler, or leave it out")
            return
        possible = int((self.task_sampler.probabilities(self._sizes(), 0) > 0).sum())
        if possible < tasks:
            rule = f"must be at most {possible}, the number of tasks with a probability above 0"
            raise UserError("tasks_per_step", rule, tasks, "Reduce it")
        if not number and (unsized := [name for name, size in self._sizes().items() if size is None]):
            rule = "must be a number of steps if a loader has no length"
            raise UserError("epoch", rule, f"{epoch!r} and no length for task '{unsized[0]}'")

    def _sizes(self) -> dict[str, int | None]:
        return {name: length_of(loader) for name, loader in self.loaders.items()}

    def __len__(self) -> int:
        sizes = self._sizes()
        if self.task_sampler is None:
            if None in sizes.values():
                raise TypeError("a task's loader has no length")
            return sum(size for size in sizes.values() if size is not None)
        if isinstance(self.epoch, int):
            return self.epoch
        chances = (self.task_sampler.probabilities(sizes, 0) * self.tasks_per_step).clamp(max=1.0).tolist()
        steps: list[float] = [
            size / chance for size, chance in zip(sizes.values(), chances, strict=True) if size and chance
        ]
        # Probabilities are rounded.
        return math.ceil((min if self.epoch == "shortest" else max)(steps) * (1 - 1e-6))

    def batches(self, number: int, first: int) -> Iterator[TaskBatches]:
        """The batches of an epoch's steps, from a given step on.

        Args:
            number: The epoch, from 0.
            first: The first step, from 0.
        """
        if self.task_sampler is None:
            yield from self._once()
            return
        for indices in self._sampled(self.task_sampler, number, first):
            yield TaskBatches((self.names[index], self._next(self.names[index])) for index in indices)

    def ordered(self, whole: bool) -> "TaskLoader":
        """A loader of the same data whose tasks' loaders are in the order of their data.

        Args:
            whole: Whether they keep a last batch with fewer rows in any case.
        """
        ordered = copy.copy(self)
        ordered.loaders = {name: in_order(loader, whole) for name, loader in self.loaders.items()}
        return ordered

    def _once(self) -> Iterator[TaskBatches]:
        for name, loader in self.loaders.items():
            _check_share(name, loader)
            for batch in loader:
                yield TaskBatches({name: batch})

    def _sampled(self, sampler: TaskSampler, number: int, first: int) -> Iterator[list[int]]:
        """The tasks of each step, in their order; in blocks, so that any step can be reached directly."""
        sizes, steps = self._sizes(), len(self)
        for block in range(first // _BLOCK, -(-steps // _BLOCK)):
            begin = block * _BLOCK
            shape = (min(_BLOCK, steps - begin), self.tasks_per_step)
            sampled = sampler.draw(sizes, number, begin, shape, self.generator(number, block))
            yield from sampled.sort(dim=1).values[max(0, first - begin) :].tolist()

    def _next(self, name: str) -> Any:
        batch = next(self._iterators[name], _END)
        if batch is _END:
            self._iterators[name] = self._begin(name)
            batch = next(self._iterators[name], _END)
        if batch is _END:
            again = self._begun[name] > 1
            raise UserError(
                f"task '{name}'",
                "its loader must yield batches in each pass",
                f"none in pass {self._begun[name]}",
                "Pass a loader, not an iterator over it" if again else "Check its data set",
            )
        return batch

    def _begin(self, name: str) -> Iterator[Any]:
        loader = self.loaders[name]
        _check_share(name, loader)
        set_epoch = getattr(getattr(loader, "sampler", None), "set_epoch", None)
        if callable(set_epoch):
            set_epoch(self._begun[name])
        self._begun[name] += 1
        return iter(loader)

    def _forget(self) -> None:
        self._iterators: dict[str, Iterator[Any]] = {name: iter(()) for name in self.names}

    def __getstate__(self) -> dict[str, Any]:
        # Iterators cannot be sent to another process: a copy's loaders start again.
        return {**self.__dict__, "_iterators": {name: iter(()) for name in self.names}}

    def state_dict(self) -> State:
        """The position of the sampler and of every task's loader."""
        if self.task_sampler is None:
            return super().state_dict()
        states = {name: loader.state_dict() for name, loader in self.loaders.items()}
        begun = {
            # The pass that a loader is in the middle of will start again.
            name: self._begun[name] - bool(states[name].get("batches"))
            for name in self.names
        }
        return {**super().state_dict(), "loaders": states, "begun": begun}

    def load_state_dict(self, state: State) -> None:
        """Restore a state; the next epoch continues from there.

        Args:
            state: What `state_dict` returned.

        Raises:
            UserError: If tasks or lengths differ from the state's, or there is no sampler.
        """
        if self.task_sampler is None:
            raise UserError("TaskLoader.sampler", "is required to resume", "a state for a loader without one")
        saved = state["loaders"]
        check_same("tasks", len(saved), len(self.names), "tasks")
        for name, loader in self.loaders.items():
            if name not in saved:
                raise UserError(
                    f"task '{name}'", "requires a position in the checkpoint", None, hint(name, saved)
                )
            loader.load_state_dict(saved[name])
        self._begun = dict(state["begun"])
        self._forget()
        super().load_state_dict(state)

    def __repr__(self) -> str:
        return f"TaskLoader({', '.join(self.names)}; {self.task_sampler!r})"


def _check_kinds(loaders: object, sampler: object) -> None:
    if not isinstance(loaders, Mapping):
        raise UserError("loaders", "must be a dict of loaders by task", type(loaders).__name__)
    if sampler is not None and not isinstance(sampler, TaskSampler):
        found = sampler.__name__ if isinstance(sampler, type) else type(sampler).__name__
        raise UserError("sampler", "must be a task sampler of polytask.data", found, "Pass an instance")


def _checked(name: str, loader: Any, sampler: TaskSampler | None) -> Any:
    """The loader, resumable if there is a sampler.

    Raises:
        UserError: If it is no loader, or has no batch.
    """
    if not hasattr(loader, "__iter__") or isinstance(loader, (str, Mapping)):
        raise UserError(f"task '{name}'", "must have a loader, an iterable of batches", type(loader).__name__)
    if length_of(loader) == 0:
        raise UserError(
            f"task '{name}'", "must have a loader with at least one batch", "none", "Check its data set"
        )
    return loader if sampler is None or hasattr(loader, "state_dict") else ReplayableLoader(loader)


def _check_share(name: str, loader: Any) -> None:
    """Raise if every process would receive all of a loader's rows."""
    plain = loader.loader if isinstance(loader, ReplayableLoader) else loader
    if ranks()[1] == 1 or not isinstance(plain, DataLoader) or isinstance(plain.dataset, IterableDataset):
        return
    holders = (plain.sampler, plain.batch_sampler, getattr(plain.batch_sampler, "sampler", None))
    if not any(hasattr(holder, "num_replicas") for holder in holders):
        raise UserError(
            f"task '{name}'",
            "its loader must split the rows among the processes",
            f"a DataLoader without a distributed sampler for {ranks()[1]} processes",
            "Use create_multitask_dataloader, or a torch.utils.data.DistributedSampler",
        )
