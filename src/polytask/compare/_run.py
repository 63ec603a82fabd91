"""A comparison from its definition to its table: tune, train, test, each step only if it is not done yet."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from polytask._errors import RunError, one_line
from polytask.compare._candidates import Candidate
from polytask.compare._command import read_cost
from polytask.compare._definition import Comparison
from polytask.compare._job import Job
from polytask.compare._jobs import Report, run_jobs
from polytask.compare._launcher import Launcher, Processes
from polytask.compare._lock import check_kept
from polytask.compare._measures import Measure, check_single, last_values
from polytask.compare._names import (
    COST,
    DEFINITION,
    RUNS,
    SINGLE,
    SUM,
    candidate_name,
    row_name,
    seed_run,
    trial_run,
)
from polytask.compare._remarks import Remarks, write_remarks
from polytask.compare._results import Result, write_results
from polytask.compare._space import Drawn, overrides
from polytask.compare._table import Table, write_table
from polytask.compare._tuning import best, draw, keep_trials, scores
from polytask.config._read import Plain, read_file

FinalRuns = list[tuple[Candidate, int, Job]]


def compare(
    comparison: Comparison,
    folder: str | Path,
    launcher: Launcher | None = None,
    report: Report = lambda line: None,
) -> Table:
    """Run a comparison, or continue one that was stopped.

    First come the trials, of which the best is chosen by validation metrics alone; then every seed of the
    chosen settings; the test split is read once, at the end. A run that fails, for example with a loss that
    is not finite, is tried again in the next call; until it succeeds, its row is left out.

    Args:
        comparison: What is compared.
        folder: Where runs, ``comparison.yaml``, ``results.parquet``, ``table.csv`` and ``table.md`` are kept.
        launcher: Where runs are trained, and how many at a time; `Processes`, one at a time, if None.
        report: Called with a line for each run that ended.

    Returns:
        The table.

    Raises:
        UserError: If the folder belongs to another comparison, or a run's config cannot be used.
        RunError: If every row has a run that fails, or a test fails.

    Example:
        With the config of a project::

            comparison = Comparison(["config.yaml"], methods=["uw"])
            table = compare(comparison, "comparisons/digits", Processes(2), report=print)
    """
    folder, launcher = Path(folder), launcher or Processes()
    with comparison.locked(folder), launcher:
        runs = _ComparisonRuns(comparison, folder, launcher, report)
        results = runs.results(runs.finals(runs.tuned()))
        if not results:
            why = "; ".join(f"{row} {reason}" for row, reason in runs.remarks.left_out.items())
            raise RunError(
                str(folder), "at least one row must have a result", one_line(why), f"See {folder}/logs"
            )
        write_remarks(folder, runs.remarks)
        write_results(folder, results)
        table = Table(results, comparison.trials, runs.remarks)
        write_table(table, folder)
        return table


class _ComparisonRuns:
    """The runs of a comparison in its folder."""

    def __init__(self, comparison: Comparison, folder: Path, launcher: Launcher, report: Report) -> None:
        self.comparison = comparison
        self.folder = folder
        self.launcher = launcher
        self.report = report
        self._left_out: dict[str, str] = {}
        self._broken: dict[str, int] = {}
        self._chosen: dict[str, str] = {}
        # A trial that failed is not tried again: the test split may have been read since.
        for broken in (folder / "logs").glob("*-fit.broken"):
            if re.fullmatch(r".*-seed-?\d+-fit", broken.stem):
                broken.unlink()

    @property
    def remarks(self) -> Remarks:
        """What the table has to say about the runs."""
        return Remarks(self._left_out, self._broken, self._chosen, self._unnamed())

    def _unnamed(self) -> dict[str, int]:
        """The rows of earlier commands that this one does not name, with the number of their trained runs."""
        named = {candidate.row for candidate in self.comparison.candidates}
        earlier = read_file(self.folder / DEFINITION).values
        names: list[tuple[str, str | None]] = [
            *((SINGLE, task) for task in self.comparison.tasks),
            *((method, None) for method in (SUM, *earlier["methods"])),
        ]
        found: dict[str, int] = {}
        for architecture in earlier["architectures"]:
            for method, task in names:
                row, name = row_name(method, architecture), candidate_name(method, architecture, task)
                runs = [self.folder / RUNS / seed_run(name, seed) for seed in self.comparison.all_seeds]
                trained = sum((run / COST).is_file() for run in runs)
                if row not in named and trained:
                    found[row] = found.get(row, 0) + trained
        return found

    def tuned(self) -> dict[Candidate, Drawn]:
        """The values that the best trial of each candidate set."""
        if self.comparison.trials == 1:
            return {candidate: {} for candidate in self.comparison.candidates}
        seed, numbers = self.comparison.first_seed, range(self.comparison.trials)
        spaces = {candidate: self.comparison.space_of(candidate) for candidate in self.comparison.candidates}
        drawn = {c: {number: draw(space, seed, number) for number in numbers} for c, space in spaces.items()}
        tuning_seed = self.comparison.tuning_seed
        runs = [
            (one, number, self._job(one, tuning_seed, setting, trial_run(one.name, number)))
            for one, settings in drawn.items()
            for number, setting in settings.items()
        ]
        failed = self._train(runs)
        chosen = {}
        for candidate, space in spaces.items():
            found = self._measures(candidate)
            ended = {
                number: last_values(job.run, found, "val")
                for one, number, job in runs
                if one == candidate and job.name not in failed
            }
            scored = scores(ended, found)
            keep_trials(self.folder, candidate.name, space, drawn[candidate], scored)
            if len(scored) < len(numbers):
                self._broken[candidate.name] = len(numbers) - len(scored)
            if scored:
                chosen[candidate] = drawn[candidate][best(scored)]
                self._chosen[candidate.name] = ", ".join(overrides(chosen[candidate])) or "the config"
            else:
                why = "failed, or had a metric that is not finite, in every trial"
                self._left_out[candidate.row] = why
        return chosen

    def finals(self, chosen: dict[Candidate, Drawn]) -> FinalRuns:
        """The runs that are compared, trained and, if there are test data, tested."""
        runs = [
            (candidate, seed, self._job(candidate, seed, drawn, seed_run(candidate.name, seed)))
            for candidate, drawn in chosen.items()
            for seed in self.comparison.all_seeds
            if candidate.row not in self._left_out
        ]
        failed = self._train(runs)
        for candidate, seed, job in runs:
            if job.name in failed:
                self._left_out[candidate.row] = (
                    f"failed with seed {seed}: {failed[job.name].removesuffix('.')}"
                )
        runs = [run for run in runs if run[0].row not in self._left_out]
        if self.comparison.split == "test":
            run_jobs([self._as(job, "test") for *_, job in runs], self.launcher, self.report)
        return runs

    def _train(self, runs: FinalRuns) -> dict[str, str]:
        """Train what is not trained yet; the names of the runs that failed, and why."""
        found = {job.name: self._measures(candidate) for candidate, _, job in runs}
        # A metric that gives several numbers is found with the first run, before others read the test split.
        return run_jobs(
            [job for *_, job in runs],
            self.launcher,
            self.report,
            may_fail=True,
            check=lambda job: check_single(job.run, found[job.name]),
        )

    def results(self, runs: FinalRuns) -> list[Result]:
        """Every number of the runs."""
        split: Literal["val", "test"] = "test" if self.comparison.split == "test" else "val"
        results = []
        for candidate, seed, job in runs:
            found = self._measures(candidate)
            values = last_values(job.run, found, split)
            cost = read_cost(job.run)
            results += [
                Result(
                    candidate.method,
                    candidate.architecture,
                    candidate.kind,
                    seed,
                    measure.task,
                    measure.metric,
                    values[measure.task, measure.metric],
                    measure.higher_is_better,
                    split,
                    cost["seconds"],
                    cost["peak_memory_mb"],
                    str(job.run.relative_to(self.folder)),
                )
                for measure in found
            ]
        return results

    def _measures(self, candidate: Candidate) -> Sequence[Measure]:
        every = self.comparison.measures
        return [measure for measure in every if candidate.task in (None, measure.task)]

    def _job(self, candidate: Candidate, seed: int, drawn: Drawn, name: str) -> Job:
        config = self.folder / "configs" / f"{name}.yaml"
        config.parent.mkdir(exist_ok=True)
        made = self.comparison.config_of(candidate, seed, drawn)
        check_kept(self.folder / RUNS / name, made.plain)
        made.dump(config)
        return Job(
            "fit",
            self.folder / RUNS / name,
            config,
            self.folder / "logs" / f"{name}-fit.log",
            tuple(self.comparison.allow),
            self.launcher.threads,
            *gpus(made.plain["trainer"]),
        )

    def _as(self, job: Job, command: Literal["fit", "test"]) -> Job:
        log = job.log.with_name(f"{job.name}-{command}.log")
        return replace(job, command=command, log=log)


def gpus(trainer: Plain) -> tuple[int, bool]:
    """How many GPUs a trainer uses if there are any, and whether it cannot run without them.

    Args:
        trainer: The config's ``trainer``.

    Example:
        >>> gpus({}), gpus({"accelerator": "gpu", "devices": 2}), gpus({"accelerator": "cpu", "devices": 2})
        ((1, False), (2, True), (0, False))
    """
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    if accelerator not in ("auto", "gpu", "cuda"):
        return 0, False
    given = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 1
    return given, accelerator != "auto"
