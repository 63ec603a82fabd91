"""Charts as data: what is drawn, before it is known with what."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Apart for people who see no red, no green or no blue, and at least 3:1 against white and the dark page.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#785EF0")
MOST_POINTS = 600
"""Of one line; longer ones are thinned."""
MOST_FRAMES = 80
"""Of one slider."""


@dataclass(frozen=True)
class Line:
    """A line over steps; its colour, dash and mark follow from ``place``, the same in every chart.

    A baseline is grey, dashed and light.

    Args:
        name: What the legend calls it.
        place: The place of its run or task among all.
        x: Steps.
        y: Values, or means over seeds.
        low: Least value over seeds, where there are several.
        high: Greatest value over seeds.
        is_baseline: Whether it is beside the runs that are compared.
    """

    name: str
    place: int
    x: NDArray[np.int64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    is_baseline: bool = False


@dataclass(frozen=True)
class Lines:
    """Lines over steps, and levels (a name and a value) across all of them.

    Args:
        y_label: What the values are.
        lines: The lines.
        levels: The levels.
        is_log: Whether equal factors are equally far apart.
    """

    y_label: str
    lines: tuple[Line, ...]
    levels: tuple[tuple[str, float], ...] = ()
    is_log: bool = False


@dataclass(frozen=True)
class Heat:
    """A matrix in colours from ``-limit`` to ``limit``; NaN is left blank."""

    row_label: str
    column_label: str
    names: tuple[str, ...]
    values: NDArray[np.float64]
    limit: float


@dataclass(frozen=True)
class Point:
    """A run in a plane of two tasks; ``front`` where no other is better in both."""

    name: str
    place: int
    x: float
    y: float
    front: bool


@dataclass(frozen=True)
class Points:
    """Runs in a plane of two tasks."""

    x_label: str
    y_label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class View:
    """One state of a chart: what its slider or its list says there, and what is drawn."""

    label: str
    plot: Lines | Heat | Points


@dataclass(frozen=True)
class Chart:
    """A chart; several views are chosen by a slider (over time) or from a list.

    Args:
        title: A line above it.
        note: What is to be seen, in a sentence.
        views: At least one.
        control: How a view is chosen.
        control_label: What is chosen.
    """

    title: str
    note: str
    views: tuple[View, ...]
    control: Literal["", "slider", "list"] = ""
    control_label: str = ""


@dataclass(frozen=True)
class GridRow:
    """Cells of a table; ``differs`` where they do not agree with each other."""

    cells: tuple[str, ...]
    differs: bool = False


@dataclass(frozen=True)
class Grid:
    """A table with a header, sentences above it, and named sentences below."""

    header: tuple[str, ...]
    rows: tuple[GridRow, ...]
    notes: tuple[str, ...] = ()
    sentences: tuple[tuple[str, str], ...] = ()

    @property
    def differences(self) -> int:
        """How many rows differ."""
        return sum(row.differs for row in self.rows)


@dataclass(frozen=True)
class Section:
    """A part of the page: charts and a table, or a hint how to get them."""

    title: str
    charts: tuple[Chart, ...]
    hint: str = ""
    grid: Grid | None = None

    @property
    def key(self) -> str:
        """The title as an anchor or a file's name."""
        return key(self.title)


def key(text: str) -> str:
    """A text's letters, digits and underscores, in lower case.

    Example:
        >>> key("Loss of <b>, val")
        'loss-of-b-val'
    """
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def single(title: str, note: str, plot: Lines | Heat | Points) -> Chart:
    """A chart of one view."""
    return Chart(title, note, (View("", plot),))


def listed(title: str, note: str, views: Sequence[View], label: str) -> Chart:
    """A chart whose views are chosen from a list, where there are several."""
    return Chart(title, note, tuple(views), "list" if len(views) > 1 else "", label)


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """Places spread evenly over ``count``, the first and the last among them.

    Example:
        >>> thinned(10, 4).tolist()
        [0, 3, 6, 9]
        >>> thinned(3, 4).tolist()
        [0, 1, 2]
    """
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def over_seeds(
    name: str, place: int, series: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]
) -> Line:
    """The mean of several runs' series at each step, with the least and the greatest value.

    A step that only some of the runs have is the mean of those. NaN is left out of the mean.
    """
    steps = np.unique(np.concatenate([steps for steps, _ in series]))
    table = np.full((len(series), len(steps)), np.nan)
    for row, (at, values) in enumerate(series):
        table[row, np.searchsorted(steps, at)] = values
    kept = thinned(len(steps), MOST_POINTS)
    steps, table = steps[kept], table[:, kept]
    counts = np.isfinite(table).sum(axis=0)
    finite = np.where(np.isfinite(table), table, 0.0)
    mean = np.where(counts > 0, finite.sum(axis=0) / np.maximum(counts, 1), np.nan)
    if len(series) == 1:
        return Line(name, place, steps, mean)
    low = np.where(np.isfinite(table), table, np.inf).min(axis=0)
    high = np.where(np.isfinite(table), table, -np.inf).max(axis=0)
    return Line(
        name, place, steps, mean, np.where(counts > 0, low, np.nan), np.where(counts > 0, high, np.nan)
    )
