"""Comparisons of methods with single-task models and a tuned plain sum; searches for better values.

A `Comparison` says what is compared and `compare` runs it; a `Search` says what is tuned and `tune` runs it.
Begin with ``_run.py``: candidates (``_candidates.py``) become jobs (``_job.py``), a launcher runs them in
processes (``_launcher.py``; ``_ray.py`` on a cluster), each process trains or tests one run by
`polytask.experiment` (``_command.py``) and leaves an outcome as data (``_outcome.py``), and the runs' numbers
become a table (``_summary.py``, ``_table.py``). To add a launcher, subclass `Launcher` in a file of its own,
and name it in ``cli/_compare_command.py``.

This room does not know the command line: it parses no arguments, and prints nothing but the
last line in the log of a job. It does not train a model
itself, and a process never learns from another's exit code or log what went wrong.
"""

from typing import TYPE_CHECKING

from polytask._lazy import lazy

if TYPE_CHECKING:
    from polytask.compare._definition import Comparison
    from polytask.compare._launcher import Launcher, Processes
    from polytask.compare._ray import RayCluster
    from polytask.compare._results import Result, read_results
    from polytask.compare._run import compare
    from polytask.compare._search import Search, Trial, tune
    from polytask.compare._space import Space
    from polytask.compare._statistics import Interval, Paired, delta_by_task, delta_m, holm, ranks
    from polytask.compare._summary import Difference, Gain, Row
    from polytask.compare._table import Table

_WHERE = {
    "Comparison": "_definition",
    "Difference": "_summary",
    "Gain": "_summary",
    "Interval": "_statistics",
    "Launcher": "_launcher",
    "Paired": "_statistics",
    "Processes": "_launcher",
    "RayCluster": "_ray",
    "Result": "_results",
    "Row": "_summary",
    "Search": "_search",
    "Space": "_space",
    "Table": "_table",
    "Trial": "_search",
    "compare": "_run",
    "delta_by_task": "_statistics",
    "delta_m": "_statistics",
    "holm": "_statistics",
    "ranks": "_statistics",
    "read_results": "_results",
    "tune": "_search",
}

__all__ = [
    "Comparison",
    "Difference",
    "Gain",
    "Interval",
    "Launcher",
    "Paired",
    "Processes",
    "RayCluster",
    "Result",
    "Row",
    "Search",
    "Space",
    "Table",
    "Trial",
    "compare",
    "delta_by_task",
    "delta_m",
    "holm",
    "ranks",
    "read_results",
    "tune",
]

# Reading records must not import torch.
__getattr__ = lazy(__name__, _WHERE)
