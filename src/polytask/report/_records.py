"""The records of a run: its metrics, its config, and the tables in ``records/``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from polytask._errors import Reason, UserError
from polytask.runs import CONFIG
from polytask.runs._environment import Environment, read
from polytask.runs._metrics_csv import Series, last_of_epochs, read_logged

if TYPE_CHECKING:
    from polytask.diagnostics import Affinities, Gramians, Values

METRICS = "metrics.csv"
RECORDS = "records"
_BROKEN = "Delete it, or copy it again"
# The parser's errors, and those of dates, numbers and nesting that it does not convert.
_NO_YAML = (yaml.YAMLError, OSError, ValueError, LookupError, AttributeError, RecursionError)
_DEEPEST = 64
_MOST = 100_000


@dataclass(frozen=True)
class RunRecords:
    """One run's records; the tables are read when they are first used.

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
        """All tasks in the records, in order."""
        keys = [key.split("/") for key in self.metrics]
        found = [parts[2] for parts in keys if len(parts) == 4 and parts[1] == "loss" and parts[2] != "total"]
        tables = (*self.gradients.values(), *self.affinities.values(), *self.weights.values(), self.losses)
        for table in tables:
            found += table.tasks if table is not None else ()
        return list(dict.fromkeys(found))

    @cached_property
    def last(self) -> dict[str, float]:
        """The last value of each key that is logged at epochs' ends: ``val/loss/digit``."""
        return last_of_epochs(self.metrics)

    @cached_property
    def environments(self) -> list[Environment]:
        """The environments in which it was trained: several if it was resumed in another one."""
        return read(self.folder)

    @cached_property
    def gradients(self) -> "dict[str, Gramians]":
        """Gramians by group of layers."""
        if not self._has("gradients"):
            return {}
        from polytask.diagnostics._readers import gradients_by_group

        return gradients_by_group(self.folder)

    @cached_property
    def affinities(self) -> "dict[str, Affinities]":
        """Mean affinities by form."""
        if not self._has("affinity"):
            return {}
        from polytask.diagnostics._readers import affinities_by_form

        return affinities_by_form(self.folder)

    @cached_property
    def weights(self) -> "dict[str, Values]":
        """Weights of recorded steps: ``effective``, and ``own`` of the weighting."""
        if not self._has("weights"):
            return {}
        from polytask.diagnostics._readers import weights_by_kind

        return weights_by_kind(self.folder)

    @cached_property
    def losses(self) -> "Values | None":
        """Losses of recorded steps."""
        if not self._has("losses"):
            return None
        from polytask.diagnostics import read_losses

        return read_losses(self.folder)

    def _has(self, name: str) -> bool:
        return (self.folder / RECORDS / f"{name}.parquet").exists()


def read_run(folder: Path) -> RunRecords:
    """All records of a run.

    Raises:
        UserError: If the folder is not a run, or a file is empty or damaged.
    """
    config = folder / CONFIG
    if not config.is_file():
        found = "no such folder" if not folder.is_dir() else f"no {CONFIG} in it"
        rule = "must be the folder of a run or of a comparison"
        raise UserError(str(folder), rule, found, "Name one from runs/")
    metrics = folder / METRICS
    return RunRecords(folder, read_logged(metrics) if metrics.exists() else {}, read_yaml(config))


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        UserError: If it holds anything else, or cannot be read.
    """
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except _NO_YAML as error:
        raise UserError(str(file), "must be YAML", Reason.said(error), _BROKEN) from error
    if not isinstance(found, dict):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise UserError(str(file), "must contain a mapping", kind, _BROKEN)
    if _endless(found):
        rule = f"must contain at most {_MOST} values, within {_DEEPEST} levels"
        raise UserError(str(file), rule, "more, or a value that contains itself", _BROKEN)
    return found


def _endless(value: Any) -> bool:
    """Whether there are too many values, counting a value once for each reference to it."""
    level, count = [value], 1
    for _ in range(_DEEPEST):
        level = [part for one in level for part in _parts(one)]
        count += len(level)
        if not level or count > _MOST:
            break
    return bool(level)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
