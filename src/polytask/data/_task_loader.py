"""One loader of several tasks' own loaders."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from torch.utils.data import DataLoader, IterableDataset

from polytask._errors import UserError, hint
from polytask._tasks import check_task_names
from polytask.batch import TaskBatches
from polytask.data._replay import ReplayableLoader, State, check_same, length_of
from polytask.data._seeded import SeededLoader, ranks
from polytask.data._task_samplers import TaskSampler

_END = object()
# Steps drawn at once: few enough to keep 1,000 tasks' probabilities small.
_BLOCK = 256


class TaskLoader(SeededLoader):
    r"""Batches of several tasks, each from a loader of the task's own.

    In training a step draws tasks, and a batch of each one's data; `polytask.System` calls the model with
    each batch, as ``model(inputs, i)`` for the *i*-th task, and sums the losses in one step. A loader that
    ends is begun again, and goes on where it was in the next epoch. What is drawn follows from the seed, the
    epoch and the step, on all processes alike. ``state_dict`` holds the position of every loader, so that a
    run resumes in the middle of an epoch.

    In evaluation there is no sampler: every task's loader is gone through once, one task after another.

    Under several processes the tasks' loaders have to share their rows out: an `ArrayLoader` does, and a
    `torch.utils.data.DataLoader` with a distributed sampler, whose ``set_epoch`` is called.

    Args:
        loaders: By task any iterable of batches, with a batch size of its own. A batch's targets are
            those of the task, or a dict with the task in it.
        sampler: How tasks are drawn, one of `RoundRobin`, `Uniform`, `Proportional`, `Temperature`,
            `Annealed`, `FixedProbabilities`; None for evaluation.
        tasks_per_step: Tasks in a step, each once.
        epoch: How long an epoch is: until the ``shortest`` or the ``longest`` loader was gone through once,
            as the first epoch's probabilities have it on average; or a number of steps.
        seed: Of the draws, 0 or more; torch's own seed at this moment where None. Several processes need
            one.

    Raises:
        UserError: Where a loader has no batch, an option is out of range, or fewer tasks than a step takes
            can be drawn.

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
        self.tasks_per_step = tasks_per_step
        self.epoch = epoch
        self._check()
        self._begun = dict.fromkeys(self.names, 0)
        self._forget()

    def _check(self) -> None:
        tasks, epoch = self.tasks_per_step, self.epoch
        if isinstance(tasks, bool) or not isinstance(tasks, int) or not 1 <= tasks <= len(self.names):
            raise UserError("tasks_per_step", f"is an integer from 1 to {len(self.names)}", repr(tasks))
        number = isinstance(epoch, int) and not isinstance(epoch, bool) and epoch > 0
        if not number and epoch not in ("shortest", "longest"):
            found, words = repr(epoch), ("shortest", "longest")
            raise UserError(
                "epoch", "is 'shortest', 'longest' or a number of steps", found, hint(str(epoch), words)
            )
        if self.task_sampler is None:
            for name, given in (("tasks_per_step", tasks != 1), ("epoch", epoch != "longest")):
                if given:
                    rule = "is for training; without a sampler every loader is gone through once"
                    raise UserError(name, rule, repr(getattr(self, name)), "Pass a sampler, or leave it out")
            return
        drawn = int((self.task_sampler.probabilities(self._sizes(), 0) > 0).sum())
        if drawn < tasks:
            raise UserError(
                "tasks_per_step", f"{drawn} tasks have a probability above 0", tasks, "Make it smaller"
            )
        if not number and (unsized := [name for name, size in self._sizes().items() if size is None]):
            rule = "is a number of steps where a loader has no length"
            raise UserError("epoch", rule, f"{epoch!r}, and none for task '{unsized[0]}'")

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
        """The steps' batches of an epoch, from one of them on.

        Args:
            number: The epoch, from 0.
            first: The step to begin with, from 0.
        """
        if self.task_sampler is None:
            yield from self._once()
            return
        for places in self._drawn(self.task_sampler, number, first):
            yield TaskBatches((self.names[place], self._next(self.names[place])) for place in places)

    def _once(self) -> Iterator[TaskBatches]:
        for name, loader in self.loaders.items():
            _check_share(name, loader)
            for batch in loader:
                yield TaskBatches({name: batch})

    def _drawn(self, sampler: TaskSampler, number: int, first: int) -> Iterator[list[int]]:
        """The tasks of each step, in their order; drawn in blocks, so that a step is found in any epoch."""
        sizes, steps = self._sizes(), len(self)
        for block in range(first // _BLOCK, -(-steps // _BLOCK)):
            begin = block * _BLOCK
            shape = (min(_BLOCK, steps - begin), self.tasks_per_step)
            drawn = sampler.draw(sizes, number, begin, shape, self.generator(number, block))
            yield from drawn.sort(dim=1).values[max(0, first - begin) :].tolist()

    def _next(self, name: str) -> Any:
        batch = next(self._iterators[name], _END)
        if batch is _END:
            self._iterators[name] = self._begin(name)
            batch = next(self._iterators[name], _END)
        if batch is _END:
            again = self._begun[name] > 1
            raise UserError(
                f"task '{name}'",
                "its loader has to yield batches every time it is gone through",
                f"none in pass {self._begun[name]}",
                "Pass a loader, not an iterator over it" if again else "Look at its data set",
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
        # Iterators cannot be sent to another process: a copy's loaders begin anew.
        return {**self.__dict__, "_iterators": {name: iter(()) for name in self.names}}

    def state_dict(self) -> State:
        """The position of the draws and of every task's loader."""
        if self.task_sampler is None:
            return super().state_dict()
        states = {name: loader.state_dict() for name, loader in self.loaders.items()}
        begun = {
            # The pass that a loader is in the middle of will be begun again.
            name: self._begun[name] - bool(states[name].get("batches"))
            for name in self.names
        }
        return {**super().state_dict(), "loaders": states, "begun": begun}

    def load_state_dict(self, state: State) -> None:
        """Take a state; the next epoch goes on from there.

        Args:
            state: What `state_dict` gave.

        Raises:
            UserError: Where there are other tasks or lengths than the state's, or no sampler to resume.
        """
        if self.task_sampler is None:
            raise UserError("TaskLoader", "without a sampler is for evaluation", "a state to resume from")
        saved = state["loaders"]
        check_same("tasks", len(saved), len(self.names), "tasks")
        for name, loader in self.loaders.items():
            if name not in saved:
                raise UserError(
                    f"task '{name}'", "has no position in the checkpoint", None, hint(name, saved)
                )
            loader.load_state_dict(saved[name])
        self._begun = dict(state["begun"])
        self._forget()
        super().load_state_dict(state)

    def __repr__(self) -> str:
        return f"TaskLoader({', '.join(self.names)}; {self.task_sampler!r})"


def _check_kinds(loaders: object, sampler: object) -> None:
    if not isinstance(loaders, Mapping):
        raise UserError("loaders", "is a dict of loaders by task", type(loaders).__name__)
    if sampler is not None and not isinstance(sampler, TaskSampler):
        found = sampler.__name__ if isinstance(sampler, type) else type(sampler).__name__
        raise UserError("sampler", "is a task sampler of polytask.data", found, "Pass an instance")


def _checked(name: str, loader: Any, sampler: TaskSampler | None) -> Any:
    """The loader, resumable where tasks are drawn.

    Raises:
        UserError: Where it is none, or has no batch.
    """
    if not hasattr(loader, "__iter__") or isinstance(loader, (str, Mapping)):
        raise UserError(f"task '{name}'", "needs a loader, an iterable of batches", type(loader).__name__)
    if length_of(loader) == 0:
        raise UserError(
            f"task '{name}'", "needs a loader with one batch at least", "none", "Look at its data set"
        )
    return loader if sampler is None or hasattr(loader, "state_dict") else ReplayableLoader(loader)


def _check_share(name: str, loader: Any) -> None:
    """Raise where every process would be given all of a loader's rows."""
    plain = loader.loader if isinstance(loader, ReplayableLoader) else loader
    if ranks()[1] == 1 or not isinstance(plain, DataLoader) or isinstance(plain.dataset, IterableDataset):
        return
    holders = (plain.sampler, plain.batch_sampler, getattr(plain.batch_sampler, "sampler", None))
    if not any(hasattr(holder, "num_replicas") for holder in holders):
        raise UserError(
            f"task '{name}'",
            "its loader has to share rows out among the processes",
            f"a DataLoader without a distributed sampler, and {ranks()[1]} processes",
            "Use create_multitask_dataloader, or a torch.utils.data.DistributedSampler",
        )
