"""Which tasks to train together, from their affinities."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from polytask._checks import check_integer
from polytask._errors import UserError
from polytask.diagnostics._readers import Affinities

# 12 tasks have half a million pairs of a set and a group in it.
EXACT = 12
_LEAST = 1e-12
Partition = list[frozenset[int]]


@dataclass(frozen=True)
class Grouping:
    """A partition of the tasks into models.

    Attributes:
        groups: The tasks of each model.
        received: For each task the mean affinity from the others of its model; 0 if it is alone.
        score: The sum of these.
        exact: Whether no other partition has a higher score; else it is from a greedy search.
        parameters: The number of parameters of all models; None if unknown.
    """

    groups: tuple[tuple[str, ...], ...]
    received: dict[str, float]
    score: float
    exact: bool
    parameters: int | None


def group_tasks(affinities: Affinities, groups: int, budget: int | None = None) -> Grouping:
    r"""The best partition of the tasks into at most a given number of models.

    A partition into models *M* has the score

    .. math:: \sum_{M} \sum_{j \in M} \frac{1}{|M| - 1} \sum_{i \in M, i \neq j} Z_{i \to j} ,

    in which a task alone adds 0. For up to 12 tasks the partition is optimal, found by dynamic programming
    over all sets of tasks; for more it is from a greedy search: groups are merged while that raises the score
    or there are too many of them, then single tasks are moved while that raises the score.

    Each model has all shared parameters, and the parameters of its tasks.

    Args:
        affinities: The affinities, as returned by `read_affinity`.
        groups: The maximal number of models.
        budget: The maximal number of parameters of all models together.

    Raises:
        UserError: If there are fewer tasks than models, two tasks were never present together, or one model
            exceeds the budget.

    Example:
        >>> values = np.array([[0.0, 0.2, -0.1], [0.3, 0.0, -0.1], [-0.2, -0.3, 0.0]])
        >>> group_tasks(Affinities(("cat", "dog", "noise"), "lookahead", values), 2).groups
        (('cat', 'dog'), ('noise',))

    Reference:
        Fifty, Amid, Zhao, Yu, Anil, Finn. Efficiently Identifying Task Groupings for Multi-Task Learning.
        NeurIPS 2021. Section 3.2.

    Deviations:
        Every task is in one model. In the paper a model may also train tasks that another model serves.
    """
    tasks = affinities.tasks
    groups = check_integer(groups, "groups", 1, len(tasks))
    values = affinities.values.copy()
    np.fill_diagonal(values, 0)
    for i, j in combinations(range(len(tasks)), 2):
        if not np.isfinite(values[i, j] + values[j, i]):
            rule = f"'{tasks[i]}' and '{tasks[j]}' must be present together in a recorded step"
            raise UserError("affinity", rule, "none", "Record more steps, or use batches with several tasks")
    most = _within(affinities, groups, budget)
    # The sum of a pair's affinities, relative to the largest so that their unit does not matter.
    both = values + values.T
    both /= np.abs(both).max(initial=0.0) or 1.0
    exact = len(tasks) <= EXACT
    found = sorted(sorted(group) for group in (_best if exact else _greedy)(both, most))
    received = {
        tasks[j]: float(sum(values[i, j] for i in group) / max(len(group) - 1, 1))
        for group in found
        for j in group
    }
    named = tuple(tuple(tasks[index] for index in group) for group in found)
    shared = affinities.shared_parameters
    parameters = None if shared is None else len(found) * shared + _own(affinities)
    ordered = {task: received[task] for task in tasks}
    return Grouping(named, ordered, sum(ordered.values()), exact, parameters)


def _own(affinities: Affinities) -> int:
    return sum(affinities.task_parameters.get(task, 0) for task in affinities.tasks)


def _within(affinities: Affinities, groups: int, budget: int | None) -> int:
    """The maximal number of models within the budget."""
    if budget is None:
        return groups
    shared = affinities.shared_parameters
    if shared is None:
        raise UserError(
            "budget", "requires the numbers of parameters", "records without them", "Leave it out"
        )
    one = shared + _own(affinities)
    if check_integer(budget, "budget") < one:
        raise UserError("budget", f"must allow one model, which has {one} parameters", str(budget))
    return min(groups, (budget - one) // max(shared, 1) + 1)


def _score(both: NDArray[np.float64], group: frozenset[int]) -> float:
    members = sorted(group)
    return float(both[np.ix_(members, members)].sum() / 2 / max(len(members) - 1, 1))


def _best(both: NDArray[np.float64], most: int) -> Partition:
    """The best partition, by dynamic programming over sets of tasks, as bits of an integer."""
    whole = (1 << len(both)) - 1
    members = [frozenset(bit for bit in range(len(both)) if mask >> bit & 1) for mask in range(whole + 1)]
    scores = [_score(both, group) if group else 0.0 for group in members]
    best = scores
    chosen = [list(range(whole + 1))]
    for _ in range(1, most):
        scored, taken = best.copy(), [0] * (whole + 1)
        for mask in range(1, whole + 1):
            lowest = mask & -mask
            rest = part = mask ^ lowest
            # Every proper subset with the set's first task.
            while part:
                part = (part - 1) & rest
                value = scores[part | lowest] + best[mask ^ lowest ^ part]
                if value > scored[mask] + _LEAST:
                    scored[mask], taken[mask] = value, part | lowest
        best = scored
        chosen.append(taken)
    groups, mask = [], whole
    for taken in reversed(chosen):
        if mask and taken[mask]:
            groups.append(members[taken[mask]])
            mask ^= taken[mask]
    return groups


def _greedy(both: NDArray[np.float64], most: int) -> Partition:
    """A good partition: groups are merged in pairs, then single tasks are moved."""
    groups: Partition = [frozenset({task}) for task in range(len(both))]
    while len(groups) > 1:
        gain, first, second = max(
            (_score(both, one | other) - _score(both, one) - _score(both, other), -i, -j)
            for (i, one), (j, other) in combinations(enumerate(groups), 2)
        )
        if gain <= _LEAST and len(groups) <= most:
            break
        one, other = groups[-first], groups[-second]
        groups = [group for group in groups if group not in (one, other)] + [one | other]
    while moved := _moved(both, groups, most):
        groups = moved
    return groups


def _moved(both: NDArray[np.float64], groups: Partition, most: int) -> Partition | None:
    """The groups after the best move of one task; None if no move raises the score."""
    best, found = _LEAST, None
    for source in groups:
        for task in sorted(source):
            left = source - {task}
            new = [frozenset[int]()] if len(groups) < most else []
            for target in [*(group for group in groups if group is not source), *new]:
                before = _score(both, source) + (_score(both, target) if target else 0.0)
                gain = _score(both, target | {task}) + (_score(both, left) if left else 0.0) - before
                if gain > best:
                    kept = [group for group in groups if group not in (source, target)]
                    best, found = gain, [*kept, *filter(None, (left, target | {task}))]
    return found
