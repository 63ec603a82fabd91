"""What a row of the table says, in one sentence."""

from collections.abc import Mapping

from polytask.compare._names import SUM
from polytask.compare._summary import Difference, Key, Row

ENOUGH = 5
"""Fewer seeds give intervals only: with three, t is 4.30."""


def verdict(row: Row, trials: int) -> str:
    """One sentence about a row against the plain sum; no verdict below five seeds.

    Args:
        row: A row.
        trials: How many settings were tried for each; with 1 the plain sum is not tuned.
    """
    other = "the tuned plain sum" if trials > 1 else "the untuned plain sum"
    if row.method == SUM:
        return "What the others are tested against."
    if not row.tests:
        return "Without a plain sum to test against."
    if all(test.paired.difference.mean == test.paired.detectable == 0 for test in row.tests.values()):
        return f"The same numbers as {other} with every seed."
    if row.seeds == 1:
        return f"1 seed: no interval, no test and no verdict against {other}."
    least = _listed({key: f"{test.paired.detectable:.2g}" for key, test in row.tests.items()}, row.tests)
    if row.seeds < ENOUGH:
        return f"{row.seeds} seeds: no verdict; detectable against {other} were differences of {least}."
    found = [(sign, _beyond(row.tests, sign)) for sign in (1, -1)]
    parts = [
        f"{'better' if sign > 0 else 'worse'} than {other} on {_listed(keys, row.tests)}"
        for sign, keys in found
        if keys
    ]
    same = len(row.tests) - sum(len(keys) for _, keys in found)
    if same:
        noun = "tasks" if len({task for task, _ in row.tests}) == len(row.tests) else "metrics"
        against = "" if parts else f" from {other}"
        parts.append(f"no difference{against} beyond seed noise on {same} of {len(row.tests)} {noun}")
    text = "; ".join(parts)
    detectable = f" (detectable: {least})" if same else ""
    return f"{text[0].upper()}{text[1:]}{detectable}."


def _beyond(tests: Mapping[Key, Difference], sign: int) -> dict[Key, str]:
    """By how much, where a test holds among all of them and points this way."""
    return {
        key: f"{abs(test.paired.difference.mean):.2g} ± {test.paired.difference.half:.2g}"
        for key, test in tests.items()
        if test.p < 0.05 and test.paired.difference.mean * sign > 0
    }


def _listed(texts: Mapping[Key, str], tests: Mapping[Key, Difference]) -> str:
    """Numbers with their task, and the metric where tasks have several."""
    several = len({task for task, _ in tests}) < len(tests)
    return ", ".join(f"{'/'.join(key) if several else key[0]} ({text})" for key, text in texts.items())
