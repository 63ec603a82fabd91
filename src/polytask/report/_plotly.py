"""From charts to plotly's figures, as plain dicts."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from polytask._errors import UserError
from polytask.report._charts import PALETTE, Chart, Heat, Lines, Points

# The next one is used when all colours are used.
DASHES = ("solid", "dash", "dot", "dashdot")
_LONG_DASHES = ("longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
_GREY = "#7a7a7a"
# From red through grey to blue: distinguishable with red-green colour blindness.
_DIVERGING = [[0, "#b2182b"], [0.25, "#ef8a62"], [0.5, "#f7f7f7"], [0.75, "#67a9cf"], [1, "#2166ac"]]
_MOST_NUMBERS = 8
_LONGEST = 14


def library() -> str:
    """The source of plotly's JavaScript.

    Raises:
        UserError: If plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise UserError(
            "polytask report", "plotly is required", "no plotly", "Run `pip install 'polytask[report]'`"
        ) from error
    source: str = get_plotlyjs()
    return source


def figures(chart: Chart) -> list[dict[str, Any]]:
    """``data`` and ``layout`` of each view; the page adds its own colours."""
    return [_figure(view.plot) for view in chart.views]


def _figure(plot: Lines | Heat | Points) -> dict[str, Any]:
    match plot:
        case Lines():
            layout = _axes("step", plot.y_label) | {"hovermode": "x unified", "hoverdistance": -1}
            if plot.is_log:
                layout["yaxis"] |= {"type": "log", "exponentformat": "power"}
            return {"data": list(_line_traces(plot)), "layout": layout}
        case Heat():
            axes = _axes(plot.column_label, plot.row_label)
            names = [_text(name) for name in plot.names]
            short = [_text(_shortened(name)) for name in plot.names]
            ticks = {"type": "category", "tickvals": names, "ticktext": short}
            axes["xaxis"] |= ticks | {"tickangle": -40}
            axes["yaxis"] |= ticks | {"autorange": "reversed"}
            return {"data": [_heat_trace(plot)], "layout": axes}
        case Points():
            return {"data": list(_point_traces(plot)), "layout": _axes(plot.x_label, plot.y_label)}


def _line_traces(plot: Lines) -> Iterable[dict[str, Any]]:
    for line in plot.lines:
        name, x = _text(line.name), line.x.tolist()
        colour = _GREY if line.is_baseline else PALETTE[line.index % len(PALETTE)]
        dashes = _LONG_DASHES if line.is_baseline else DASHES
        turn = line.index if line.is_baseline else line.index // len(PALETTE)
        if line.low is not None and line.high is not None:
            band = {"x": x, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
            band |= {"legendgroup": name, "type": "scatter"}
            yield band | {"y": _numbers(line.low)}
            yield band | {"y": _numbers(line.high), "fill": "tonexty", "fillcolor": _faint(colour)}
        yield {
            "type": "scatter",
            "mode": "lines+markers" if len(x) <= 30 else "lines",
            "name": name,
            "legendgroup": name,
            "x": x,
            "y": _numbers(line.y),
            "line": {
                "color": colour,
                "dash": dashes[turn % len(dashes)],
                "width": 1 if line.is_baseline else 2,
            },
            "marker": {
                "symbol": _SYMBOLS[line.index % len(_SYMBOLS)],
                "size": 4 if line.is_baseline else 7,
            },
        }
    first = min((int(line.x[0]) for line in plot.lines if len(line.x)), default=0)
    last = max((int(line.x[-1]) for line in plot.lines if len(line.x)), default=1)
    for name, value in plot.levels:
        yield {
            "type": "scatter",
            "mode": "lines",
            "name": _text(name),
            "x": [first, last],
            "y": _numbers([value, value]),
            "line": {"color": _GREY, "dash": "longdash", "width": 2},
        }


def _heat_trace(plot: Heat) -> dict[str, Any]:
    names = [_text(name) for name in plot.names]
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [_numbers(row) for row in plot.values],
        "zmin": -plot.limit,
        "zmax": plot.limit,
        "colorscale": _DIVERGING,
        "xgap": 2,
        "ygap": 2,
        "colorbar": {"thickness": 12},
    }
    if len(names) <= _MOST_NUMBERS:
        trace["texttemplate"] = "%{z:.2f}" if plot.limit >= 0.1 else "%{z:.1e}"
    return trace


def _point_traces(plot: Points) -> Iterable[dict[str, Any]]:
    for name in dict.fromkeys(point.name for point in plot.points):
        points = [point for point in plot.points if point.name == name]
        index = points[0].index
        shape = "star" if index < 0 else _SYMBOLS[index % len(_SYMBOLS)]
        colour = _GREY if index < 0 else PALETTE[index % len(PALETTE)]
        yield {
            "type": "scatter",
            "mode": "markers",
            "name": _text(name),
            "x": _numbers([point.x for point in points]),
            "y": _numbers([point.y for point in points]),
            "text": ["not dominated" if point.front else "" for point in points],
            "marker": {
                "opacity": 1,
                "color": colour,
                "size": [14 if point.front else 10 for point in points],
                "symbol": [shape if point.front or index < 0 else f"{shape}-open" for point in points],
                "line": {"width": 2, "color": colour},
            },
        }


def _axes(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": _text(x)}}, "yaxis": {"title": {"text": _text(y)}}}


def _text(name: str) -> str:
    """Escaped: plotly reads tags in names."""
    return html.escape(name, quote=False)


def _shortened(name: str) -> str:
    """A name that leaves room for the matrix on a phone; hovering over a cell shows the full one."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _numbers(values: Sequence[float] | Any) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
