"""A search for better values of config keys: an Optuna study whose trials are ordinary runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from polytask._errors import RunError, UserError, hint
from polytask.compare._job import Job
from polytask.compare._jobs import Report, failure
from polytask.compare._launcher import Ended, start
from polytask.compare._lock import check_kept, locked_for
from polytask.compare._measures import Measure, checked_system, last_values, measures
from polytask.compare._names import RUNS
from polytask.compare._outcome import Outcome, read_outcome
from polytask.compare._space import Drawn, Space, overrides, trial_seed
from polytask.compare._statistics import delta_by_task, delta_m
from polytask.compare._tuning import FILE as TRIALS
from polytask.compare._tuning import MetricValues, storage
from polytask.config import Config
from polytask.config._read import Plain, read_file
from polytask.experiment._problems import find_problems
from polytask.runs._metrics_csv import read_logged

FILE = "search.yaml"
ALL = "delta_m"
_SECONDS = 0.2
Epochs = list[dict[tuple[str, str], float]]


@dataclass(frozen=True)
class Trial:
    """One trial that ended.

    Attributes:
        number: Its number; 0 is the config without changes.
        drawn: Its values, by config key.
        values: Its objectives.
    """

    number: int
    drawn: Drawn
    values: Mapping[str, float]


@dataclass
class Search:
    """What is searched, and what is optimised.

    Args:
        files: The config's files, merged from left to right.
        space: By config key a list of choices, or ``low``, ``high`` and ``log``.
        trials: How many trials in all.
        objectives: ``<task>/<Metric>`` or ``<task>/loss``, on validation data; several give a Pareto front.
            By default ``delta_m``, the mean gain over the config without changes, in percent.
        prune: Whether a trial is stopped once it is worse than the median of earlier ones.
        directions: ``max`` or ``min`` by ``<task>/<Metric>``, for metrics that have no direction themselves.
        overrides: ``key=value`` strings.
        allow: Dotted names that the config may use in addition to those of the known kinds.

    Raises:
        UserError: If the config cannot be used, or an objective is unknown.

    Example:
        With the config of a project::

            space = {"system.optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
            search = Search(["config.yaml"], space, trials=30, objectives=["digit/Accuracy"])
    """

    files: Sequence[str | Path]
    space: Mapping[Any, Any]
    trials: int = 20
    objectives: Sequence[str] = ()
    prune: bool = False
    directions: Mapping[str, str] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    allow: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UserError("--trials", "must be 1 or more", self.trials)
        self._sources = [read_file(file) for file in self.files]
        self.config = self.config_of({})
        system = checked_system(self.config)
        self.measures = measures(system, "val", self.directions)
        known = {
            one.name: one
            for one in [*self.measures, *(Measure(task, "loss", False) for task in system.names)]
        }
        for name in self.objectives:
            if name not in (ALL, *known):
                fix = hint(name, [ALL, *known], "Objectives")
                if "=" in name:
                    fix = "Write overrides before --objective"
                raise UserError("--objective", f"unknown objective '{name}'", None, fix)
        self.names = tuple(self.objectives) or (ALL,)
        if len(set(self.names)) < len(self.names):
            found = ", ".join(self.names)
            raise UserError("--objective", "must not name an objective twice", found, "Leave one out")
        self.known = known
        if self.prune and len(self.names) > 1:
            raise UserError(
                "--prune", "must be used with a single objective", ", ".join(self.names), "Drop one of them"
            )
        self.own_space = Space(self.space, "--space")
        for problem in find_problems(self.config_of(self.own_space.draw(self.seed, 1))):
            raise problem

    @property
    def seed(self) -> int:
        """The config's own seed."""
        return Config(self._sources, self.overrides, self.allow).seed or 0

    @property
    def needed(self) -> list[Measure]:
        """The measures that the objectives are computed from."""
        named = [self.known[name] for name in self.names if name != ALL]
        return [*self.measures, *named] if ALL in self.names else named

    def config_of(self, drawn: Drawn) -> Config:
        """The config of a trial.

        Args:
            drawn: Its values, by key.

        Raises:
            UserError: If a key does not exist.
        """
        return Config(self._sources, [*self.overrides, *overrides(drawn)], self.allow)

    @property
    def plain(self) -> Plain:
        """The resolved definition, without the number of trials, which may grow later."""
        return {
            "config": self.config.plain,
            "space": self.own_space.given,
            "objectives": list(self.names),
            "prune": self.prune,
            "directions": dict(self.directions),
        }

    def higher(self, name: str) -> bool:
        """Whether higher values of an objective are better.

        Args:
            name: The objective.
        """
        return name == ALL or self.known[name].higher_is_better


def tune(search: Search, folder: str | Path, report: Report = lambda line: None) -> list[Trial]:
    """Run a search, or continue one that was stopped.

    The values of a trial depend on the seed, its number and the trials before it, so that a search that was
    killed and started again tries the same values.

    Args:
        search: What is searched, and what is optimised.
        folder: Where the trials' runs, ``search.yaml`` and ``trials.db`` are kept.
        report: Called with a line for each trial that ended.

    Returns:
        The best trial; for several objectives the trials of the Pareto front.

    Raises:
        UserError: If the folder belongs to another search, or a trial's config cannot be used.
        RunError: If no trial succeeds.

    Example:
        With the config of a project::

            search = Search(["config.yaml"], {"system.optimizer.lr": [0.001, 0.01]}, trials=2)
            best = tune(search, "tuning/digits", report=print)[0]
    """
    with locked_for(Path(folder), FILE, search.plain, "search"):
        found = _Study(search, Path(folder), report)
        while found.done < search.trials:
            found.try_next()
        return found.best()


class _Study:
    """A search in its folder."""

    def __init__(self, search: Search, folder: Path, report: Report) -> None:
        import optuna

        self.search, self.folder, self.report = search, folder, report
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.states = optuna.trial.TrialState
        self.samplers = optuna.samplers
        pruner = optuna.pruners.MedianPruner() if search.prune else optuna.pruners.NopPruner()
        self.study = optuna.create_study(
            storage=storage(folder / TRIALS),
            study_name="search",
            directions=["maximize" if search.higher(name) else "minimize" for name in search.names],
            load_if_exists=True,
            pruner=pruner,
        )
        for trial in self.study.get_trials(deepcopy=False, states=(self.states.RUNNING,)):
            # The run that a killed search left is resumed, as another trial of Optuna.
            self.study.tell(trial.number, state=self.states.FAIL)

    def _ended(self) -> list[Any]:
        """Optuna's trials that ended, in order, without those that a killed search left."""
        good = (self.states.COMPLETE, self.states.PRUNED)
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state in good or trial.user_attrs.get("broken")]

    @property
    def done(self) -> int:
        """How many trials ended, including those that were pruned or failed."""
        return len(self._ended())

    def try_next(self) -> None:
        """Sample the values of a trial, run it, and pass the result to Optuna."""
        number = self.done
        # A new sampler samples the same values, however many times the search was killed.
        self.study.sampler = self.samplers.TPESampler(seed=trial_seed(self.search.seed, number))
        asked = self.study.ask(self.search.own_space.distributions() if number else {})
        said = " ".join(overrides(asked.params)) or "the config"
        self.report(f"{number + 1}/{self.search.trials} {said}: {self._outcome(number, asked)}")

    def _outcome(self, number: int, asked: Any) -> str:
        """Run a trial and pass the result to Optuna; the result as text."""
        job = self._job(number, asked.params)
        reference = self._reference()
        epochs = self._run(job, reference, asked)
        if isinstance(epochs, Outcome):
            return self._failed(asked, str(epochs.error))
        if not epochs:
            self.study.tell(asked, state=self.states.PRUNED)
            return "pruned"
        values = self._objectives(epochs[-1], reference)
        said = ", ".join(f"{name}={value:.4g}" for name, value in zip(self.search.names, values, strict=True))
        if not all(map(math.isfinite, values)):
            return self._failed(asked, said)
        self.study.tell(asked, values)
        return said

    def _failed(self, asked: Any, why: str) -> str:
        asked.set_user_attr("broken", True)
        self.study.tell(asked, state=self.states.FAIL)
        return f"failed: {why}"

    def _job(self, number: int, drawn: Drawn) -> Job:
        config, run = self.folder / "configs" / f"{number}.yaml", self.folder / RUNS / str(number)
        config.parent.mkdir(exist_ok=True)
        made = self.search.config_of(drawn)
        check_kept(run, made.plain)
        made.dump(config)
        return Job("fit", run, config, self.folder / "logs" / f"{number}.log", tuple(self.search.allow))

    def _run(self, job: Job, reference: MetricValues | None, asked: Any) -> Epochs | Outcome:
        """The values by epoch, none if the trial was pruned; the outcome if it failed."""
        reported = 0
        process = None if job.is_done else start(job)
        while True:
            running = process is not None and process.is_alive()
            if process is not None:
                process.join(_SECONDS)
            epochs = self._epochs(job)
            if self.search.prune and reference is not None:
                for values in epochs[reported:]:
                    reported += 1
                    asked.report(self._objectives(values, reference)[0], reported)
                    if asked.should_prune():
                        _stop(process)
                        return []
            if not running:
                break
        outcome = Outcome("done") if process is None else read_outcome(job.outcome, process.exitcode)
        if outcome.is_run_error:
            return outcome
        if outcome.status != "done":
            raise failure(Ended(job, outcome))
        last_values(job.run, self.search.needed, "val")
        return epochs

    def _epochs(self, job: Job) -> Epochs:
        """The measures at the end of each epoch so far."""
        file = job.run / "metrics.csv"
        if not file.exists():
            return []
        logged = read_logged(file)
        found: dict[int, dict[tuple[str, str], float]] = {}
        for one in self.search.known.values():
            for step, value in zip(*logged.get(one.key("val"), ((), ())), strict=True):
                found.setdefault(int(step), {})[one.task, one.metric] = float(value)
        return [found[step] for step in sorted(found)]

    def _reference(self) -> MetricValues | None:
        """The baseline of delta_m: the values of the first trial that succeeded, None if there is none."""
        for number, trial in enumerate(self._ended()):
            if not trial.user_attrs.get("broken"):
                return self._epochs(self._job(number, trial.params))[-1]
        return None

    def _objectives(self, values: MetricValues, reference: MetricValues | None) -> list[float]:
        return [
            self._delta_m(values, values if reference is None else reference)
            if name == ALL
            else values[self.search.known[name].task, self.search.known[name].metric]
            for name in self.search.names
        ]

    def _delta_m(self, values: MetricValues, reference: MetricValues) -> float:
        for one in self.search.measures:
            if reference[one.task, one.metric] == 0:
                rule = f"the first trial must have a {one.name} other than 0"
                fix = f"Name an --objective: {', '.join(self.search.known)}"
                raise UserError(f"--objective {ALL}", rule, "0", fix)
        higher = {(one.task, one.metric): one.higher_is_better for one in self.search.measures}
        own, other = ({key: given[key] for key in higher} for given in (values, reference))
        return delta_m(delta_by_task(own, other, higher))

    def best(self) -> list[Trial]:
        """The best trial, or the Pareto front."""
        ended = {trial.number: number for number, trial in enumerate(self._ended())}
        if not any(trial.state == self.states.COMPLETE for trial in self._ended()):
            raise RunError("polytask tune", "at least one trial must succeed", "none", "Narrow the space")
        found = self.study.best_trials if len(self.search.names) > 1 else self.study.best_trials[:1]
        return [
            Trial(ended[one.number], dict(one.params), dict(zip(self.search.names, one.values, strict=True)))
            for one in found
        ]


def _stop(process: ForkServerProcess | None) -> None:
    if process is not None:
        process.terminate()
        process.join()
