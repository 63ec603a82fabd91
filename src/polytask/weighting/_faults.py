"""Faults in the steps of a `GramianWeighting`, kept on the device until they are read."""

import itertools
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from polytask._errors import Reason, RunError, UserError
from polytask._linalg import condition


class SolverWarning(UserWarning):
    """A method found no weights for a Gramian; they were 0 in that step."""


class Faults:
    """The first faulty step since the last reading, and the number of faulty steps.

    Faults are: the Gramian is not finite, it is not symmetric, no weights were found.
    `note` reads nothing on the host; `say` does, and computes the Gramian's condition.

    Attributes:
        unsolved: How many steps without weights `say` has read.

    Example:
        >>> faults = Faults()
        >>> nan = torch.full((1, 1), torch.nan)
        >>> faults.note(torch.tensor([True, False, False]), nan, None, 1, torch.tensor([True]))
        >>> faults.say("MGDA", ["digit"], "the solver did not converge")
        Traceback (most recent call last):
        polytask._errors.RunError: MGDA: gradients and losses must be finite, got NaN or infinity for
        tasks digit in step 1; 1 such step.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.count: Tensor | None = None
        self.first: tuple[Tensor, ...] = ()
        self.unsolved = 0
        self._said: set[str] = set()
        self._unsaid = 0

    def note(
        self, faults: Tensor, gramian: Tensor, indices: list[int] | None, tasks: int, bad: Tensor
    ) -> None:
        """Keep the step if it is the first with a fault.

        Args:
            faults: Whether the Gramian is not finite, is not symmetric, has no weights.
            gramian: The Gramian of the present tasks.
            indices: Their indices among all tasks; None if all are present.
            tasks: The number of all tasks.
            bad: Which of the present tasks have a gradient or loss that is not finite.
        """
        self.steps += 1
        chosen = torch.tensor(range(tasks) if indices is None else indices, device=gramian.device)
        present = torch.zeros(tasks, dtype=torch.bool, device=gramian.device).index_fill(0, chosen, True)
        whole = gramian.new_zeros(tasks, tasks)
        whole[chosen[:, None], chosen] = gramian
        step = torch.full((), self.steps, device=gramian.device)
        at_fault = torch.zeros_like(present).index_put((chosen,), bad.to(present.device))
        found = (faults, step, present, whole, at_fault)
        faulty = faults.any()
        if self.count is None:
            self.count, self.first = faulty.long(), found
            return
        fresh = faulty & (self.count == 0)
        self.first = tuple(torch.where(fresh, new, old) for new, old in zip(found, self.first, strict=True))
        self.count = self.count + faulty

    def say(self, method: str, names: Sequence[str], unsolved: str) -> None:
        """Raise or warn about the faults, and discard them.

        Steps without weights are warned of once for the same tasks; later ones are counted.

        Args:
            method: The method's name.
            names: All tasks, in order.
            unsolved: What it means if no weights were found.

        Raises:
            RunError: If a Gramian was not finite.
            UserError: If a Gramian was not symmetric.

        Warns:
            SolverWarning: If no weights were found.
        """
        count = 0 if self.count is None else int(self.count)
        self.count, first = None, self.first
        if not count:
            return
        (infinite, skew, _), present = first[0].tolist(), first[2]
        tasks = ", ".join(name for name, here in zip(names, present.tolist(), strict=True) if here)
        times = f"tasks {tasks} in step {int(first[1])}; {count} such step{'s' * (count > 1)}"
        if infinite:
            if first[4].any():
                times = times.replace(tasks, ", ".join(itertools.compress(names, first[4].tolist())), 1)
            raise RunError(method, "gradients and losses must be finite", f"NaN or infinity for {times}")
        if skew:
            rule = "a Gramian must be symmetric with a diagonal of 0 or more"
            raise UserError(method, rule, f"another matrix for {times}", "Pass J @ J.T")
        self.unsolved += count
        if tasks in self._said:
            self._unsaid += count
            return
        self._said.add(tasks)
        gramian = first[3][present][:, present].cpu().double()
        found = Reason(f"a Gramian of condition {condition(gramian):.1e} for {times}")
        # The message of a RunError as a warning: the run continues, and that step has changed nothing.
        fix = "Later ones for the same tasks are counted in its unsolved_steps"
        message = RunError(method, f"{unsolved}, so the weights were 0", found, fix)
        warnings.warn(str(message), SolverWarning, stacklevel=4)

    def conclude(self, method: str, unsolved: str) -> None:
        """Warn of the steps without weights that were only counted, if there are any.

        Args:
            method: The method's name.
            unsolved: What it means if no weights were found.

        Warns:
            SolverWarning: With the number of all such steps.
        """
        if self._unsaid:
            self._unsaid = 0
            found = Reason(f"{self.unsolved} such steps so far")
            message = RunError(method, f"{unsolved}, so the weights were 0", found)
            warnings.warn(str(message), SolverWarning, stacklevel=3)
