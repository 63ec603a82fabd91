"""``results.parquet``: one row for each number of each run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow
import pyarrow.parquet

from polytask._errors import UserError, one_line
from polytask._files import replacing
from polytask.compare._names import RESULTS, Kind

_AGAIN = "Run `polytask compare` again"
_SCHEMA = pyarrow.schema(
    [
        ("method", pyarrow.string()),
        ("architecture", pyarrow.string()),
        ("kind", pyarrow.string()),
        ("seed", pyarrow.int64()),
        ("task", pyarrow.string()),
        ("metric", pyarrow.string()),
        ("value", pyarrow.float64()),
        ("higher_is_better", pyarrow.bool_()),
        ("split", pyarrow.string()),
        ("seconds", pyarrow.float64()),
        ("peak_memory_mb", pyarrow.float64()),
        ("run", pyarrow.string()),
    ]
)


@dataclass(frozen=True)
class Result:
    """One number of one run.

    Attributes:
        method: The method of the row.
        architecture: The model's name.
        kind: ``method``, ``single_task`` or ``plain_sum``.
        seed: The run's seed.
        task: The task.
        metric: The metric's name; ``loss`` for a task without metrics.
        value: The metric at the end of the run's last epoch.
        higher_is_better: Whether higher values are better.
        split: ``val`` or ``test``.
        seconds: Wall time of the training.
        peak_memory_mb: Peak memory of the training in MiB: of the device, or of the process if there is none.
        run: The run's folder, relative to the comparison's.
    """

    method: str
    architecture: str
    kind: Kind
    seed: int
    task: str
    metric: str
    value: float
    higher_is_better: bool
    split: Literal["val", "test"]
    seconds: float
    peak_memory_mb: float
    run: str


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """Write a comparison's results, and replace earlier ones.

    Args:
        folder: The comparison's folder.
        results: All of them.
    """
    rows = pyarrow.Table.from_pylist([asdict(result) for result in results], schema=_SCHEMA)
    with replacing(folder / RESULTS) as part:
        pyarrow.parquet.write_table(rows, part)


def read_results(folder: str | Path) -> list[Result]:
    """The results of a comparison.

    Args:
        folder: The comparison's folder.

    Raises:
        UserError: If there are none, or the file is damaged, has another schema or empty cells.

    Example:
        With the folder of a finished comparison::

            results = read_results("comparisons/digits")
            max(results, key=lambda one: one.value).method
    """
    file = Path(folder) / RESULTS
    if not file.is_file():
        raise UserError(
            str(file),
            "must be in a finished comparison's folder",
            "no such file",
            "Run `polytask compare` to its end",
        )
    try:
        rows = pyarrow.parquet.read_table(file)
        unlike = _unlike(rows)
        results = [] if unlike else [Result(**row) for row in rows.to_pylist()]
    # A damaged file may also contain bytes that are not UTF-8, which is a ValueError.
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        found = one_line(error)
        raise UserError(str(file), "must be a Parquet file", found, _AGAIN) from error
    if unlike:
        raise UserError(str(file), "must have the columns of a comparison", unlike, _AGAIN)
    return results


def _unlike(rows: pyarrow.Table) -> str | None:
    """How a file differs from `_SCHEMA`; None if it does not."""
    missing = [name for name in _SCHEMA.names if name not in rows.schema.names]
    if missing:
        return f"no column {missing[0]}"
    if not rows.schema.equals(_SCHEMA):
        return "columns of other types, or more of them"
    empty = [name for name in _SCHEMA.names if rows[name].null_count]
    return f"empty cells in column {empty[0]}" if empty else None
