"""TorchJD's methods, each given what it needs: the Gramian or the whole Jacobian."""

import sys
from collections.abc import Iterable
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from polytask._errors import UserError
from polytask.weighting._base import GramianSolution, GramianStep, GramianWeighting, JacobianAggregator
from polytask.weighting._third_party import ThirdPartyMethod


class TorchJDWeighting(GramianWeighting):
    r"""A method of TorchJD that needs the Gramian only: UPGrad, PCGrad, Krum, PCD and others.

    .. math:: w = w_\text{TorchJD}(J J^\top), \qquad d = J^\top w,

    at the cost of polytask's own Gramian weightings: the Jacobian is never formed. The method decides how
    the weights are normalised. ``pip install polytask[torchjd]`` installs TorchJD.

    A method with state (TorchJD's ``Stateful``) is run on the CPU in float64, needs all tasks in each
    step, and learns nothing from a step whose gradients are all 0 or not finite.

    Args:
        method: A ``GramianWeightedAggregator`` of TorchJD, or a ``Weighting`` of a Gramian.
        seed: Seed of the method's random numbers; None means the seed of torch.

    Shape:
        - gramian: ``(tasks, tasks)``.
        - returns: ``(tasks,)``.

    Raises:
        UserError: If the method is not one of TorchJD's, needs the Jacobian, has learned parameters, or has a
            state that a checkpoint cannot hold; at a step, if a task is absent and the method has state.
        RunError: At a step, if the method itself raises an error.

    Example:
        >>> import torch
        >>> from torchjd.aggregation import IMTLG
        >>> TorchJDWeighting(IMTLG())(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
        tensor([0.6667, 0.3333])

    When:
        A method is in TorchJD and not here, or a result is to be compared with TorchJD's.

    Reference:
        Quinton, Rey. Jacobian Descent for Multi-Objective Optimization. arXiv 2406.16232, 2024. The
        package is torchjd 0.18; each method names its own paper.

    Deviations:
        The Gramian is in float64. Random numbers come from the weighting's own generator instead of torch's
        global one, so that a resumed run and all ranks use the same. A state that is not made of tensors
        and numbers is refused: ``NashMTL`` of TorchJD keeps a solver's objects; polytask's `NashMTL` does
        not.
    """

    solves_on_host = True
    unsolved = "the method found no weights"

    def __init__(self, method: nn.Module, seed: int | None = None) -> None:
        super().__init__()
        where = type(self).__name__
        aggregation = _torchjd(method, where)
        if isinstance(method, aggregation.GramianWeightedAggregator):
            method = cast(nn.Module, method.gramian_weighting)
        if isinstance(method, aggregation.Aggregator) or _statistic(method) != "PSDMatrix":
            rule = "must be a method that computes weights from a Gramian"
            fix = "Pass an Aggregator to TorchJDAggregator; WeightedAggregator(...) makes one of a Weighting"
            raise UserError(f"{where}.method", rule, type(method).__name__, fix)
        self.method = ThirdPartyMethod(method, where, seed)

    def setup(self, names: Iterable[str]) -> None:
        """Take the task names."""
        super().setup(names)
        self.method.setup(self.names)

    def solve(self, step: GramianStep) -> GramianSolution:
        """The weights that the method computes from the Gramian."""
        # Third-party solvers raise an error for a Gramian that polytask reports after the step.
        gramian = torch.where((step.gramian.diagonal() < 0).any(), 0.0, step.gramian)
        return GramianSolution(self.method(gramian, step.indices, gramian.shape[:1]))


