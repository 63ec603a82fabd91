"""One HTML page that needs no other files."""

import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from polytask._version import __version__
from polytask.report import _plotly
from polytask.report._charts import Section
from polytask.report._entries import Collection
from polytask.report._sections import sections
from polytask.report._tables import configs, definition, environments, results


def page(collection: Collection, refresh_ms: int = 0, version: str = "") -> str:
    """The whole page.

    Args:
        collection: The runs to show.
        refresh_ms: Milliseconds between the page's requests to its server; 0 for a page without a server.
        version: The server's name for the state of the records.

    Raises:
        UserError: If plotly is not installed.

    Example:
        With the folder of a run, and ``plotly`` installed::

            Path("report.html").write_text(page(collect([Path("runs/digits/one")])))
    """
    parts = sections(collection)
    status = "live" if refresh_ms else ""
    return _frame(collection.name, body(collection, parts), figures_json(parts), refresh_ms, version, status)


def shell(name: str, refresh_ms: int, problem: str) -> str:
    """The page of a server that has nothing to show yet; it sends requests until it has.

    Args:
        name: The page's title.
        refresh_ms: Milliseconds between the page's requests to its server.
        problem: Why there is nothing to show.

    Raises:
        UserError: If plotly is not installed.
    """
    return _frame(name, Markup(), figures_json([]), refresh_ms, "", problem)


def _frame(title: str, content: Markup, figures: Markup, refresh_ms: int, version: str, status: str) -> str:
    """The page around its content."""
    return _template("page.html").render(
        title=title,
        version=__version__,
        body=content,
        figures=figures,
        live=refresh_ms,
        state=version,
        status=status,
        style=_part("page.css"),
        script=_part("page.js"),
        plotly=Markup(_plotly.library()),
    )


def body(collection: Collection, parts: list[Section]) -> Markup:
    """The content between the page's header and footer."""
    return Markup(
        _template("body.html").render(
            collection=collection,
            sections=parts,
            results=results(collection),
            configs=configs(collection),
            definition=definition(collection),
            environments=environments(collection),
        )
    )


def figures_json(parts: list[Section]) -> Markup:
    """The figures of every chart, in order, escaped for a script element."""
    found: list[list[dict[str, Any]]] = [_plotly.figures(chart) for part in parts for chart in part.charts]
    text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("polytask.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _part(name: str) -> Markup:
    return Markup((files("polytask.report") / "page" / name).read_text(encoding="utf-8"))
