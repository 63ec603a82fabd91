"""Which tasks a training step takes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from polytask._checks import check_integer, check_number
from polytask._errors import UserError
from polytask._tasks import check_known

Sizes = Mapping[str, int | None]


class TaskSampler(ABC):
    """Samples the tasks of each step, by probability.

    It has no state: the samples follow from the given random generator.

    Example:
        >>> class First(TaskSampler):
        ...     def probabilities(self, sizes, number):
        ...         return torch.eye(len(sizes))[0]
        >>> First().draw({"a": 1, "b": 1}, 0, 0, (3, 1), torch.Generator()).flatten()
        tensor([0, 0, 0])
    """

    @abstractmethod
    def probabilities(self, sizes: Sizes, number: int) -> Tensor:
        """The tasks' probabilities, ``(tasks,)``, which sum to 1.

        Args:
            sizes: Batches of each task's loader; None if that is not known.
            number: The epoch, from 0.
        """

    def draw(
        self, sizes: Sizes, number: int, first: int, shape: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Indices of tasks, ``(steps, tasks_per_step)``, different ones in each step.

        Args:
            sizes: Batches of each task's loader.
            number: The epoch, from 0.
            first: The first step's number in the epoch.
            shape: Steps, and tasks in a step.
            generator: Source of random numbers.
        """
        steps, tasks = shape
        rows = self.probabilities(sizes, number).expand(steps, -1)
        return torch.multinomial(rows, tasks, replacement=False, generator=generator)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class Uniform(TaskSampler):
    """All tasks have the same probability.

    Example:
        >>> Uniform().probabilities({"a": 10, "b": 30}, 0)
        tensor([0.5000, 0.5000])
    """

    def probabilities(self, sizes: Sizes, number: int) -> Tensor:
        """The tasks' probabilities, see `TaskSampler.probabilities`."""
        return torch.full((len(sizes),), 1.0 / len(sizes))


