"""Charts as plain data, before a library renders them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Distinguishable with colour blindness; contrast of at least 3:1 against the light and the dark page.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#785EF0")
MOST_POINTS = 600
"""The most points of one line; longer ones are thinned."""
MOST_FRAMES = 80
"""The most views of one slider."""


@dataclass(frozen=True)
class Line:
    """A line over steps; its colour, dash and marker follow from ``index``, the same in every chart.

    A baseline is thin, grey and dashed.

    Args:
        name: Its name in the legend.
        index: The index of its run or task.
        x: Steps.
        y: Values, or means over seeds.
        low: The least value over seeds; None for one seed.
        high: The greatest value over seeds; None for one seed.
        is_baseline: Whether it is a baseline and not one of the compared runs.
    """

    name: str
    index: int
    x: NDArray[np.int64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    is_baseline: bool = False


@dataclass(frozen=True)
class Lines:
    """Lines over steps, and horizontal lines for values without steps.

    Args:
        y_label: The name of the values.
        lines: The lines.
        levels: The names and values of the horizontal lines.
        is_log: Whether the axis is logarithmic.
    """

    y_label: str
    lines: tuple[Line, ...]
    levels: tuple[tuple[str, float], ...] = ()
    is_log: bool = False


@dataclass(frozen=True)
class Heat:
    """A matrix in colours from ``-limit`` to ``limit``; NaN is blank."""

    row_label: str
    column_label: str
    names: tuple[str, ...]
    values: NDArray[np.float64]
    limit: float


@dataclass(frozen=True)
class Point:
    """A run in a plane of two tasks; ``front`` if no other run is better on both."""

    name: str
    index: int
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
    """One state of a chart: its label in the slider or the list, and its plot."""

    label: str
    plot: Lines | Heat | Points


@dataclass(frozen=True)
class Chart:
    """A chart; several views are chosen by a slider (over time) or from a list.

    Args:
        title: The title.
        note: How to read it, in a sentence.
        views: At least one.
        control: How users choose a view.
        control_label: The label of that control.
    """

    title: str
    note: str
    views: tuple[View, ...]
    control: Literal["", "slider", "list"] = ""
    control_label: str = ""


@dataclass(frozen=True)
class GridRow:
    """Cells of a table; ``differs`` if their values are not equal."""

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
        """The number of rows whose cells differ."""
        return sum(row.differs for row in self.rows)


@dataclass(frozen=True)
class Section:
    """A part of the page: charts and a table, or a hint on how to record them."""

    title: str
    charts: tuple[Chart, ...]
    hint: str = ""
    grid: Grid | None = None

    @property
    def key(self) -> str:
        """The title as an anchor or a file name."""
        return key(self.title)


def key(text: str) -> str:
    """A string's letters, digits and underscores, in lower case.

    Example:
        >>> key("Loss of <b>, val")
        'loss-of-b-val'
    """
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def single(title: str, note: str, plot: Lines | Heat | Points) -> Chart:
    """A chart of one view."""
    return Chart(title, note, (View("", plot),))


def listed(title: str, note: str, views: Sequence[View], label: str) -> Chart:
    """A chart whose views are chosen from a list if there are several."""
    return Chart(title, note, tuple(views), "list" if len(views) > 1 else "", label)


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` evenly spaced indices below ``count``, with the first and the last.

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
    name: str, index: int, series: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]
) -> Line:
    """The mean of several runs' series at each step, with the least and the greatest value.

    At a step that only some runs have, the mean is over those runs. The mean excludes NaN.
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
        return Line(name, index, steps, mean)
    low = np.where(np.isfinite(table), table, np.inf).min(axis=0)
    high = np.where(np.isfinite(table), table, -np.inf).max(axis=0)
    return Line(
        name, index, steps, mean, np.where(counts > 0, low, np.nan), np.where(counts > 0, high, np.nan)
    )
