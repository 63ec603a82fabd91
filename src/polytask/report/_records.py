"""What a run has written down: its metrics, its config, and the tables in ``records/``."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from polytask._errors import UserError
from polytask.runs import CONFIG

Series = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps and values."""
Table = dict[str, NDArray[Any]]
"""Columns by name."""

COLUMNS = {
    "gradients": ("step", "group", "task", "other", "inner"),
    "weights": ("step", "task", "weight"),
    "losses": ("step", "task", "loss"),
    "affinity": ("step", "form", "task", "other", "affinity"),
}
"""The record files of a run, and the columns that the page reads."""
_INTEGERS = {"step", "seed"}
_NUMBERS = {"inner", "weight", "loss", "affinity", "value", "higher_is_better"}
_BROKEN = "Delete it, or copy it again"


@dataclass(frozen=True)
class RunRecords:
    """One run's records.

    Args:
        folder: The run's folder.
        metrics: A series for each key of ``metrics.csv``.
        tables: The record files that are there, by name.
        config: The resolved config.
    """

    folder: Path
    metrics: Mapping[str, Series]
    tables: Mapping[str, Table]
    config: Mapping[str, Any]

    @property
    def tasks(self) -> list[str]:
        """All tasks that the records name, in their order."""
        keys = [key.split("/") for key in self.metrics]
        found = [words[2] for words in keys if len(words) == 4 and words[1] == "loss" and words[2] != "total"]
        for table in self.tables.values():
            found += [str(name) for column in ("task", "other") if column in table for name in table[column]]
        return list(dict.fromkeys(found))


def read_run(folder: Path) -> RunRecords:
    """All records of a run.

    Raises:
        UserError: Where the folder is no run, or a file is empty or damaged.
    """
    config = folder / CONFIG
    if not config.is_file():
        found = "no such folder" if not folder.is_dir() else f"no {CONFIG} in it"
        raise UserError(
            str(folder), "must be the folder of a run or of a comparison", found, "Name one from runs/"
        )
    tables = {
        name: read_table(file, columns)
        for name, columns in COLUMNS.items()
        if (file := folder / "records" / f"{name}.parquet").exists()
    }
    return RunRecords(folder, _read_metrics(folder / "metrics.csv"), tables, read_yaml(config))


def read_yaml(file: Path) -> dict[str, Any]:
    """A file that holds one mapping.

    Raises:
        UserError: Where it holds something else, or cannot be read.
    """
    try:
        found = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(str(file), "must be YAML", _first_line(error), _BROKEN) from error
    if not isinstance(found, dict):
        raise UserError(str(file), "must hold keys and values", _kind(found), _BROKEN)
    return found


def read_table(file: Path, columns: tuple[str, ...]) -> Table:
    """A Parquet file's columns.

    Raises:
        UserError: Where it is empty or damaged, or lacks a column.
    """
    if not file.stat().st_size:
        raise UserError(str(file), "must be a Parquet file", "an empty file", _BROKEN)
    try:
        # ParquetFile reads this one file; read_table would take `name=value` folders for columns.
        with pq.ParquetFile(file) as parquet:
            missing = sorted({*columns} - {*parquet.schema_arrow.names})
            if missing:
                raise UserError(str(file), f"needs the columns {', '.join(columns)}", f"no {missing[0]}")
            table = parquet.read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise UserError(str(file), "must be a Parquet file", _first_line(error), _BROKEN) from error
    return {name: _array(table[name], file, name) for name in columns}


def _array(column: Any, file: Path, name: str) -> NDArray[Any]:
    kind = pa.int64() if name in _INTEGERS else pa.float64() if name in _NUMBERS else pa.string()
    try:
        values = column.cast(kind)
    except pa.ArrowException as error:
        raise UserError(str(file), f"{name} must be {kind}", column.type) from error
    if values.null_count and kind != pa.float64():
        raise UserError(
            str(file), f"{name} must be in every row", f"{values.null_count} rows without", _BROKEN
        )
    array: NDArray[Any] = values.to_numpy()
    return array


def _read_metrics(file: Path) -> dict[str, Series]:
    if not file.exists():
        return {}
    try:
        text = file.read_text()
    except UnicodeDecodeError as error:
        raise UserError(str(file), "must be a CSV file", _first_line(error), _BROKEN) from error
    # A training that goes on, or was killed, may have left a line unfinished.
    header, *rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [[]]
    if "step" not in header:
        found = (
            "an empty file" if not text else f"the columns {', '.join(header)}" if header else "no whole line"
        )
        raise UserError(str(file), "must begin with a line of columns, with `step`", found, _BROKEN)
    place = header.index("step")
    series: dict[str, tuple[list[int], list[float]]] = {}
    for number, row in enumerate(rows, start=2):
        try:
            for key, cell in zip(header, row, strict=True):
                if cell and key not in ("epoch", "step"):
                    steps, values = series.setdefault(key, ([], []))
                    values.append(float(cell))
                    steps.append(int(row[place]))
        except ValueError as error:
            raise UserError(
                f"{file}, line {number}", "must have a number in every column", error, _BROKEN
            ) from error
    return {key: (np.array(steps, np.int64), np.array(values)) for key, (steps, values) in series.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
