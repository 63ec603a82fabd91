"""A comparison's definition, its folder, and the config of each of its runs."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polytask._checks import is_finite
from polytask._errors import UserError
from polytask.compare._candidates import (
    BASE,
    SPACE,
    Candidate,
    architecture_changes,
    by_name,
    candidates,
    check_monitors,
    check_tunable,
    method_changes,
    one_task,
)
from polytask.compare._lock import locked_for
from polytask.compare._measures import Measure, check_logger, checked_system, measures
from polytask.compare._names import DEFINITION
from polytask.compare._space import Drawn, Space, overrides
from polytask.config import Config
from polytask.config._read import Plain, Source, read_file
from polytask.experiment._problems import find_problems

_NO_TRIALS = ("must be used with several trials", "--trials 1", "Write for example --trials 8")
# A run does not depend on the other runs.
_FREE = ("seeds", "single_task")
_GROWING = ("methods", "architectures")


@dataclass
class Comparison:
    """Methods, baselines and architectures that are trained on one config, with several seeds.

    Args:
        files: The config's files, merged from left to right.
        methods: Names of weightings, or YAML files of overrides.
        architectures: YAML files of overrides; ``base`` is the config's own model.
        seeds: How many seeds, from the config's own on.
        trials: How many settings are tried for each method and baseline; 1 is the config's own.
        single_task: Whether single-task models are trained.
        space: What is tuned, as for `Space`; by default the learning rate.
        directions: ``max`` or ``min`` by ``<task>/<Metric>``, for metrics that have no direction themselves.
        overrides: ``key=value`` strings for the config; methods and architectures are merged over it.
        allow: Dotted names that the config may use in addition to those of the known kinds.

    Attributes:
        config: The config, merged.
        tasks: Task names, in order.
        measures: Which metrics are compared, and which direction is better.
        split: The data that the table is computed on: ``test``, or ``val`` if there are no test data.
        candidates: The rows of the table, each with the changes that it makes to the config.

    Raises:
        UserError: If a name is unknown, a number is too small or the config cannot be used.

    Example:
        With the config of a project::

            comparison = Comparison(["config.yaml"], methods=["uw", "pcgrad"], seeds=5, single_task=True)
            print(compare(comparison, "comparisons/digits").markdown())
    """

    files: Sequence[str | Path]
    methods: Sequence[str]
    architectures: Sequence[str] = (BASE,)
    seeds: int = 3
    trials: int = 1
    single_task: bool = False
    space: Mapping[Any, Any] | None = None
    directions: Mapping[str, str] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    allow: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, number in (("--seeds", self.seeds), ("--trials", self.trials)):
            if number < 1:
                raise UserError(name, "must be 1 or more", number)
        if self.space is not None:
            if self.trials == 1:
                raise UserError("--space", *_NO_TRIALS)
            check_tunable(Space(self.space, "--space"), "--space")
        self.config = Config([read_file(file) for file in self.files], self.overrides, self.allow)
        system = checked_system(self.config)
        self._check_criterion()
        self.tasks = system.names
        loaders = self.config.plain["system"].get("dataloaders") or {}
        self.split = "test" if loaders.get("test") is not None else "val"
        self.measures: list[Measure] = measures(system, "val", self.directions)
        if self.split == "test" and measures(system, "test", self.directions) != self.measures:
            raise UserError("system.metrics", "must be the same for val and test in a comparison", "others")
        self._methods = by_name(map(method_changes, self.methods), "--methods")
        self._architectures = by_name(map(architecture_changes, self.architectures), "--architectures")
        self.candidates = candidates(self.tasks, self._methods, self._architectures, self.single_task)
        for candidate in self.candidates:
            self._check(candidate, {})
            self._check_space(candidate)

    def _check_space(self, candidate: Candidate) -> None:
        own = candidate.space()
        if self.trials == 1:
            if own is not None:
                raise UserError(f"{candidate.name} {SPACE}", *_NO_TRIALS)
            return
        try:
            self._check(candidate, self.space_of(candidate).draw(self.first_seed, 1))
        except UserError as error:
            if self.space is None or own is not None:
                raise
            raise error.at(f"--space: {error.where}") from error

    def _check(self, candidate: Candidate, drawn: Drawn) -> None:
        config = self.config_of(candidate, self.first_seed, drawn)
        try:
            for problem in find_problems(config):
                raise problem
            check_logger(config)
            if candidate.task is not None:
                check_monitors(config.plain, candidate.task)
        except UserError as error:
            # A key that its own changes set is named with it already.
            named = error.where.startswith(f"{candidate.name} ")
            raise (error if named else error.at(f"{candidate.name}: {error.where}")) from error

    def _check_criterion(self) -> None:
        criterion = self.config.plain["system"].get("criterion")
        target = criterion.get("_target_", "") if isinstance(criterion, dict) else repr(criterion)
        if isinstance(criterion, dict) and "task_losses" in criterion:
            return
        rule = "must be a MultiTaskLoss, whose weighting the comparison sets"
        fix = "Write _target_: polytask.losses.MultiTaskLoss with task_losses"
        raise UserError("system.criterion", rule, target, fix)

    @property
    def first_seed(self) -> int:
        """The config's own seed."""
        return self.config.seed or 0

    @property
    def all_seeds(self) -> range:
        """The seeds of the runs that are compared."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def tuning_seed(self) -> int:
        """The seed of the tuning runs; it differs from those of the runs that are compared."""
        return self.first_seed + 1_000_000

    def space_of(self, candidate: Candidate) -> Space:
        """What is tuned for a candidate: the space of all, what its files add, and the plain sum's weights.

        Args:
            candidate: One of ``candidates``.

        Raises:
            UserError: If no space is given and the config has no learning rate at ``optimizer.lr``.
        """
        own = Space(self.space, "--space") if self.space is not None else self._learning_rates()
        own |= candidate.space()
        if candidate.kind != "plain_sum":
            return own
        # The weight of the first task stays 1: tuning all of them would tune the learning rate again.
        weights = (f"system.criterion.weighting.weights.{task}" for task in self.tasks[1:])
        return Space({**own.given, **{key: {"low": 0.1, "high": 10.0, "log": True} for key in weights}})

    def _learning_rates(self) -> Space:
        optimizer = self.config.plain["system"].get("optimizer")
        rate = optimizer.get("lr") if isinstance(optimizer, dict) else None
        if not is_finite(rate) or rate <= 0:
            rule = "without --space, must be a learning rate above 0 to tune around"
            raise UserError("system.optimizer.lr", rule, repr(rate), "Write a --space file")
        return Space({"system.optimizer.lr": {"low": rate / 10.0, "high": rate * 10.0, "log": True}})

    def config_of(self, candidate: Candidate, seed: int, drawn: Drawn | None = None) -> Config:
        """The config of a run.

        Args:
            candidate: One of ``candidates``.
            seed: The run's seed.
            drawn: The values of a trial, by key.
        """
        strings = [*overrides(drawn or {}), f"seed={seed}"]
        sources = [self.config.merged, *candidate.sources()]
        made = Config(sources, strings, self.allow)
        if candidate.task is None:
            return made
        callbacks = one_task(candidate.task, made.plain["trainer"].get("callbacks"))
        sources += [Source(candidate.name, {"trainer": {"callbacks": value}}) for value in callbacks]
        return Config(sources, strings, self.allow)

    @property
    def plain(self) -> Plain:
        """The resolved definition."""
        return {
            "config": self.config.plain,
            "methods": {name: list(changes) for name, changes in self._methods.items()},
            "architectures": {name: list(changes) for name, changes in self._architectures.items()},
            "seeds": list(self.all_seeds),
            "trials": self.trials,
            "single_task": self.single_task,
            "space": None if self.space is None else Space(self.space, "--space").given,
            "directions": dict(self.directions),
        }

    def locked(self, folder: Path) -> AbstractContextManager[None]:
        """Lock the comparison's folder, and write into it what is compared.

        Args:
            folder: A new folder, or one in which this comparison was begun.

        Raises:
            UserError: If it belongs to another comparison, or another process uses it.
        """
        return locked_for(folder, DEFINITION, self.plain, "comparison", _FREE, _GROWING)
