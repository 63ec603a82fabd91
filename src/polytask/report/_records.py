"""What a run has written down: its metrics, its config, and the tables in ``records/``."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from polytask._environment import Environment, read
from polytask._errors import UserError
from polytask.runs import CONFIG

if TYPE_CHECKING:
    from polytask.diagnostics import Affinities, Gramians, Values

Series = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps and values."""
_BROKEN = "Delete it, or copy it again"


@dataclass(frozen=True)
class RunRecords:
    """One run's records; the tables are read when they are asked for.

    Args:
        folder: The run's folder.
        metrics: A series for each key of ``metrics.csv``.
        config: The resolved config.
    """

    folder: Path
    metrics: Mapping[str, Series]
    config: Mapping[str, Any]

    @cached_property
    def tasks(self) -> list[str]:
        """All tasks that the records name, in their order."""
        keys = [key.split("/") for key in self.metrics]
        found = [words[2] for words in keys if len(words) == 4 and words[1] == "loss" and words[2] != "total"]
        for table in (*self.gradients.values(), *self.affinities.values(), self.weights, self.losses):
            found += table.tasks if table is not None else ()
        return list(dict.fromkeys(found))

    @cached_property
    def environments(self) -> list[Environment]:
        """What it was trained with: one, or more where it was resumed with something else."""
        return read(self.folder)

    @cached_property
    def gradients(self) -> "dict[str, Gramians]":
        """Gramians by group of layers."""
        if (file := self._file("gradients")) is None:
            return {}
        from polytask.diagnostics import read_gradients

        first = read_gradients(self.folder)
        others = [group for group in _distinct(file, "group") if group != first.group]
        return {first.group: first} | {group: read_gradients(self.folder, group) for group in others}

    @cached_property
    def affinities(self) -> "dict[str, Affinities]":
        """Mean affinities by form."""
        if (file := self._file("affinity")) is None:
            return {}
        from polytask.diagnostics import read_affinity

        first = read_affinity(self.folder)
        others = [form for form in _distinct(file, "form") if form != first.form]
        return {first.form: first} | {form: read_affinity(self.folder, form) for form in others}

    @cached_property
    def weights(self) -> "Values | None":
        """Weights of recorded steps."""
        if self._file("weights") is None:
            return None
        from polytask.diagnostics import read_weights

        return read_weights(self.folder)

    @cached_property
    def losses(self) -> "Values | None":
        """Losses of recorded steps."""
        if self._file("losses") is None:
            return None
        from polytask.diagnostics import read_losses

        return read_losses(self.folder)

    def _file(self, name: str) -> Path | None:
        file = self.folder / "records" / f"{name}.parquet"
        return file if file.exists() else None


def read_run(folder: Path) -> RunRecords:
    """All records of a run.

    Raises:
        UserError: Where the folder is no run, or a file is empty or damaged.
    """
    config = folder / CONFIG
    if not config.is_file():
        found = "no such folder" if not folder.is_dir() else f"no {CONFIG} in it"
        rule = "must be the folder of a run or of a comparison"
        raise UserError(str(folder), rule, found, "Name one from runs/")
    return RunRecords(folder, _read_metrics(folder / "metrics.csv"), read_yaml(config))


def read_yaml(file: Path) -> dict[str, Any]:
    """A file that holds one mapping.

    Raises:
        UserError: Where it holds something else, or cannot be read.
    """
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(str(file), "must be YAML", _first_line(error), _BROKEN) from error
    if not isinstance(found, dict):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise UserError(str(file), "must hold keys and values", kind, _BROKEN)
    return found


def _distinct(file: Path, column: str) -> list[str]:
    """The words of a column of a file that was read before."""
    with pq.ParquetFile(file) as parquet:
        words: list[str] = parquet.read(columns=[column])[column].unique().to_pylist()
    return words


def _read_metrics(file: Path) -> dict[str, Series]:
    if not file.exists():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(str(file), "must be a CSV file", _first_line(error), _BROKEN) from error
    # A training that goes on, or was killed, may have left a line unfinished.
    header, *rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [[]]
    if "step" not in header:
        found = "an empty file" if not text else ", ".join(header) or "no whole line"
        raise UserError(
            str(file), "must begin with the names of its columns, and have `step`", found, _BROKEN
        )
    place = header.index("step")
    series: dict[str, tuple[list[int], list[float]]] = {}
    for number, row in enumerate(rows, start=2):
        try:
            for key, cell in zip(header, row, strict=True):
                if cell and key not in ("epoch", "step"):
                    step, value = int(row[place]), float(cell)
                    steps, values = series.setdefault(key, ([], []))
                    steps.append(step)
                    values.append(value)
        except ValueError as error:
            rule = "must have a number for every column"
            raise UserError(f"{file}, line {number}", rule, _first_line(error), _BROKEN) from error
    return {key: (np.array(steps, np.int64), np.array(values)) for key, (steps, values) in series.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
