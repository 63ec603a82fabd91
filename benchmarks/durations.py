"""Keeps which tests take longest.

    python -m pytest -n 2 --dist loadfile --durations=20 | python benchmarks/durations.py NAME

Passes on what pytest prints, and writes its slowest 20 entries and its last line to
``benchmarks/results/durations_NAME.md``. Ends with 1 if pytest did not pass.
"""

import re
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
ENTRY = re.compile(r"(?P<seconds>\d+\.\d+)s (?P<phase>call|setup|teardown) +(?P<test>\S.*)")
LAST = re.compile(r"=* ?(?P<said>\d+ passed.* in [\d.]+s\b.*?) ?=*")
MOST = 20


def table(lines: list[str]) -> str:
    """The entries as a table in Markdown.

    Args:
        lines: What pytest printed.

    Raises:
        SystemExit: If a test failed, or pytest did not get to its end.
    """
    said = next((match["said"] for line in reversed(lines) if (match := LAST.fullmatch(line))), None)
    if said is None:
        raise SystemExit("pytest must pass")
    entries = [match for line in lines if (match := ENTRY.fullmatch(line))][:MOST]
    rows = [f"| {one['seconds']} | {one['phase']} | `{one['test']}` |" for one in entries]
    return "\n".join([f"pytest: {said}.", "", "| seconds | phase | test |", "|---:|---|---|", *rows, ""])


if __name__ == "__main__":
    printed = []
    for line in sys.stdin:
        print(line, end="", flush=True)
        printed.append(line.rstrip())
    (RESULTS / f"durations_{sys.argv[1]}.md").write_text(table(printed))
