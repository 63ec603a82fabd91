"""A Lightning logger that writes a CSV file, which a resumed run continues."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger

from polytask._files import write_text

CSVRow = dict[str, str]


class CSVLogger(Logger):
    """Writes ``metrics.csv`` into a folder, one row for each call, at once.

    The columns are ``epoch``, ``step`` and the metrics in the order of their first values. A new metric adds
    a column, for which the file is replaced. An incomplete last line, of a killed run, is removed.

    If the file exists, the run is resumed: the rows after the first step that is logged are removed, and a
    row of that step is replaced when its metrics are logged again. The file of a resumed run is then equal to
    that of a run that was never stopped.

    Args:
        save_dir: The folder; created if it does not exist.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> CSVLogger(folder).log_metrics({"loss": 0.5}, step=9)
        >>> resumed = CSVLogger(folder)
        >>> resumed.log_metrics({"loss": 0.25, "epoch": 1}, step=19)
        >>> print(resumed.path.read_text(), end="")
        epoch,step,loss
        ,9,0.5
        1,19,0.25
    """

    def __init__(self, save_dir: str | os.PathLike[str]) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._columns: list[str] | None = None
        self._boundary = -1

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder / "metrics.csv"

    @property
    def save_dir(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def log_dir(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def name(self) -> str:
        """Empty: experiments have no folders."""
        return ""

    @property
    def version(self) -> str:
        """Empty: versions have no folders."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Ignore them: the file has metrics only."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row.

        Args:
            metrics: Values by name; ``epoch`` has its own column.
            step: The optimizer step, from 0.
        """
        row = {"step": str(step if step is not None else 0)}
        row |= {
            key: str(float(value)) if key != "epoch" else str(int(value)) for key, value in metrics.items()
        }
        if self._columns is None:
            self._open(int(row["step"]))
        if int(row["step"]) == self._boundary:
            self._replace(row)
        elif new := [key for key in row if key not in self._known]:
            _, rows = _read(self.path)
            self._write([*self._known, *new], [*rows, row])
        else:
            with self.path.open("a", newline="") as file:
                file.write(_lines(self._known, [row]))

    @property
    def _known(self) -> list[str]:
        return self._columns or []

    def _open(self, step: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        columns, rows = _read(self.path) if self.path.exists() else (["epoch", "step"], [])
        kept = [row for row in rows if int(row["step"]) <= step]
        self._boundary = step if kept and int(kept[-1]["step"]) == step else -1
        self._write(columns, kept)

    def _replace(self, row: CSVRow) -> None:
        columns, rows = _read(self.path)
        same = [old for old in rows if old["step"] == row["step"] and _filled(old) == set(row)]
        rows = [old for old in rows if old not in same]
        self._write([*columns, *(key for key in row if key not in columns)], [*rows, row])

    def _write(self, columns: list[str], rows: list[CSVRow]) -> None:
        write_text(self.path, _lines(columns, [dict(zip(columns, columns, strict=True)), *rows]))
        self._columns = columns


def _filled(row: CSVRow) -> set[str]:
    return {key for key, value in row.items() if value}


def _lines(columns: list[str], rows: list[CSVRow]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()


def _read(path: Path) -> tuple[list[str], list[CSVRow]]:
    """The columns and rows of the file, without an incomplete last line."""
    text = path.read_text()
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    return list(reader.fieldnames or ["epoch", "step"]), list(reader)
