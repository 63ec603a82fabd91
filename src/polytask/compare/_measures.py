"""Which metrics a comparison uses, and which direction is better."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchmetrics import Metric

from polytask._errors import RunError, UserError, hint
from polytask.config import Config
from polytask.experiment._builders import make_system
from polytask.experiment._problems import find_problems
from polytask.metrics._keys import entries
from polytask.runs._metrics_csv import read_logged
from polytask.system import System

_BETTER = {"max": True, "min": False}
_ONE = "each metric must give one number"


@dataclass(frozen=True)
class Measure:
    """One metric of one task.

    Attributes:
        task: The task.
        metric: The metric's name in log keys; ``loss`` for a task without metrics.
        higher_is_better: Whether higher values are better.
    """

    task: str
    metric: str
    higher_is_better: bool

    @property
    def name(self) -> str:
        """``<task>/<Metric>``."""
        return f"{self.task}/{self.metric}"

    def key(self, stage: str) -> str:
        """The log key of a stage's epoch.

        Example:
            >>> Measure("digit", "Accuracy", True).key("val")
            'val/digit/Accuracy/epoch'
        """
        if self.metric == "loss":
            return f"{stage}/loss/{self.task}/epoch"
        return f"{stage}/{self.task}/{self.metric}/epoch"


def checked_system(config: Config) -> System:
    """The system of a config whose runs can be measured.

    Args:
        config: The config.

    Raises:
        UserError: If the config has a problem, no validation data, or its own loggers.
    """
    for problem in find_problems(config):
        raise problem
    plain = config.plain
    if (plain["system"].get("dataloaders") or {}).get("val") is None:
        raise UserError(
            "system.dataloaders.val", "is required, because trials are chosen by validation data", "none"
        )
    _check_validates(plain["trainer"])
    check_logger(config)
    return make_system(config, {})


def _check_validates(trainer: Mapping[str, Any]) -> None:
    """Whether a run computes validation metrics before it ends, as far as the config shows."""
    rule = "a run must compute validation metrics"
    if trainer.get("limit_val_batches") == 0:
        raise UserError("trainer.limit_val_batches", rule, "0", "Leave it out")
    epochs, every = trainer.get("max_epochs"), trainer.get("check_val_every_n_epoch")
    if isinstance(epochs, int) and isinstance(every, int) and 0 <= epochs < every:
        found = f"{every} with {epochs} epochs"
        raise UserError("trainer.check_val_every_n_epoch", rule, found, f"Write {epochs} at most")


def check_logger(config: Config) -> None:
    """Check that the runs of a config write ``metrics.csv``.

    Args:
        config: The config.

    Raises:
        UserError: If it has its own loggers.
    """
    logger = config.plain["trainer"].get("logger")
    if logger not in (None, True):
        rule = "must not be set, because the comparison reads the default logger's metrics.csv"
        raise UserError("trainer.logger", rule, repr(logger), "Leave it out, or write trainer.logger=null")


def measures(system: System, stage: str, directions: Mapping[str, str] | None = None) -> list[Measure]:
    """The metrics of each task in a stage, or its loss if it has none.

    Args:
        system: The System of the config.
        stage: ``val`` or ``test``.
        directions: ``max`` or ``min`` by ``<task>/<Metric>``, for metrics that have no direction themselves.

    Raises:
        UserError: If the better direction of a metric is unknown, or a direction is for no metric.
    """
    given = dict(directions or {})
    for name, direction in given.items():
        if direction not in _BETTER:
            raise UserError(f"--direction {name}", "must be 'max' or 'min'", repr(direction))
    found = []
    for task in system.names:
        known = _known(system, stage, task)
        for metric, higher in known.items():
            name = f"{task}/{metric}"
            better = _BETTER[given.pop(name)] if name in given else higher
            if better is None:
                rule = f"the better direction of '{metric}' must be given"
                fix = f"Write --direction {name}=max or --direction {name}=min"
                raise UserError(f"metrics.{task}", rule, "none", fix)
            found.append(Measure(task, metric, better))
        if not known:
            found.append(Measure(task, "loss", False))
    for name in given:
        names = [measure.name for measure in found]
        raise UserError("--direction", f"unknown metric '{name}'", None, hint(name, names, "Metrics"))
    return found


def _known(system: System, stage: str, task: str) -> dict[str, bool | None]:
    """Each number that a task's metrics log, and whether higher is better, if the metric says so."""
    by_task = system.record.of(stage).by_task
    if by_task is None or task not in by_task:
        return {}
    return {
        name.removeprefix("metric_") + entry: metric.higher_is_better
        for name, metric in by_task[task].named_children()
        if isinstance(metric, Metric)
        for entry in entries(metric)
    }


def last_values(run: Path, found: Sequence[Measure], stage: str) -> dict[tuple[str, str], float]:
    """The last value of each measure of a run.

    Args:
        run: The run's folder.
        found: The measures.
        stage: ``val`` or ``test``.

    Raises:
        UserError: If its ``metrics.csv`` is missing or damaged.
        RunError: If one was never logged.
    """
    file = run / ("test/metrics.csv" if stage == "test" else "metrics.csv")
    try:
        logged = {key: values[-1] for key, (_, values) in read_logged(file).items()}
    except UserError as error:
        raise error.at(error.where, f"Delete {run} to train again") from error
    for measure in found:
        if measure.key(stage) not in logged:
            _check_single(measure, stage, logged, file)
            fix = hint(measure.key(stage), logged, "Logged")
            raise RunError(str(file), _ONE, f"no {measure.key(stage)}", fix)
    return {(measure.task, measure.metric): float(logged[measure.key(stage)]) for measure in found}


def check_single(run: Path, found: Sequence[Measure]) -> None:
    """Raise if a metric gave several numbers, for which the table has no column.

    Args:
        run: The folder of a run that ended.
        found: The measures.

    Raises:
        UserError: If its ``metrics.csv`` is damaged.
        RunError: With the metric's numbers.
    """
    file = run / "metrics.csv"
    logged = read_logged(file) if file.exists() else {}
    for measure in found:
        _check_single(measure, "val", logged, file)


def _check_single(measure: Measure, stage: str, logged: Collection[str], file: Path) -> None:
    key = measure.key(stage)
    several = [other for other in logged if other.startswith(f"{key.removesuffix('/epoch')}_")]
    if measure.metric != "loss" and key not in logged and several:
        found = f"no {key}, but {', '.join(several)}"
        raise RunError(str(file), _ONE, found, "Use a metric that gives one number")
