"""The table of a comparison: for the terminal, as CSV and as Markdown."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from polytask._files import write_text
from polytask.compare._names import SINGLE, row_name
from polytask.compare._remarks import Remarks
from polytask.compare._results import Result
from polytask.compare._statistics import Interval
from polytask.compare._summary import Gain, Row, Summary
from polytask.compare._verdicts import ENOUGH, verdict

CSV = "table.csv"
MARKDOWN = "table.md"


class Table:
    """The results of a comparison as a table.

    Args:
        results: Every number of every run.
        trials: How many settings were tried for each method and baseline.
        remarks: What has to be said about the runs.

    Attributes:
        rows: One `Row` for each method or baseline and architecture.

    Raises:
        UserError: If there are no results, one is missing or given twice, or rows differ in metrics, seeds
            or split.

    Example:
        >>> def result(method, seed, value):
        ...     of = (method, "base", "method", seed, "a", "Accuracy")
        ...     return Result(*of, value, True, "test", 1.0, 9.0, "")
        >>> both = (("plain_sum", 0.5), ("uw", 0.6))
        >>> table = Table([result(name, seed, value) for name, value in both for seed in (0, 1)])
        >>> [row.method for row in table.rows], [title for title in table.header() if '/' in title]
        (['plain_sum', 'uw'], ['a/Accuracy ↑'])
    """

    def __init__(self, results: Sequence[Result], trials: int = 1, remarks: Remarks | None = None) -> None:
        self._summary = Summary(results)
        self.rows: list[Row] = self._summary.rows
        self.trials = trials
        self.remarks = remarks or Remarks()

    def header(self) -> list[str]:
        """Titles of the columns; an arrow shows the better direction of a metric."""
        higher = self._summary.higher_is_better
        metrics = [f"{task}/{metric} {'↑' if higher[task, metric] else '↓'}" for task, metric in higher]
        ours = ["delta_m % ↑", "mean rank ↓", "worst task", "below", "seconds", "memory MiB"]
        return ["method", *self._architecture("architecture"), *metrics, *ours]

    def cells(self, row: Row) -> list[str]:
        """The cells of a row as strings.

        Args:
            row: One of ``rows``.
        """
        gain = row.gain
        return [
            row.method,
            *self._architecture(row.architecture),
            *(_interval(row.metrics[key], 4) for key in self._summary.higher_is_better),
            "-" if gain is None else _interval(gain.delta_m, 3, sign=True),
            f"{row.rank:.2f}",
            "-" if gain is None else f"{gain.worst} {_number(gain.tasks[gain.worst].mean, 3, sign=True)} %",
            "-" if gain is None else _below(gain),
            f"{row.seconds:.1f}",
            f"{row.peak_memory_mb:.0f}",
        ]

    def notes(self) -> list[str]:
        """What the columns mean."""
        seeds, split, tests = self.rows[0].seeds, self._summary.split, self._summary.tests
        tuned = (
            f"the best of {self.trials} trials by validation"
            if self.trials > 1
            else "untuned, as the config has it"
        )
        judged = (
            "Tests: seed-paired t against the plain sum, p corrected by Holm over "
            f"{tests} test{'s' * (tests > 1)}, intervals not corrected."
        )
        found = f"Detectable: what a test would find 4 times in 5 at Holm's smallest step, p < 0.05/{tests}."
        return [
            f"Mean and 95 % t interval over {seeds} seed{'s' * (seeds > 1)} on the {split} split at the last "
            f"epoch; every method and baseline {tuned}. Time and memory: one training.",
            *self._about_gains(),
            *([judged] if tests and seeds >= ENOUGH else []),
            *([found] if tests and seeds > 1 else []),
            *self.remarks.lines(self.trials),
        ]

    def _about_gains(self) -> list[str]:
        """What delta_m is, and for which architectures it is undefined or says little."""
        undefined, unsteady = self._summary.undefined, self._summary.unsteady
        notes = [
            f"No delta_m{self._of(architecture)}: {reason}." for architecture, reason in undefined.items()
        ]
        if any(row.gain is not None for row in self.rows):
            notes.append(
                "delta_m: mean gain over the single-task models of the same seeds in percent, positive is "
                "good; below: tasks whose gain is below 0, in brackets those whose 95 % interval is too."
            )
        elif not undefined:
            unnamed = any(name in self.remarks.unnamed for name in self._single_rows())
            why = "the single-task models were not named this time; add --single-task"
            if not unnamed:
                why = "no single-task models were trained to their end"
            notes.append(f"No delta_m: {why}.")
        for (architecture, key), (mean, spread) in unsteady.items():
            notes.append(
                f"delta_m says little{self._of(architecture)}: {'/'.join(key)} of the single-task models is "
                f"{mean:.2g} with a standard deviation of {spread:.2g} over seeds."
            )
        return notes

    def _single_rows(self) -> set[str]:
        return {row_name(SINGLE, row.architecture) for row in self.rows}

    def _of(self, architecture: str) -> str:
        return "".join(f" for {name}" for name in self._architecture(architecture))

    def sentences(self) -> list[tuple[str, str]]:
        """A name and a sentence for each row."""
        return [
            ("-".join([row.method, *self._architecture(row.architecture)]), self._verdict(row))
            for row in self.rows
        ]

    def markdown(self) -> str:
        """The table, its notes and a sentence for each row."""
        lines = [_line(self.header()), _line(["---"] * len(self.header()))]
        lines += [_line(self.cells(row)) for row in self.rows]
        lines += ["", *(f"{note}\n" for note in self.notes())]
        lines += [f"- **{name}**: {sentence}" for name, sentence in self.sentences()]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Every number of the table, unrounded."""
        text = io.StringIO()
        rows = [self._numbers(row) for row in self.rows]
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _numbers(self, row: Row) -> dict[str, str | float | int]:
        found: dict[str, str | float | int] = {
            "method": row.method,
            "architecture": row.architecture,
            "seeds": row.seeds,
        }
        for key in self._summary.higher_is_better:
            name, test = "/".join(key), row.tests.get(key)
            found |= {f"{name} mean": row.metrics[key].mean, f"{name} half": row.metrics[key].half}
            found |= {
                f"{name} gain": math.nan if test is None else test.paired.difference.mean,
                f"{name} gain half": math.nan if test is None else test.paired.difference.half,
                f"{name} p": math.nan if test is None or row.seeds < ENOUGH else test.p,
                f"{name} detectable": math.nan if test is None else test.detectable,
            }
        gain = row.gain
        return found | {
            "delta_m": math.nan if gain is None else gain.delta_m.mean,
            "delta_m half": math.nan if gain is None else gain.delta_m.half,
            "mean rank": row.rank,
            "worst task": "" if gain is None else gain.worst,
            "worst delta": math.nan if gain is None else gain.tasks[gain.worst].mean,
            "tasks below": "" if gain is None else len(gain.below),
            "tasks clearly below": "" if gain is None else len(gain.clearly_below),
            "seconds": row.seconds,
            "peak_memory_mb": row.peak_memory_mb,
            "verdict": self._verdict(row),
        }

    def _verdict(self, row: Row) -> str:
        return verdict(row, self.trials, self._summary.tests)

    def _architecture(self, name: str) -> list[str]:
        return [name] if len({row.architecture for row in self.rows}) > 1 else []


def write_table(table: Table, folder: Path) -> None:
    """Write ``table.csv`` and ``table.md``.

    Args:
        table: The table.
        folder: The comparison's folder.
    """
    for name, text in ((CSV, table.csv()), (MARKDOWN, table.markdown())):
        write_text(folder / name, text)


def _interval(interval: Interval, digits: int, sign: bool = False) -> str:
    mean = _number(interval.mean, digits, sign)
    return mean if math.isnan(interval.half) else f"{mean} ± {interval.half:.2g}"


def _number(value: float, digits: int, sign: bool = False) -> str:
    return "–" if math.isnan(value) else f"{value:{'+' if sign else ''}.{digits}g}"


def _below(gain: Gain) -> str:
    count = f"{len(gain.below)} of {len(gain.tasks)}"
    return count if gain.delta_m.count == 1 else f"{count} ({len(gain.clearly_below)})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
