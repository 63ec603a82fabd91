"""What a row of the table shows, in one sentence."""

import math
from collections.abc import Iterable, Mapping

from polytask.compare._names import SUM
from polytask.compare._summary import Difference, Row, TaskMetric

ENOUGH = 5
"""Fewer seeds give intervals only: with three, t is 4.30."""
Tests = Mapping[TaskMetric, Difference]


def verdict(row: Row, trials: int, among: int) -> str:
    """One sentence about a row against the plain sum; no verdict below five seeds.

    Args:
        row: A row.
        trials: How many settings were tried for each; with 1 the plain sum is not tuned.
        among: How many tests the table has, over which p is corrected.
    """
    other = "the tuned plain sum" if trials > 1 else "the untuned plain sum"
    if row.method == SUM:
        return "What the others are tested against."
    if not row.tests:
        return "Without a plain sum to test against."
    if all(one.paired.is_constant and one.paired.difference.mean == 0 for one in row.tests.values()):
        return f"The same numbers as {other} with every seed."
    text = "; ".join([*_tested(row, other, among), *_untested(row, other)])
    return f"{text[0].upper()}{text[1:]}."


def _tested(row: Row, other: str, among: int) -> list[str]:
    """What the tests found, or could have found if there are too few seeds."""
    if row.seeds == 1:
        return [f"1 seed: no interval, no test and no verdict against {other}"]
    tests = {key: one for key, one in row.tests.items() if not math.isnan(one.p)}
    if not tests:
        return []
    if row.seeds < ENOUGH:
        listed = _listed(_intervals(tests), row.tests)
        return [f"{row.seeds} seeds: no verdict; differences from {other}: {listed}"]
    found = {sign: _beyond(tests, sign) for sign in (1, -1)}
    parts = [
        f"{'better' if sign > 0 else 'worse'} than {other} on {_listed(texts, row.tests)}"
        for sign, texts in found.items()
        if texts
    ]
    same = {key: one for key, one in tests.items() if not any(key in texts for texts in found.values())}
    if same:
        noun = "metrics" if _has_several(row.tests) else "tasks"
        against = "" if parts else f" from {other}"
        listed = _listed(_intervals(same), row.tests)
        # An interval may exclude 0 although the test, corrected for their number, is not significant.
        count = f"{len(same)} of {len(row.tests)} {noun}{f', among {among} tests' * (among > 1)}"
        parts.append(f"no difference{against} beyond seed noise on {count}: {listed}")
    return parts


def _untested(row: Row, other: str) -> list[str]:
    """Metrics without a test though there are several seeds: NaN, and differences that are constant."""
    own = [key for key in row.tests if math.isnan(row.metrics[key].mean)]
    others = [
        key for key, one in row.tests.items() if key not in own and math.isnan(one.paired.difference.mean)
    ]
    constant = {
        key: f"{one.paired.difference.mean:+.2g}" for key, one in row.tests.items() if one.paired.is_constant
    }
    parts = []
    if own:
        parts.append(f"not a number on {', '.join(_names(own, row.tests))}")
    if others:
        parts.append(f"{other} is not a number on {', '.join(_names(others, row.tests))}")
    if constant:
        listed = _listed(constant, row.tests)
        parts.append(f"the difference is the same with every seed on {listed}: no test")
    return parts


def _beyond(tests: Tests, sign: int) -> dict[TaskMetric, str]:
    """By how much, for tests that are significant among all of them and have this sign."""
    return {
        key: f"{abs(one.paired.difference.mean):.2g} ± {one.paired.difference.half:.2g}"
        for key, one in tests.items()
        if one.p < 0.05 and one.paired.difference.mean * sign > 0
    }


def _intervals(tests: Tests) -> dict[TaskMetric, str]:
    """The differences, positive if the row is better, and what could have been found."""
    found = {key: (one.paired.difference, one.detectable) for key, one in tests.items()}
    return {key: f"{d.mean:+.2g} ± {d.half:.2g}, detectable {least:.2g}" for key, (d, least) in found.items()}


def _listed(texts: Mapping[TaskMetric, str], tests: Tests) -> str:
    names = _names(texts, tests)
    return ", ".join(f"{name} ({text})" for name, text in zip(names, texts.values(), strict=True))


def _names(keys: Iterable[TaskMetric], tests: Tests) -> list[str]:
    """Tasks, with the metric if tasks have several."""
    return ["/".join(key) if _has_several(tests) else key[0] for key in keys]


def _has_several(tests: Tests) -> bool:
    return len({task for task, _ in tests}) < len(tests)
