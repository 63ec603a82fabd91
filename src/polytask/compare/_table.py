"""The table of a comparison: for the terminal, as CSV and as Markdown."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from polytask.compare._remarks import Remarks
from polytask.compare._results import Result
from polytask.compare._statistics import Interval
from polytask.compare._summary import Row, Summary
from polytask.compare._words import verdict

CSV = "table.csv"
MARKDOWN = "table.md"


class Table:
    """What a comparison found.

    Args:
        results: Every number of every run.
        trials: How many settings were tried for each method and baseline.
        remarks: How the comparison went.

    Attributes:
        rows: One `Row` for each method or baseline and architecture.

    Raises:
        UserError: Where there are no results, or rows have other tasks or seeds.
    """

    def __init__(self, results: Sequence[Result], trials: int = 1, remarks: Remarks | None = None) -> None:
        self._summary = Summary(results)
        self.rows: list[Row] = self._summary.rows
        self.trials = trials
        self.remarks = remarks or Remarks()

    def header(self) -> list[str]:
        """Titles of the columns; an arrow points to where a metric is better."""
        higher = self._summary.higher_is_better
        metrics = [f"{task}/{metric} {'↑' if higher[task, metric] else '↓'}" for task, metric in higher]
        ours = ["delta_m % ↑", "mean rank ↓", "worst task", "below", "seconds", "memory MiB"]
        return ["method", *self._architecture("architecture"), *metrics, *ours]

    def cells(self, row: Row) -> list[str]:
        """A row as texts."""
        gain = row.gain
        return [
            row.method,
            *self._architecture(row.architecture),
            *(_interval(row.metrics[key], 4) for key in self._summary.higher_is_better),
            "-" if gain is None else _interval(gain.delta_m, 3, sign=True),
            f"{row.rank:.2f}",
            "-" if gain is None else f"{gain.worst} {gain.worst_delta:+.3g} %",
            "-" if gain is None else f"{gain.below} of {len({task for task, _ in row.metrics})}",
            f"{row.seconds:.1f}",
            f"{row.peak_memory_mb:.0f}",
        ]

    def notes(self) -> list[str]:
        """What the columns mean."""
        seeds, split = self.rows[0].seeds, self._summary.split
        tuned = (
            f"the best of {self.trials} trials by validation"
            if self.trials > 1
            else "untuned, as the config has it"
        )
        if any(row.gain is not None for row in self.rows):
            baseline = "delta_m: mean gain over the single-task models in percent, positive is good."
        else:
            baseline = f"No delta_m: {self._summary.undefined or 'no single-task models were trained.'}"
        return [
            f"Mean and 95 % t interval over {seeds} seed{'s' * (seeds > 1)} on the {split} split at the last "
            f"epoch; every method and baseline {tuned}.",
            baseline,
            "Tests: seed-paired t against the plain sum, p corrected by Holm over all tests; intervals are "
            "not corrected. below: tasks worse than their single-task model. Time and memory: one training.",
        ]

    def sentences(self) -> list[tuple[str, str]]:
        """A name and a sentence for each row."""
        return [
            ("-".join([row.method, *self._architecture(row.architecture)]), verdict(row, self.trials))
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
                f"{name} p": math.nan if test is None else test.p,
                f"{name} detectable": math.nan if test is None else test.paired.detectable,
            }
        gain = row.gain
        return found | {
            "delta_m": math.nan if gain is None else gain.delta_m.mean,
            "delta_m half": math.nan if gain is None else gain.delta_m.half,
            "mean rank": row.rank,
            "worst task": "" if gain is None else gain.worst,
            "worst delta": math.nan if gain is None else gain.worst_delta,
            "tasks below": "" if gain is None else gain.below,
            "seconds": row.seconds,
            "peak_memory_mb": row.peak_memory_mb,
            "verdict": verdict(row, self.trials),
        }

    def _architecture(self, name: str) -> list[str]:
        return [name] if len({row.architecture for row in self.rows}) > 1 else []


def write_table(table: Table, folder: Path) -> None:
    """Write ``table.csv`` and ``table.md``.

    Args:
        table: The table.
        folder: The comparison's folder.
    """
    for name, text in ((CSV, table.csv()), (MARKDOWN, table.markdown())):
        part = folder / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)


def _interval(interval: Interval, digits: int, sign: bool = False) -> str:
    mean = f"{interval.mean:{'+' if sign else ''}.{digits}g}"
    return mean if math.isnan(interval.half) else f"{mean} ± {interval.half:.2g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
