"""Trials of every method and baseline, the same number for each, and the best by validation metrics."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polytask._errors import UserError
from polytask.compare._measures import Measure
from polytask.compare._space import Drawn, Space
from polytask.compare._statistics import delta_by_task, delta_m

FILE = "trials.db"
MetricValues = Mapping[tuple[str, str], float]


def draw(space: Space, seed: int, trial: int) -> Drawn:
    """The values of a trial; none for the first, which is the config without changes.

    Args:
        space: What is tuned.
        seed: The comparison's seed.
        trial: The trial's number, from 0.

    Example:
        >>> draw(Space({"system.optimizer.lr": [0.1]}), 0, 0)
        {}
    """
    return space.draw(seed, trial) if trial else {}


def scores(trials: Mapping[int, MetricValues], measures: Sequence[Measure]) -> dict[int, float]:
    """The mean gain of each trial over the first that succeeded in percent: its delta_m on validation data.

    If a metric is 0 in that trial, its gain is over the first trial in which it is not; a metric that is 0 in
    every trial is left out. A trial with a metric that is not finite has no score.

    Args:
        trials: Validation metrics by trial, without trials that failed.
        measures: Which metrics count, and which direction is better.

    Example:
        >>> rate = [Measure("a", "Accuracy", True)]
        >>> scores({0: {("a", "Accuracy"): 0.5}, 2: {("a", "Accuracy"): 0.75}}, rate)
        {0: 0.0, 2: 50.0}
    """
    higher = {(measure.task, measure.metric): measure.higher_is_better for measure in measures}
    ended = {trial: {key: values[key] for key in higher} for trial, values in trials.items()}
    finite = {trial: values for trial, values in ended.items() if all(map(math.isfinite, values.values()))}
    ordered = [values for _, values in sorted(finite.items())]
    first = {key: next((values[key] for values in ordered if values[key]), 0.0) for key in higher}
    nonzero = {key: value for key, value in first.items() if value}
    if not nonzero:
        return dict.fromkeys(finite, 0.0)
    return {
        trial: delta_m(delta_by_task({key: values[key] for key in nonzero}, nonzero, higher))
        for trial, values in finite.items()
    }


def best(scored: Mapping[int, float]) -> int:
    """The trial with the highest score, the first of equals.

    Args:
        scored: Scores by trial.

    Example:
        >>> best({0: 0.0, 1: 2.0, 3: 2.0})
        1
    """
    return max(scored, key=lambda trial: (scored[trial], -trial))


def keep_trials(
    folder: Path, name: str, space: Space, drawn: Mapping[int, Drawn], scored: Mapping[int, float]
) -> None:
    """Write the trials into the comparison's SQLite file, and replace earlier ones.

    Args:
        folder: The comparison's folder.
        name: The study's name.
        space: What was tuned.
        drawn: The values of each trial.
        scored: Scores of trials that succeeded.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept = storage(folder / FILE)
    if name in optuna.get_all_study_names(kept):
        optuna.delete_study(study_name=name, storage=kept)
    study = optuna.create_study(storage=kept, study_name=name, direction="maximize")
    distributions = space.distributions()
    for number, values in drawn.items():
        failed = number not in scored
        state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                params=values,
                distributions=distributions if values else {},
                value=None if failed else scored[number],
            )
        )


def storage(file: Path) -> Any:
    """Optuna's storage in a file.

    Args:
        file: A SQLite file, made if it does not exist.

    Raises:
        UserError: If it is not one of Optuna.
    """
    import optuna
    import sqlalchemy

    try:
        return optuna.storages.RDBStorage(f"sqlite:///{file.resolve()}")
    except sqlalchemy.exc.DatabaseError as error:
        raise UserError(
            str(file), "must be a SQLite file of Optuna", None, "Delete it, or name another folder"
        ) from error
