"""What a run has written down: its metrics, its config, and the tables in ``records/``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from polytask._errors import UserError, one_line
from polytask.runs import CONFIG
from polytask.runs._environment import Environment, read
from polytask.runs._metrics_csv import Series, last_of_epochs, read_logged

if TYPE_CHECKING:
    from polytask.diagnostics import Affinities, Gramians, Values

METRICS = "metrics.csv"
RECORDS = "records"
_BROKEN = "Delete it, or copy it again"
# The parser's own errors, and those that it lets through from dates, numbers and depths.
_NO_YAML = (yaml.YAMLError, OSError, ValueError, LookupError, AttributeError, RecursionError)
_DEEPEST = 64
_MOST = 100_000


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
        """What it was trained with: one, or more where it was resumed with something else."""
        return read(self.folder)

    @cached_property
    def gradients(self) -> "dict[str, Gramians]":
        """Gramians by group of layers."""
        if not self._has("gradients"):
            return {}
        from polytask.diagnostics._read import gradients_by_group

        return gradients_by_group(self.folder)

    @cached_property
    def affinities(self) -> "dict[str, Affinities]":
        """Mean affinities by form."""
        if not self._has("affinity"):
            return {}
        from polytask.diagnostics._read import affinities_by_form

        return affinities_by_form(self.folder)

    @cached_property
    def weights(self) -> "dict[str, Values]":
        """Weights of recorded steps, ``effective`` and the weighting's ``own``."""
        if not self._has("weights"):
            return {}
        from polytask.diagnostics._read import weights_by_kind

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
        UserError: Where the folder is no run, or a file is empty or damaged.
    """
    config = folder / CONFIG
    if not config.is_file():
        found = "no such folder" if not folder.is_dir() else f"no {CONFIG} in it"
        rule = "must be the folder of a run or of a comparison"
        raise UserError(str(folder), rule, found, "Name one from runs/")
    metrics = folder / METRICS
    return RunRecords(folder, read_logged(metrics) if metrics.exists() else {}, read_yaml(config))


def read_yaml(file: Path) -> dict[str, Any]:
    """A file that holds one mapping.

    Raises:
        UserError: Where it holds something else, or cannot be read.
    """
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except _NO_YAML as error:
        raise UserError(str(file), "must be YAML", one_line(error), _BROKEN) from error
    if not isinstance(found, dict):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise UserError(str(file), "must hold keys and values", kind, _BROKEN)
    if _endless(found):
        rule = f"must hold at most {_MOST} values, within {_DEEPEST} levels"
        raise UserError(str(file), rule, "more, or a value that holds itself", _BROKEN)
    return found


def _endless(value: Any) -> bool:
    """Whether there is no end to the values; a value that stands in many places counts in each."""
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
