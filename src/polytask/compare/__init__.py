"""Compare methods with single-task models and a tuned plain sum: runs, statistics, tables."""

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
