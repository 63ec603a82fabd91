"""Reads what a page is about: runs, or a comparison."""

from collections.abc import Sequence
from pathlib import Path

from polytask._errors import UserError
from polytask.compare._names import DEFINITION
from polytask.report._comparison import read_comparison
from polytask.report._entries import SINGLE_TASK, Baseline, Collection, Entry, common_tasks, last_losses
from polytask.report._records import METRICS, RECORDS, RunRecords, read_run
from polytask.runs import CONFIG, Run, _environment


def collect(paths: Sequence[Path], single_task: Sequence[Path] = ()) -> Collection:
    """Read runs, or one comparison.

    Args:
        paths: Folders of runs, or one comparison's folder.
        single_task: Runs of single tasks, for the baselines of plain runs.

    Raises:
        UserError: If a path is neither, runs and a comparison are mixed, runs have different tasks, or a
            file is empty or damaged.

    Example:
        >>> collect([Path("runs/digits/20260131-120000-1a2b3c")])
        Traceback (most recent call last):
        ...
        polytask._errors.UserError: runs/digits/20260131-120000-1a2b3c: must be the folder of a run or of ...
    """
    comparisons = [path for path in paths if (path / DEFINITION).is_file()]
    if not paths:
        raise UserError("polytask report", "the folder of a run or of a comparison is required", "none")
    if comparisons and len(paths) > 1:
        found = f"{comparisons[0]} among {len(paths)} folders"
        raise UserError("polytask report", "must be given one comparison, or runs", found, "Give it alone")
    if comparisons and single_task:
        raise UserError(
            "--single-task", "is for runs; a comparison has its own single-task models", single_task[0]
        )
    return read_comparison(comparisons[0]) if comparisons else _runs(paths, single_task)


def _runs(paths: Sequence[Path], single_task: Sequence[Path]) -> Collection:
    for path in (*paths, *single_task):
        _check_begun(path)
    names = _short_names(paths)
    doubled = next((path for path, name in zip(paths, names, strict=True) if names.count(name) > 1), None)
    if doubled is not None:
        raise UserError("polytask report", "must be given each run once", f"{doubled} twice")
    entries = tuple(Entry(name, (read_run(path),)) for name, path in zip(names, paths, strict=True))
    title = names[0] if len(names) == 1 else f"{len(names)} runs"
    tasks = common_tasks(entries)
    runs: dict[str, list[RunRecords]] = {}
    for run in map(read_run, single_task):
        if len(run.tasks) != 1 or run.tasks[0] not in tasks:
            found = f"{', '.join(run.tasks) or 'no task'} in {run.folder}"
            raise UserError("--single-task", f"must be a run of one of the tasks {', '.join(tasks)}", found)
        runs.setdefault(run.tasks[0], []).append(run)
    singles = tuple(Baseline(task, Entry(SINGLE_TASK, tuple(own))) for task, own in runs.items())
    scores = [score for entry in entries for score in last_losses(entry.name, entry.runs)]
    scores += [score for one in singles for score in last_losses(one.entry.name, one.entry.runs, one.task)]
    return Collection(title, entries, tasks, tuple(scores), baselines=singles)


def _check_begun(path: Path) -> None:
    """Refuse a project's folder, which has a config too, but no training."""
    run = Run(path)
    kept = (run.checkpoints, *(path / name for name in (_environment.FILE, METRICS, RECORDS)))
    if run.config.is_file() and not any(one.exists() for one in kept):
        rule = "must be the folder of a run or of a comparison"
        raise UserError(str(path), rule, f"{CONFIG}, but no training", "Name one from runs/")


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest distinct ends of the paths."""
    parts = [path.resolve().parts for path in paths]
    names: list[str] = []
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-depth:]) for own in parts]
        if len({*names}) == len(names):
            break
    return names