class TorchJDAggregator(JacobianAggregator):
    r"""An aggregator of TorchJD that needs the whole Jacobian: GradDrop, TrimmedMean and others.

    .. math:: d = A_\text{TorchJD}(J).

    For one that needs the Gramian only, use `TorchJDWeighting`, which is cheaper. ``pip install
    polytask[torchjd]`` installs TorchJD.

    A method with state (TorchJD's ``Stateful``) is run on the CPU in float64, needs all tasks in each
    step, and learns nothing from a step whose gradients are all 0 or not finite.

    Args:
        method: An ``Aggregator`` of TorchJD. TorchJD's MoDo and SDMGrad, which are weightings of the product
            of two batches, are not aggregators; use polytask's `MoDo` and `SDMGrad`.
        seed: Seed of the method's random numbers; None means the seed of torch.

    Shape:
        - jacobian: ``(tasks, parameters)``.
        - returns: ``(parameters,)``.

    Raises:
        UserError: If the method is not an aggregator of TorchJD's, needs the Gramian only, has learned
            parameters, or has a state that a checkpoint cannot hold; at a step, if a task is absent and the
            method has state.
        RunError: At a step, if the method itself raises an error.

    Example:
        >>> import torch
        >>> from torchjd.aggregation import TrimmedMean
        >>> weighting = TorchJDAggregator(TrimmedMean(trim_number=1))
        >>> weighting(torch.tensor([[1.0, 5.0], [2.0, -9.0], [9.0, 0.0]]))
        tensor([2., 0.])

    When:
        A method is in TorchJD and not here, or a result is to be compared with TorchJD's.

    Reference:
        Quinton, Rey. Jacobian Descent for Multi-Objective Optimization. arXiv 2406.16232, 2024. The
        package is torchjd 0.18; each method names its own paper.

    Deviations:
        Random numbers come from the weighting's own generator instead of torch's global one, so that a
        resumed run and all ranks use the same. A state that is not made of tensors and numbers is refused:
        ``NashMTL`` of TorchJD keeps a solver's objects; polytask's `NashMTL` does not.
    """

    def __init__(self, method: nn.Module, seed: int | None = None) -> None:
        super().__init__()
        where = type(self).__name__
        aggregation = _torchjd(method, where)
        if not isinstance(method, aggregation.Aggregator):
            fix = "Pass a Weighting of a Gramian to TorchJDWeighting; WeightedAggregator(...) makes one"
            raise UserError(f"{where}.method", "must be an Aggregator of TorchJD", type(method).__name__, fix)
        if isinstance(method, aggregation.GramianWeightedAggregator):
            rule = "must be a method that requires the whole Jacobian"
            found = f"{type(method).__name__}, for which the Gramian is enough"
            raise UserError(f"{where}.method", rule, found, "Use TorchJDWeighting, which is cheaper")
        self.method = ThirdPartyMethod(method, where, seed)

    def setup(self, names: Iterable[str]) -> None:
        """Take the task names."""
        super().setup(names)
        self.method.setup(self.names)

    def aggregate(self, jacobian: Tensor, indices: list[int] | None, losses: Tensor | None) -> Tensor:
        """The update that the method computes from the Jacobian."""
        return cast(Tensor, self.method(jacobian, indices, jacobian.shape[1:]))


def _torchjd(method: object, where: str) -> Any:
    """The package's module, which whoever made the method has imported; polytask does not import it."""
    aggregation = sys.modules.get("torchjd.aggregation")
    if aggregation is None or not isinstance(method, aggregation.Aggregator | aggregation.Weighting):
        found = method.__name__ if isinstance(method, type) else type(method).__name__
        fix = "Pass for example torchjd.aggregation.UPGrad() (pip install polytask[torchjd])"
        raise UserError(f"{where}.method", "must be an aggregator or weighting of TorchJD", found, fix)
    return aggregation


def _statistic(method: nn.Module) -> str | None:
    """The name of a weighting's type argument, or that of the weighting that it wraps."""
    for kind in type(method).__mro__:
        for base in vars(kind).get("__orig_bases__", ()):
            for argument in get_args(base):
                name = getattr(argument, "__name__", "")
                if name in ("PSDMatrix", "Matrix"):
                    return cast(str, name)
    inner = getattr(method, "weighting", None)
    return _statistic(inner) if isinstance(inner, nn.Module) else None
