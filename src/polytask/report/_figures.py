"""Charts as PNG and SVG files, for papers.

Drawn with matplotlib: plotly's export starts a browser, which few clusters have.
"""

from collections.abc import Container, Iterable
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from polytask._errors import Reason, UserError
from polytask.report._charts import PALETTE, Chart, Heat, Lines, Points, View, key
from polytask.report._entries import Collection
from polytask.report._sections import sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", "--", ":", "-.")
_LONG_DASH = (0, (8, 3))
_MARKS = "osD^PX*"
_GREY = "#7a7a7a"
_MOST_NUMBERS = 8


def write_figures(collection: Collection, folder: Path) -> list[Path]:
    """Write each chart as ``<title>.png`` and ``<title>.svg``; a slider's chart at its last step.

    Args:
        collection: The runs to show.
        folder: The folder of the files; created if it does not exist.

    Returns:
        The files.

    Raises:
        UserError: If matplotlib is not installed, or the folder cannot be written.

    Example:
        With the folder of a run, and ``matplotlib`` installed::

            write_figures(collect([Path("runs/digits/one")]), Path("figures"))
    """
    charts = [chart for part in sections(collection) for chart in part.charts]
    named: dict[str, tuple[Chart, View]] = {}
    for chart in charts:
        for name, view in _views(chart):
            named[_unused(name, named)] = (chart, view)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [file for name, (chart, view) in named.items() for file in _write(chart, view, folder / name)]
    except OSError as error:
        raise UserError(f"--figures {folder}", "must be a writable folder", Reason.said(error)) from error


def _unused(name: str, taken: Container[str]) -> str:
    """A name that is not taken: titles may differ in characters that a file name leaves out."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(free for free in chain([name], numbered) if free not in taken)


def _views(chart: Chart) -> Iterable[tuple[str, View]]:
    if chart.control != "list":
        yield key(chart.title), chart.views[-1]
        return
    for view in chart.views:
        yield key(f"{chart.title} {view.label}"), view


def _write(chart: Chart, view: View, stem: Path) -> list[Path]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UserError(
            "--figures", "matplotlib is required", "no matplotlib", "Run `pip install 'polytask[report]'`"
        ) from error
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    # Text stays text in the SVG; without a date the same records give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "polytask", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(5, 3.4), layout="constrained")
        _draw(figure, chart, view)
        figure.savefig(files[0], dpi=200)
        figure.savefig(files[1], metadata={"Date": None})
    return files


def _draw(figure: "Figure", chart: Chart, view: View) -> None:
    axes = figure.subplots()
    axes.set_title(_text(f"{chart.title}, {view.label}" if view.label else chart.title), fontsize=9)
    match view.plot:
        case Lines():
            _draw_lines(axes, view.plot)
        case Heat():
            _draw_heat(figure, axes, view.plot)
        case Points():
            _draw_points(axes, view.plot)


def _draw_lines(axes: "Axes", plot: Lines) -> None:
    for line in plot.lines:
        colour = _GREY if line.is_baseline else PALETTE[line.index % len(PALETTE)]
        dash = _LONG_DASH if line.is_baseline else _DASHES[line.index // len(PALETTE) % len(_DASHES)]
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        # One value alone would not be visible as a line.
        mark = _MARKS[line.index % len(_MARKS)] if len(line.x) <= 30 else None
        axes.plot(
            line.x,
            line.y,
            color=colour,
            linestyle=dash,
            linewidth=0.8 if line.is_baseline else 1.5,
            marker=mark,
            markersize=3,
            label=_text(line.name),
        )
    for name, value in plot.levels:
        axes.axhline(value, color=_GREY, linestyle=_LONG_DASH, label=_text(name))
    if plot.is_log and any(np.isfinite(line.y).any() for line in plot.lines):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(_text(plot.y_label))
    axes.grid(alpha=0.3)
    if len(plot.lines) + len(plot.levels) > 1:
        axes.legend(fontsize=7, frameon=False)


def _draw_heat(figure: "Figure", axes: "Axes", plot: Heat) -> None:
    image = axes.imshow(plot.values, cmap="RdBu", vmin=-plot.limit, vmax=plot.limit)
    names = [_text(name) for name in plot.names]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(plot.column_label)
    axes.set_ylabel(plot.row_label)
    figure.colorbar(image)
    if len(names) > _MOST_NUMBERS:
        return
    for (row, column), value in np.ndenumerate(plot.values):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.7 * plot.limit else "black"
            axes.text(column, row, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=7)


def _draw_points(axes: "Axes", plot: Points) -> None:
    named: set[str] = set()
    for point in plot.points:
        colour = _GREY if point.index < 0 else PALETTE[point.index % len(PALETTE)]
        mark = "*" if point.index < 0 else _MARKS[point.index % len(_MARKS)]
        axes.plot(
            point.x,
            point.y,
            marker=mark,
            linestyle="",
            color=colour,
            markersize=8 if point.front else 6,
            fillstyle="full" if point.front or point.index < 0 else "none",
            label=None if point.name in named else _text(point.name),
        )
        named.add(point.name)
    axes.set_xlabel(_text(plot.x_label))
    axes.set_ylabel(_text(plot.y_label))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False)


def _text(name: str) -> str:
    """Escaped: matplotlib reads formulas between dollars and ignores labels that start with "_"."""
    return " " * name.startswith("_") + name.replace("$", r"\$")
