"""The three bases of weightings, named by what they receive."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from polytask._errors import RunError, UserError
from polytask._linalg import SMALL, exact
from polytask._tasks import check_known, check_task_names
from polytask.batch import HALF
from polytask.weighting._faults import Faults

# Rounding of an inner product of a million float64 numbers, relative to the norms: 2 ** 10 units.
SUMMED = 2.0**-42
Gradients = Literal["parameters", "representation", "last_shared"]


def _shown(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


class Weighting(nn.Module, ABC):
    """What all weightings have in common: task names, absent tasks and hooks.

    Learned quantities are parameters and history is in buffers, so that `state_dict` contains both. State is
    kept for every task; a call names the tasks that are present.

    `after_step` receives the losses of the step, or, if a subclass sets `remeasures` to True, those of the
    step's last batch, computed again without gradient after the optimizer has stepped.

    Attributes:
        gradients: The gradients that are required, or None if losses are enough.
        batches_per_step: The number of independent batches in a step.
        deferred: Whether `check` is called later; otherwise each step on the CPU calls it, since reading
            values causes no synchronisation there.
        names: All tasks, in order, once `setup` was called.

    Example:
        >>> from polytask.weighting import UW
        >>> weighting = UW()
        >>> weighting.setup(["digit", "parity"])
        >>> weighting.names, weighting.gradients, len(weighting.state_dict())
        (('digit', 'parity'), None, 2)
    """

    gradients: Gradients | None = None
    batches_per_step: int = 1
    remeasures: ClassVar[bool] = False
    deferred: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()

    def setup(self, names: Iterable[str]) -> None:
        """Set the task names; parameters and per-task state exist from here on.

        Args:
            names: All tasks, in order.

        Raises:
            UserError: If a name is not a valid task name, or `setup` was called before.
        """
        if self.names:
            raise UserError(
                "weighting",
                "must be used by one criterion only",
                f"one that has the tasks {', '.join(self.names)} already",
                "Create another weighting",
            )
        self.names = check_task_names(names)

    def indices(self, names: Sequence[str] | None) -> list[int] | None:
        """The indices of the present tasks among all tasks, or None if all are present.

        Args:
            names: The present tasks; None if all are present.

        Raises:
            UserError: If a name is not one of the tasks.

        Example:
            >>> from polytask.weighting import Equal
            >>> weighting = Equal()
            >>> weighting.setup(["digit", "parity", "height"])
            >>> weighting.indices(["digit", "height"]), weighting.indices(None)
            ([0, 2], None)
        """
        if names is None or tuple(names) == self.names:
            return None
        check_known(names, self.names, type(self).__name__)
        return [self.names.index(name) for name in names]

    def columns(self, names: Sequence[str] | None) -> list[int] | None:
        """The former name of `indices`, for weightings written before it.

        Args:
            names: Names of present tasks; None for all.
        """
        return self.indices(names)

    def check(self) -> None:
        """Raise if a step since the last call failed; reads flags from the device.

        Raises:
            UserError: If a value was out of range, with the task and the value.
        """
        return

    def conclude(self) -> None:
        """Called at the end of a training: report what `check` has only counted."""
        return

    def number(self, step: int) -> None:
        """Set the number of the next step, for messages; otherwise calls are counted from 1.

        Args:
            step: The number.
        """
        return

    def discard(self) -> None:
        """Discard what `check` would report of steps since its last call."""
        return

    def _check_now(self, like: Tensor) -> None:
        if not self.deferred and like.device.type == "cpu":
            self.check()

    def after_step(self, losses: Tensor, names: Sequence[str] | None = None) -> None:
        """Called after each optimizer step with losses of its batch, shape ``(tasks,)``.

        Args:
            losses: The step's losses, or those of its last batch after the step if ``remeasures`` is set.
            names: Which tasks these are; None if all are present.
        """
        return

    def on_epoch_end(self, losses: Tensor, names: Sequence[str] | None = None) -> None:
        """Called after each training epoch with the epoch's mean losses, shape ``(tasks,)``.

        Args:
            losses: Mean losses of the epoch, ``(tasks,)``.
            names: Which tasks these are of; None if of all.
        """
        return


class LossWeighting(Weighting):
    """A weighting that receives the losses and returns one scalar to minimise.

    A subclass implements `scalar`. The effective weight of a task is the derivative of the scalar by the
    task's loss.

    Attributes:
        is_sum: Whether the scalar is the plain sum of the losses, so that it is not logged separately.

    Shape:
        - losses: ``(tasks,)``, the tasks that are present, in order.
        - returns: ``()``.

    Example:
        >>> class SumOfSquares(LossWeighting):
        ...     def scalar(self, losses, indices):
        ...         return (losses**2).sum()
        >>> weighting = SumOfSquares()
        >>> weighting.setup(["a", "b"])
        >>> weighting(torch.tensor([1.0, 2.0])), weighting.weights(torch.tensor([1.0, 2.0]))
        (tensor(5.), tensor([2., 4.]))
    """

    is_sum: ClassVar[bool] = False

    def forward(self, losses: Tensor, names: Sequence[str] | None = None) -> Tensor:
        """The scalar to minimise.

        Args:
            losses: Losses of the present tasks.
            names: Which tasks these are; None if all are present.

        Raises:
            UserError: If the number of losses is not the number of tasks named.
        """
        losses, indices = self._checked(losses, names)
        # A loop may validate without gradients and leave the criterion in training mode.
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.observe(losses.detach(), indices)
        total: Any = self.scalar(losses, indices)
        if not isinstance(total, Tensor) or total.ndim:
            raise UserError(f"{type(self).__name__}.scalar", "must return a scalar tensor", _shown(total))
        return total

    def _checked(self, losses: Tensor, names: Sequence[str] | None) -> tuple[Tensor, list[int] | None]:
        expected = self.names if names is None else names
        if losses.shape != (len(expected),):
            raise UserError(
                type(self).__name__,
                f"one loss is required for each of the tasks {', '.join(expected)}",
                f"losses of shape {tuple(losses.shape)}",
            )
        # Logarithms and small weights do not survive half precision.
        return losses.float() if losses.dtype in HALF else losses, self.indices(names)

    def observe(self, losses: Tensor, indices: list[int] | None) -> None:
        """Called in training mode, with gradients enabled, with each batch's losses before they are combined.

        State that changes from batch to batch must change here, so that `scalar` and `weights` may be
        called at any time.

        Args:
            losses: Losses of the present tasks, without gradient.
            indices: Their indices among all tasks; None if all are present.
        """
        return

    @abstractmethod
    def scalar(self, losses: Tensor, indices: list[int] | None) -> Tensor:
        """The scalar to minimise.

        It must not change any state: `weights` calls it too.

        Args:
            losses: Losses of the present tasks with their graphs, ``(tasks,)``, in float32 or float64.
            indices: Their indices among all tasks; None if all are present.

        Returns:
            A scalar that is differentiable by the losses.
        """

    def weights(self, losses: Tensor, names: Sequence[str] | None = None) -> Tensor:
        """The effective weights at these losses, d scalar / d loss, shape ``(tasks,)``; changes nothing.

        Args:
            losses: Losses of the present tasks.
            names: Which tasks these are; None if all are present.

        Raises:
            UserError: If the number of losses is not the number of tasks named.
        """
        losses, indices = self._checked(losses, names)
        with torch.enable_grad():
            losses = losses.detach().requires_grad_()
            (weights,) = torch.autograd.grad(self.scalar(losses, indices), losses)
        return weights


class GramianStep(NamedTuple):
    """What `GramianWeighting.solve` receives: the Gramian of a step, checked and in float64.

    Attributes:
        gramian: Inner products of the present tasks' gradients, ``(tasks, tasks)``; finite. It is symmetric,
            unless the method takes several batches in a step.
        rounding: Relative error of the Gramian's entries: the unit of rounding of the dtype in which it was
            given, but at least the error of long sums in float64.
        indices: Indices of the present tasks among all tasks; None if all are present.
        losses: Losses of the present tasks, ``(tasks,)``, or None if they were not given.

    Example:
        >>> GramianStep(torch.eye(2, dtype=torch.float64), 1e-7, None, None).gramian.diagonal()
        tensor([1., 1.], dtype=torch.float64)
    """

    gramian: Tensor
    rounding: float
    indices: list[int] | None
    losses: Tensor | None


class GramianSolution(NamedTuple):
    """What `GramianWeighting.solve` returns.

    Attributes:
        weights: The weights of the present tasks, ``(tasks,)``.
        solved: Whether the weights were found, a boolean tensor ``()`` on the device; None if the method
            always finds them. If not, the step changes nothing and `GramianWeighting.check` warns.

    Example:
        >>> GramianSolution(torch.ones(2)).solved is None
        True
    """

    weights: Tensor
    solved: Tensor | None = None


class GramianWeighting(Weighting):
    r"""A weighting that receives the Gramian of the tasks' gradients and returns weights.

    A subclass implements `solve`. With the Jacobian :math:`J` (tasks × parameters), the Gramian is
    :math:`G = J J^\top` and the update is :math:`J^\top w`. A method with more than one batch in a step
    receives :math:`J_1 J_2^\top` of two independent batches instead. Without a call of `setup`, tasks are
    called ``task0``, ``task1`` and so on.

    If the Gramian cannot be used, or a method finds no weights for it, the weights are 0, so that the step
    changes nothing. The fault is recorded on the device, and `check` reports it.

    Attributes:
        scale_heads: Whether a head's own parameters are scaled by the weight too, as in the method's paper.
        solves_on_host: Whether the solver reads values while it runs, so that with more than eight tasks
            the Gramian is copied to the host, once.
        needs_losses: Whether the losses must be given.
        unsolved: What it means if no weights are found, for the message.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - losses: ``(tasks,)``.
        - returns: ``(tasks,)``.

    Example:
        >>> class InverseNorm(GramianWeighting):
        ...     def solve(self, step):
        ...         return GramianSolution(step.gramian.diagonal().rsqrt())
        >>> InverseNorm()(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([0.5000, 1.0000])
    """

    gradients: Gradients | None = "parameters"
    scale_heads: bool = False
    solves_on_host: bool = False
    needs_losses: bool = False
    unsolved: str = "the solver did not converge"

    def __init__(self) -> None:
        super().__init__()
        self.faults = Faults()

    @torch.no_grad()
    def forward(
        self, gramian: Tensor, names: Sequence[str] | None = None, *, losses: Tensor | None = None
    ) -> Tensor:
        """The weights of the present tasks.

        Args:
            gramian: Inner products of the present tasks' gradients.
            names: Which tasks these are; None if all are present.
            losses: Losses of the present tasks, for methods that need them.

        Raises:
            UserError: If the Gramian or the losses do not fit the tasks named; on the CPU without
                `deferred` also if the Gramian is not symmetric.
            RunError: On the CPU without `deferred`, if the Gramian is not finite.
        """
        self._check_shapes(gramian, names, losses)
        values = exact(gramian, self.solves_on_host and len(gramian) > SMALL)
        losses = None if losses is None else exact(losses).to(values.device)
        rounding = max(torch.finfo(gramian.dtype).eps, SUMMED)
        step = GramianStep(values, rounding, self.indices(names), losses)
        bad = ~gramian.diagonal().isfinite()
        if losses is not None:
            bad = bad | ~losses.isfinite().to(bad.device)
        infinite, skew, step = self._examine(step)
        before = [buffer.clone() for buffer in self.buffers()]
        solution: Any = self.solve(step)
        self._check_solution(solution, names)
        weights = solution.weights.to(gramian)
        lost = ~weights.isfinite().all()
        if solution.solved is not None:
            lost = lost | ~solution.solved.to(lost.device)
        faults = torch.stack([infinite.to(lost.device), skew.to(lost.device), lost])
        faulty = faults.any()
        # A faulty step must not change the state.
        for buffer, old in zip(self.buffers(), before, strict=True):
            buffer.copy_(torch.where(faulty.to(old.device), old, buffer))
        self.faults.note(faults, gramian.detach(), step.indices, len(self.names), bad)
        self._check_now(gramian)
        return torch.where(faulty, 0.0, weights)

    def _check_solution(self, solution: Any, names: Sequence[str] | None) -> None:
        where, tasks = f"{type(self).__name__}.solve", self.names if names is None else names
        if not isinstance(solution, GramianSolution):
            raise UserError(
                where, "must return a GramianSolution", _shown(solution), "Wrap the weights in one"
            )
        weights: Any = solution.weights
        if not isinstance(weights, Tensor) or weights.shape != (len(tasks),):
            rule = f"must return one weight for each of the tasks {', '.join(tasks)}"
            raise UserError(where, rule, _shown(weights))

    @abstractmethod
    def solve(self, step: GramianStep) -> GramianSolution:
        """The weights of the present tasks, and whether they were found.

        Called without gradients. State that it keeps between steps must be in buffers: if the step is
        faulty, they are restored.

        Args:
            step: The Gramian and what else is known in this step.
        """

    def check(self) -> None:
        """Report faults in the steps since the last call; reads a few numbers from the device.

        Raises:
            RunError: If a Gramian was not finite.
            UserError: If a Gramian was not symmetric.

        Warns:
            SolverWarning: If no weights were found, with the tasks and the Gramian's condition; once for the
                same tasks.
        """
        self.faults.say(type(self).__name__, self.names, self.unsolved)

    @property
    def unsolved_steps(self) -> int:
        """The number of steps in which no weights were found, as far as `check` has read them."""
        return self.faults.unsolved

    def conclude(self) -> None:
        """Report the steps in which no weights were found and which `check` has only counted.

        Warns:
            SolverWarning: With the number of all such steps.
        """
        self.faults.conclude(type(self).__name__, self.unsolved)

    def number(self, step: int) -> None:
        """Set the number of the next step, for messages; otherwise calls are counted from 1.

        Args:
            step: The number.
        """
        self.faults.steps = step - 1

    def discard(self) -> None:
        """Discard the faults since the last call of `check`."""
        self.faults.count = None

    def _check_shapes(self, gramian: Tensor, names: Sequence[str] | None, losses: Tensor | None) -> None:
        if not self.names:
            self.setup(names or [f"task{i}" for i in range(len(gramian))])
        expected = self.names if names is None else names
        method, tasks = type(self).__name__, ", ".join(expected)
        if gramian.shape != (len(expected), len(expected)) or not gramian.is_floating_point():
            found = f"shape {tuple(gramian.shape)} of {gramian.dtype}"
            rule = f"the Gramian must be square, with one row for each of the tasks {tasks}"
            raise UserError(method, rule, found, "Pass J @ J.T")
        if losses is None and self.needs_losses:
            raise UserError(method, "the losses are required", "none", "Pass losses=")
        if losses is not None and losses.shape != (len(expected),):
            found = f"losses of shape {tuple(losses.shape)}"
            raise UserError(method, f"one loss is required for each of the tasks {tasks}", found)

    def _examine(self, step: GramianStep) -> tuple[Tensor, Tensor, GramianStep]:
        """Whether it is not finite, whether it is not symmetric, and a step that is safe for a solver."""
        gramian, losses = step.gramian, step.losses
        infinite = ~gramian.isfinite().all()
        if losses is not None:
            infinite = infinite | ~losses.isfinite().all()
        # LAPACK raises an error for NaN.
        gramian = torch.where(infinite, 0.0, gramian)
        if self.batches_per_step > 1:
            return infinite, torch.zeros_like(infinite), step._replace(gramian=gramian)
        norms = gramian.diagonal().clamp(min=0).sqrt()
        margin = step.rounding**0.5 * torch.outer(norms, norms)
        skew = ((gramian - gramian.mT).abs() > margin).any() | (gramian.diagonal() < 0).any()
        return infinite, skew, step._replace(gramian=(gramian + gramian.mT) / 2)


class JacobianAggregator(Weighting):
    """A weighting that receives the whole Jacobian and returns the update.

    A subclass implements `aggregate`. The Jacobian holds 0 for parameters that a task does not reach.
    Without a call of `setup`, tasks are called ``task0``, ``task1`` and so on.

    Shape:
        - jacobian: ``(tasks, parameters)``.
        - losses: ``(tasks,)``.
        - returns: ``(parameters,)``.

    Example:
        >>> class Median(JacobianAggregator):
        ...     def aggregate(self, jacobian, indices, losses):
        ...         return jacobian.median(0).values
        >>> Median()(torch.tensor([[1.0, 0.0], [2.0, 5.0], [9.0, 1.0]]))
        tensor([2., 1.])
    """

    gradients: Gradients | None = "parameters"

    def __init__(self) -> None:
        super().__init__()
        self._infinite: Tensor | None = None

    @torch.no_grad()
    def forward(
        self, jacobian: Tensor, names: Sequence[str] | None = None, *, losses: Tensor | None = None
    ) -> Tensor:
        """The update of the shared parameters.

        Args:
            jacobian: A row for each present task.
            names: Which tasks these are; None if all are present.
            losses: Losses of the present tasks, for methods that need them.

        Raises:
            UserError: If the rows or the losses do not fit the tasks named.
            RunError: On the CPU without `deferred`, if a row is not finite.
        """
        if not self.names:
            self.setup(names or [f"task{i}" for i in range(len(jacobian))])
        expected = self.names if names is None else names
        method, tasks = type(self).__name__, ", ".join(expected)
        if jacobian.ndim != 2 or len(jacobian) != len(expected):
            found = f"shape {tuple(jacobian.shape)}"
            rule = f"the Jacobian must have one row for each of the tasks {tasks}"
            raise UserError(method, rule, found)
        if losses is not None and losses.shape != (len(expected),):
            found = f"losses of shape {tuple(losses.shape)}"
            raise UserError(method, f"one loss is required for each of the tasks {tasks}", found)
        rows = jacobian.float() if jacobian.dtype in HALF else jacobian
        losses = None if losses is None else losses.detach().to(rows.dtype)
        indices = self.indices(names)
        infinite = self._note(rows, indices)
        before = [buffer.clone() for buffer in self.buffers()]
        update: Any = self.aggregate(rows, indices, losses)
        if not isinstance(update, Tensor) or update.shape != rows.shape[1:]:
            rule = f"must return an update of shape {tuple(rows.shape[1:])}, one value for each parameter"
            raise UserError(f"{method}.aggregate", rule, _shown(update))
        # A faulty step must not change the state.
        for buffer, old in zip(self.buffers(), before, strict=True):
            # A row's length is set by the first Jacobian; before that, all its values are 0.
            old = old if old.shape == buffer.shape else torch.zeros_like(buffer)
            buffer.copy_(torch.where(infinite.any().to(old.device), old, buffer))
        converted: Tensor = update.to(jacobian.dtype)
        return converted

    def _note(self, rows: Tensor, indices: list[int] | None) -> Tensor:
        infinite: Tensor = ~torch.linalg.vector_norm(rows, dim=1).isfinite()
        if self._infinite is None:
            self._infinite = torch.zeros(len(self.names), dtype=torch.bool, device=rows.device)
        present = torch.tensor(range(len(self.names)) if indices is None else indices, device=rows.device)
        self._infinite = self._infinite.index_put((present,), self._infinite[present] | infinite)
        self._check_now(rows)
        return infinite

    def discard(self) -> None:
        """Discard the faults since the last call of `check`."""
        self._infinite = None

    def check(self) -> None:
        """Raise if a row was not finite since the last call.

        Raises:
            RunError: If a row was not finite, with its tasks.
        """
        infinite, self._infinite = self._infinite, None
        bad = [] if infinite is None else infinite.tolist()
        tasks = ", ".join(name for name, wrong in zip(self.names, bad, strict=False) if wrong)
        if tasks:
            raise RunError(type(self).__name__, "gradients must be finite", f"NaN or infinity for {tasks}")

    @abstractmethod
    def aggregate(self, jacobian: Tensor, indices: list[int] | None, losses: Tensor | None) -> Tensor:
        """The update of the shared parameters.

        Called without gradients. State that it keeps between steps belongs into buffers.

        Args:
            jacobian: A row for each present task, ``(tasks, parameters)``, in float32 or float64.
            indices: Their indices among all tasks; None if all are present.
            losses: Losses of the present tasks, ``(tasks,)``, or None if they were not given.

        Returns:
            The update, ``(parameters,)``.
        """

    def head_weights(self, losses: Tensor, names: Sequence[str] | None = None) -> Tensor:
        """Factors of the heads' own gradients in the step just aggregated, shape ``(tasks,)``; 1 here.

        Args:
            losses: Losses of the present tasks.
            names: Which tasks these are; None if all are present.
        """
        return torch.ones_like(losses)