class RoundRobin(Uniform):
    """One task after another, in the loaders' order, in turns; each epoch begins with another task.

    Example:
        >>> RoundRobin().draw({"a": 1, "b": 1, "c": 1}, 0, 0, (3, 2), torch.Generator())
        tensor([[0, 1],
                [2, 0],
                [1, 2]])
    """

    def draw(
        self, sizes: Sizes, number: int, first: int, shape: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Indices of tasks, see `TaskSampler.draw`; the generator is not used."""
        steps, tasks = shape
        turns = torch.arange(first * tasks, (first + steps) * tasks) + number
        return (turns % len(sizes)).view(steps, tasks)


class Proportional(TaskSampler):
    """Tasks are sampled in proportion to their batches, so that all rows are seen equally often.

    Raises:
        UserError: If a loader does not know its number of batches.

    Example:
        >>> Proportional().probabilities({"a": 10, "b": 30}, 0)
        tensor([0.2500, 0.7500])
    """

    def probabilities(self, sizes: Sizes, number: int) -> Tensor:
        """The tasks' probabilities, see `TaskSampler.probabilities`."""
        return _shares(_known(sizes, self), 1.0)


class Temperature(TaskSampler):
    r"""Between proportional and uniform: :math:`p_t \propto \min(n_t, K)^{1/\tau}`.

    Args:
        tau: :math:`\tau`, above 0; 1 is proportional, and larger values are more uniform.
        cap: :math:`K`, the largest number of batches that counts for a task; None for no cap.

    Raises:
        UserError: If a number is not above 0, or a loader does not know its number of batches.

    Example:
        >>> Temperature(tau=2.0).probabilities({"a": 1, "b": 9}, 0)
        tensor([0.2500, 0.7500])
        >>> Temperature(cap=3).probabilities({"a": 1, "b": 9}, 0)
        tensor([0.2500, 0.7500])

    Reference:
        Raffel et al. Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer.
        JMLR 21, 2020, section 3.5.2.

    Deviations:
        Sizes are batches and not rows; with one batch size for all tasks that is the same.
    """

    def __init__(self, tau: float = 1.0, cap: float | None = None) -> None:
        self.tau = check_number(tau, "Temperature.tau", above=0)
        self.cap = None if cap is None else check_number(cap, "Temperature.cap", above=0)

    def probabilities(self, sizes: Sizes, number: int) -> Tensor:
        """The tasks' probabilities, see `TaskSampler.probabilities`."""
        known = _known(sizes, self)
        return _shares(known if self.cap is None else known.clamp(max=self.cap), 1.0 / self.tau)


class Annealed(TaskSampler):
    r"""From proportional towards uniform over the epochs: :math:`p_t \propto n_t^{\alpha}`.

    :math:`\alpha` changes in equal steps from ``start`` in the first epoch to ``end`` in the last one, and
    stays there.

    Args:
        epochs: Number of epochs from ``start`` to ``end``.
        start: The first :math:`\alpha`, 0 or more.
        end: The last :math:`\alpha`, 0 or more.

    Raises:
        UserError: If a number is out of range, or a loader does not know its number of batches.

    Example:
        >>> sampler = Annealed(epochs=5, end=0.0)
        >>> sampler.probabilities({"a": 1, "b": 9}, 0), sampler.probabilities({"a": 1, "b": 9}, 2)
        (tensor([0.1000, 0.9000]), tensor([0.2500, 0.7500]))

    Reference:
        Stickland, Murray. BERT and PALs: Projected Attention Layers for Efficient Adaptation in Multi-Task
        Learning. ICML 2019, section 4.1.

    Deviations:
        Sizes are batches and not rows.
    """

    def __init__(self, epochs: int, start: float = 1.0, end: float = 0.2) -> None:
        self.epochs = check_integer(epochs, "Annealed.epochs", 1)
        self.start = check_number(start, "Annealed.start", least=0)
        self.end = check_number(end, "Annealed.end", least=0)

    def probabilities(self, sizes: Sizes, number: int) -> Tensor:
        """The tasks' probabilities, see `TaskSampler.probabilities`."""
        done = min(1.0, number / max(1, self.epochs - 1))
        return _shares(_known(sizes, self), self.start + (self.end - self.start) * done)


class FixedProbabilities(TaskSampler):
    """Tasks are sampled with given probabilities.

    Args:
        values: By task a number, 0 or more; they are divided by their sum.

    Raises:
        UserError: If a number is negative or not finite, all are 0, or a task has none or is unknown.

    Example:
        >>> FixedProbabilities({"a": 1, "b": 3}).probabilities({"b": 10, "a": 10}, 0)
        tensor([0.7500, 0.2500])
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        if not isinstance(values, Mapping) or not values:
            raise UserError("FixedProbabilities", "must be a mapping from task to number", repr(values))
        self.values = {
            name: check_number(value, f"FixedProbabilities.{name}", least=0) for name, value in values.items()
        }
        if not sum(self.values.values()):
            raise UserError("FixedProbabilities", "must have a number above 0", "0 for every task")

    def probabilities(self, sizes: Sizes, number: int) -> Tensor:
        """The tasks' probabilities, see `TaskSampler.probabilities`.

        Raises:
            UserError: If a task has no probability, or a probability is that of no task.
        """
        check_known(self.values, sizes, "FixedProbabilities")
        for name in sizes:
            if name not in self.values:
                fix = "Write 0 to leave it out"
                raise UserError(
                    "FixedProbabilities", "must have a number for every task", f"none for '{name}'", fix
                )
        return _shares(torch.tensor([self.values[name] for name in sizes], dtype=torch.float64), 1.0)


def _shares(sizes: Tensor, power: float) -> Tensor:
    # A high power of a large size would overflow.
    shares = (sizes / sizes.max()) ** power
    return (shares / shares.sum()).float()


def _known(sizes: Sizes, sampler: TaskSampler) -> Tensor:
    for name, size in sizes.items():
        if size is None:
            raise UserError(
                f"task '{name}'",
                f"must have a loader with a length for {type(sampler).__name__}",
                "none",
                "Choose Uniform, RoundRobin or FixedProbabilities",
            )
    return torch.tensor([size for size in sizes.values() if size is not None], dtype=torch.float64)
