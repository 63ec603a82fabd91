"""A comparison from its definition to its table: tune, train, test, each step only where it is not done."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from polytask.compare._candidates import Candidate
from polytask.compare._definition import Comparison
from polytask.compare._jobs import Report, run_jobs
from polytask.compare._measures import Measure, last_values
from polytask.compare._results import Result, write_results
from polytask.compare._space import Drawn
from polytask.compare._table import Table, write_table
from polytask.compare._tuning import best, draw, keep_trials, scores
from polytask.compare._work import COST, Job

Runs = list[tuple[Candidate, int, Job]]


def compare(
    comparison: Comparison, folder: str | Path, jobs: int = 1, report: Report = lambda line: None
) -> Table:
    """Run a comparison, or go on with one that was stopped.

    First come the trials, chosen by validation metrics alone; then every seed of the chosen settings; the
    test split is read once, at the end.

    Args:
        comparison: What is compared.
        folder: Where runs, ``comparison.yaml``, ``results.parquet``, ``table.csv`` and ``table.md`` are kept.
        jobs: How many processes train at a time.
        report: Told a line for each run that ended.

    Returns:
        The table.

    Raises:
        UserError: Where the folder is another comparison's, or a run's config cannot be used.
        RunError: Where a run breaks down.
    """
    folder = Path(folder)
    with comparison.claimed(folder):
        runs = _Runs(comparison, folder, jobs, report)
        chosen = runs.tuned()
        finals = runs.finals(chosen)
        results = runs.results(finals)
        write_results(folder, results)
        table = Table(results, comparison.trials)
        write_table(table, folder)
        return table


class _Runs:
    """The runs of a comparison in its folder."""

    def __init__(self, comparison: Comparison, folder: Path, jobs: int, report: Report) -> None:
        self.comparison = comparison
        self.folder = folder
        self.jobs = jobs
        self.report = report
        self.threads = max(1, torch.get_num_threads() // jobs)

    def tuned(self) -> dict[Candidate, Drawn]:
        """What the best trial of each candidate set."""
        if self.comparison.trials == 1:
            return {candidate: {} for candidate in self.comparison.candidates}
        seed, numbers = self.comparison.first_seed, range(self.comparison.trials)
        spaces = {candidate: self.comparison.space_of(candidate) for candidate in self.comparison.candidates}
        drawn = {c: {number: draw(space, seed, number) for number in numbers} for c, space in spaces.items()}
        runs = [
            (
                candidate,
                number,
                self._job(candidate, self.comparison.tuning_seed, drawn[candidate][number], f"trial{number}"),
            )
            for candidate in drawn
            for number in numbers
        ]
        failed = run_jobs([job for *_, job in runs], self.jobs, self.report, may_fail=True)
        chosen = {}
        for candidate, space in spaces.items():
            found = self._measures(candidate)
            ended = {
                number: last_values(job.run / "metrics.csv", found, "val")
                for one, number, job in runs
                if one == candidate and job.name not in failed
            }
            scored = scores(ended, found)
            keep_trials(self.folder, candidate.name, space, drawn[candidate], scored)
            chosen[candidate] = drawn[candidate][best(scored, candidate.name)]
        return chosen

    def finals(self, chosen: dict[Candidate, Drawn]) -> Runs:
        """The runs that are compared, trained and, where there are test data, tested."""
        seeds = self.comparison.all_seeds
        runs = [
            (candidate, seed, self._job(candidate, seed, drawn, f"seed{seed}"))
            for candidate, drawn in chosen.items()
            for seed in seeds
        ]
        fits = [job for *_, job in runs]
        run_jobs(fits, self.jobs, self.report)
        if self.comparison.split == "test":
            run_jobs([self._as(job, "test") for job in fits], self.jobs, self.report)
        return runs

    def results(self, runs: Runs) -> list[Result]:
        """Every number of the runs."""
        split: Literal["val", "test"] = "test" if self.comparison.split == "test" else "val"
        results = []
        for candidate, seed, job in runs:
            metrics = job.run / ("test/metrics.csv" if split == "test" else "metrics.csv")
            found = self._measures(candidate)
            values = last_values(metrics, found, split)
            cost = json.loads((job.run / COST).read_text())
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

    def _job(self, candidate: Candidate, seed: int, drawn: Drawn, suffix: str) -> Job:
        name = f"{candidate.name}-{suffix}"
        config = self.folder / "configs" / f"{name}.yaml"
        config.parent.mkdir(exist_ok=True)
        self.comparison.config_of(candidate, seed, drawn).dump(config)
        log = self.folder / "logs" / f"{name}-fit.log"
        return Job(
            "fit", self.folder / "runs" / name, config, log, tuple(self.comparison.allow), self.threads
        )

    def _as(self, job: Job, command: Literal["fit", "test"]) -> Job:
        log = job.log.with_name(f"{job.name}-{command}.log")
        return Job(command, job.run, job.config, log, job.allow, job.threads)
