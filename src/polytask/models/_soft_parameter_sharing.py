"""Soft parameter sharing, and its factory."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter

from polytask._errors import UserError
from polytask._tasks import check_known, check_task_names
from polytask.batch import HALF
from polytask.models._argument_checks import check_mapping, check_strength
from polytask.models._base import Heads
from polytask.models._dense import Activation
from polytask.models._mlp import MLP
from polytask.models._separate import Separate
from polytask.models._task_configs import from_config

Groups = Sequence[Sequence[str]]
Tie = Literal["l2", "trace_norm"]


class SoftParameterSharing(Separate):
    r"""A network for each task, with a penalty on the distance between the tasks' parameters.

    The penalty, times ``sharing_strength``, is added to the total and logged as ``loss/sharing``. With
    :math:`\theta_t` the parameters of task *t* that its group has in common, name by name,

    .. math:: \sum_{s<t} \lVert \theta_s - \theta_t \rVert_2^2
        \quad\text{(l2)}, \qquad
        \sum_p \lVert [\mathrm{vec}\,\theta_{1,p}, \dots, \mathrm{vec}\,\theta_{T,p}] \rVert_*
        \quad\text{(trace_norm)},

    summed over groups; the trace norm is the sum of singular values of the weights stacked by task, and
    favours weights of low rank.

    Only parameters of the same name and shape are tied, so that output layers may differ in width.

    Args:
        task_networks: One network per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        sharing_strength: Factor of the penalty, 0 or more, no unit.
        sharing_groups: Groups of tasks that share with each other; a task in none of them, or alone in its
            group, shares with no other. None means one group of all tasks.
        penalty: ``l2`` or ``trace_norm``.

    Shape:
        - Input: what every network takes.
        - Output: for each task, what its network returns; see `MultiTaskModel.forward`.

    Raises:
        UserError: If a network is not a module, a group names no task or one twice, the networks of a group
            have no parameter of one name and shape, their hidden sizes differ, or the strength is below 0.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, SoftParameterSharing
        >>> model = SoftParameterSharing({"digit": MLP(64, [32], 10), "odd": MLP(64, [32], 2)})
        >>> {task: tuple(output.shape) for task, output in model(torch.rand(8, 64)).items()}
        {'digit': (8, 10), 'odd': (8, 2)}
        >>> model.tied
        (('layers.linear1.weight', 'layers.linear1.bias'),)

    Reference:
        Duong, Cohn, Bird, Cook, "Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a Neural
        Network Parser", ACL 2015, for l2. Yang, Hospedales, "Trace Norm Regularised Deep Multi-Task
        Learning", ICLR Workshop 2017, for the trace norm.

    Deviations:
        l2 is computed between all pairs of tasks; the paper has one pair of a source and a target.
    """

    def __init__(
        self,
        task_networks: Heads,
        sharing_strength: float = 0.01,
        sharing_groups: Groups | None = None,
        *,
        penalty: Tie = "l2",
    ) -> None:
        super().__init__(task_networks)
        self.sharing_strength = check_strength(sharing_strength, "sharing_strength")
        if penalty not in _TIES:
            raise UserError("penalty", "must be 'l2' or 'trace_norm'", repr(penalty))
        self.penalty = penalty
        self.groups = _groups(sharing_groups, self.task_names)
        self._check_shapes_known()
        self.tied = tuple(self._tied(group) for group in self.groups)

    def sharing_penalty(self) -> Tensor:
        """The term added to the total: the strength times the penalty, ``()``; 0 if no tasks share.

        Example:
            >>> import torch
            >>> from polytask.models import SoftParameterSharing
            >>> one, other = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
            >>> with torch.no_grad():
            ...     _ = one.weight.fill_(1), other.weight.fill_(4)
            >>> SoftParameterSharing([one, other], 0.5).sharing_penalty().detach()
            tensor(4.5000)
        """
        tie = _TIES[self.penalty]
        terms = [
            tie(_stacked([self.heads[task].get_parameter(name) for task in group]))
            for group, names in zip(self.groups, self.tied, strict=True)
            for name in names
        ]
        if not terms:
            return next(self.parameters(), torch.empty(0)).new_zeros(())
        return self.sharing_strength * torch.stack(terms).sum()

    def _check_shapes_known(self) -> None:
        for task, network in self.heads.items():
            for name, parameter in network.named_parameters():
                if isinstance(parameter, UninitializedParameter):
                    rule = "all parameters must have a known shape"
                    raise UserError(f"task_networks.{task}", rule, f"'{name}' without one")

    def _tied(self, group: Sequence[str]) -> tuple[str, ...]:
        if len(group) == 1:
            return ()
        networks = [dict(self.heads[task].named_parameters()) for task in group]
        common = [name for name in networks[0] if all(name in network for network in networks)]
        apart = [name for name in common if len({network[name].shape for network in networks}) > 1]
        inner = [name for name in apart if len({self._but_outputs(task, name) for task in group}) > 1]
        if inner:
            # A layer of another width also changes the input of the next one; the first one is named.
            raise UserError(_where(group), "hidden sizes must be the same", self._shapes(group, apart[0]))
        same = tuple(name for name in common if name not in apart)
        if not same:
            rule = "all networks must have a parameter of the same name and shape"
            found = self._shapes(group, apart[0]) if apart else "no name in common"
            raise UserError(_where(group), rule, found)
        return same

    def _but_outputs(self, task: str, name: str) -> tuple[int, ...]:
        """The parameter's shape without the dimension of the layer's outputs."""
        module, _, own = name.rpartition(".")
        layer = self.heads[task].get_submodule(module)
        axis = 1 if isinstance(layer, _ConvTransposeNd) and own == "weight" else 0
        shape = list(layer.get_parameter(own).shape)
        return tuple(shape[:axis] + shape[axis + 1 :])

    def _shapes(self, group: Sequence[str], name: str) -> str:
        shapes = {task: tuple(self.heads[task].get_parameter(name).shape) for task in group}
        one = group[0]
        other = next(task for task in group if shapes[task] != shapes[one])
        return f"'{name}' of shape {shapes[one]} in '{one}' and {shapes[other]} in '{other}'"


def _squared_distances(stacked: Tensor) -> Tensor:
    # The sum over all pairs, from the distances to the mean: T of them, not T².
    return len(stacked) * (stacked - stacked.mean(dim=0)).square().sum()


def _trace_norm(stacked: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.matrix_norm(stacked, "nuc")
    return norm


def _stacked(parameters: Sequence[Tensor]) -> Tensor:
    """One row for each task, in a precision in which sums and singular values can be computed."""
    rows = torch.stack(list(parameters)).flatten(1)
    return rows.float() if rows.dtype in HALF else rows


_TIES = {"l2": _squared_distances, "trace_norm": _trace_norm}


def _groups(groups: Groups | None, tasks: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    if groups is None:
        return (tasks,)
    if not groups or isinstance(groups, str) or any(isinstance(group, str) for group in groups):
        rule = "must be a list of lists of tasks"
        raise UserError("sharing_groups", rule, repr(groups), "Write [[a, b], [c]]")
    for number, group in enumerate(groups):
        if not group:
            raise UserError(f"sharing_groups[{number}]", "at least one task is required", "none")
        check_known(group, tasks, f"sharing_groups[{number}]")
    named = [task for group in groups for task in group]
    for task in named:
        if named.count(task) > 1:
            found = f"'{task}' {named.count(task)} times"
            raise UserError("sharing_groups", "a task must be in one group only", found)
    return tuple(tuple(group) for group in groups)


def _where(group: Sequence[str]) -> str:
    return f"sharing_groups ({', '.join(group)})"


def create_soft_sharing_model(
    input_dim: int,
    task_configs: Mapping[str, Mapping[str, Any]],
    sharing_strength: float = 0.01,
    *,
    sharing_groups: Groups | None = None,
    penalty: Tie = "l2",
) -> SoftParameterSharing:
    """A `SoftParameterSharing` model with an `MLP` for each task.

    Args:
        input_dim: Values per sample.
        task_configs: For each task ``output_dim``, and optionally ``hidden_dims``, ``activation`` and
            ``dropout``: the arguments of `MLP`. Tasks that share must have the same ``hidden_dims``.
        sharing_strength: Factor of the penalty, 0 or more, no unit.
        sharing_groups: Groups of tasks that share with each other; None means one group of all tasks.
        penalty: ``l2`` or ``trace_norm``.

    Shape:
        - Input: (N, ...) with ``input_dim`` values per sample.
        - Output: (N, output_dim) for each task; see `MultiTaskModel.forward`.

    Raises:
        UserError: If a task's configuration cannot be used, or the networks cannot share.

    Example:
        >>> import torch
        >>> from polytask.models import create_soft_sharing_model
        >>> classes = {"digit": 10, "odd": 2}
        >>> tasks = {task: {"output_dim": n, "hidden_dims": [32]} for task, n in classes.items()}
        >>> model = create_soft_sharing_model(64, tasks)
        >>> model(torch.rand(8, 64), "digit").shape
        torch.Size([8, 10])
    """
    tasks = check_task_names(check_mapping(task_configs, "task_configs"), "task_configs")
    networks = {task: from_config(partial(_network, input_dim), task, task_configs[task]) for task in tasks}
    return SoftParameterSharing(networks, sharing_strength, sharing_groups, penalty=penalty)


def _network(
    input_dim: int,
    output_dim: int,
    hidden_dims: Sequence[int] | None = None,
    activation: Activation = None,
    dropout: float = 0.0,
) -> MLP:
    return MLP(input_dim, hidden_dims or [], output_dim, activation=activation, dropout=dropout)
