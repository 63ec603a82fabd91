"""Compare methods with single-task models and a tuned plain sum: runs, statistics, tables."""

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
