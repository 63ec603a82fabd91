"""The section on trade-offs: what a gain on one task costs another task."""

from collections.abc import Sequence
from itertools import combinations
from math import isfinite

from polytask.report._charts import Point, Points, Section, View, listed
from polytask.report._entries import Collection, Score

_HINT = "Trade-offs need two tasks, and two runs with validation data: name more runs, or a comparison."


def trade_offs(collection: Collection) -> Section:
    """A scatter plot for each pair of tasks; runs that no other run dominates are marked."""
    scores = _measured(collection)
    runs = {score.run for score in scores if not score.is_baseline}
    tasks = [task for task in collection.tasks if any(score.task == task for score in scores)]
    if len(tasks) < 2 or len(runs) < 2:
        return Section("Trade-offs", (), _HINT)
    order = [entry.name for entry in collection.entries]
    views = tuple(
        View(f"{first} and {second}", _plane(_of(scores, first), _of(scores, second), order))
        for first, second in combinations(tasks, 2)
    )
    split = "validation" if collection.split == "val" else collection.split
    note = (
        f"Each marker is a run, on {split} data; filled if no other run is better on both tasks. "
        "Arrows show the better direction."
    )
    return Section("Trade-offs", (listed("Two tasks", note, views, "tasks"),))


def front(points: Sequence[tuple[float, float]], higher: tuple[bool, bool]) -> list[bool]:
    """Which points no other point dominates.

    Args:
        points: Values on two tasks.
        higher: Whether a higher value is better, for each task.

    Example:
        >>> front([(0.9, 0.5), (0.8, 0.4), (0.7, 0.6)], (True, False))
        [True, True, False]
    """
    signs = [1.0 if better else -1.0 for better in higher]
    goods = [(signs[0] * x, signs[1] * y) for x, y in points]
    return [
        not any(x <= other_x and y <= other_y and (x, y) != (other_x, other_y) for other_x, other_y in goods)
        for x, y in goods
    ]


def _measured(collection: Collection) -> list[Score]:
    """Each task's first metric."""
    first: dict[str, str] = {}
    for score in collection.scores:
        if not score.is_baseline:
            first.setdefault(score.task, score.metric)
    return [
        score
        for score in collection.scores
        if score.metric == first.get(score.task) and isfinite(score.value)
    ]


def _of(scores: Sequence[Score], task: str) -> list[Score]:
    return [score for score in scores if score.task == task]


def _plane(first: Sequence[Score], second: Sequence[Score], order: Sequence[str]) -> Points:
    others = {score.run: score for score in second if not score.is_baseline}
    pairs = [(score, others[score.run]) for score in first if not score.is_baseline and score.run in others]
    values = [(a.value, b.value) for a, b in pairs]
    higher = (first[0].higher_is_better, second[0].higher_is_better)
    points = [
        Point(a.entry, order.index(a.entry), a.value, b.value, best)
        for (a, b), best in zip(pairs, front(values, higher), strict=True)
    ]
    levels = [_mean([score.value for score in scores if score.is_baseline]) for scores in (first, second)]
    if levels[0] is not None and levels[1] is not None:
        points.append(Point("single-task models", -1, levels[0], levels[1], False))
    return Points(_label(first[0]), _label(second[0]), tuple(points))


def _label(score: Score) -> str:
    return f"{score.task} {score.metric} {'↑' if score.higher_is_better else '↓'}"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
