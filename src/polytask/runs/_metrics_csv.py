"""Reads ``metrics.csv``, as `polytask.loggers.CSVLogger` writes it."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polytask._errors import Reason, UserError, one_line

Series = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps and values."""
_FIX = "Delete it, or copy it again"


def read_logged(file: Path) -> dict[str, Series]:
    """A series for each key, in the order of the columns.

    An incomplete last line is ignored: a training is running, or was killed.

    Args:
        file: The file.

    Raises:
        UserError: If it is not such a file, or is damaged.
    """
    try:
        text = file.read_text(encoding="utf-8")
        header, *rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(str(file), "must be a CSV file", Reason.said(error), _FIX) from error
    if "step" not in header:
        found = "an empty file" if not text else ", ".join(header) or "no complete line"
        rule = "must begin with the names of its columns, and have `step`"
        raise UserError(str(file), rule, one_line(found), _FIX)
    return _series(file, header, rows)


def last_of_epochs(series: Mapping[str, Series]) -> dict[str, float]:
    """The last value of each key that is logged at epochs' ends, without its ``/epoch``.

    Example:
        >>> series = (np.array([9, 19]), np.array([0.5, 0.25]))
        >>> last_of_epochs({"val/loss/digit/epoch": series, "weights/digit": series})
        {'val/loss/digit': 0.25}
    """
    return {
        key.removesuffix("/epoch"): float(values[-1])
        for key, (_, values) in series.items()
        if key.endswith("/epoch")
    }


def _series(file: Path, header: list[str], rows: Iterable[list[str]]) -> dict[str, Series]:
    column = header.index("step")
    found: dict[str, tuple[list[np.int64], list[float]]] = {}
    for number, row in enumerate(rows, start=2):
        try:
            cells = {
                key: float(cell)
                for key, cell in zip(header, row, strict=True)
                if cell and key not in ("epoch", "step")
            }
            step = np.int64(row[column] if cells else 0)
        except (ValueError, OverflowError) as error:
            rule = "must have a number for every column"
            raise UserError(f"{file}, line {number}", rule, Reason(one_line(error)), _FIX) from error
        for key, value in cells.items():
            steps, values = found.setdefault(key, ([], []))
            steps.append(step)
            values.append(value)
    return {key: (np.array(steps, np.int64), np.array(values)) for key, (steps, values) in found.items()}
