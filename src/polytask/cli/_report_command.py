"""``polytask report``: an HTML page about runs or a comparison."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytask._errors import Reason, UserError

if TYPE_CHECKING:
    from polytask.report import LiveServer


def add(command: argparse.ArgumentParser) -> None:
    """Add the options.

    Args:
        command: The subcommand's parser.
    """
    command.add_argument(
        "paths",
        nargs="+",
        metavar="RUN | COMPARISON",
        help="runs of the same tasks, or a comparison",
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="the page, default report.html in the folder"
    )
    command.add_argument(
        "--single-task",
        action="append",
        default=[],
        type=Path,
        metavar="RUN",
        help="a run of one task, as a baseline; repeatable",
    )
    command.add_argument("--figures", type=Path, metavar="DIR", help="also write each chart as PNG and SVG")
    command.add_argument(
        "--live", action="store_true", help="serve the page of a running training on 127.0.0.1"
    )
    command.add_argument(
        "--port", type=int, default=0, metavar="N", help="port for --live, by default any free port"
    )


def run(options: argparse.Namespace) -> None:
    """Write the page, and the figures if requested; or serve the page.

    Args:
        options: The parsed command line.

    Raises:
        UserError: If the folders or their records cannot be used.
    """
    from polytask._console import plain_console

    console = plain_console()
    paths = [Path(path) for path in options.paths]
    if options.live:
        _serve(_server(options, paths), console)
        return
    from polytask.report import collect, page, write_figures

    collection = collect(paths, options.single_task)
    output = options.output or _default_output(paths)
    text = page(collection)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output}", "must be a writable file", Reason.said(error)) from error
    if options.figures is not None:
        files = write_figures(collection, options.figures)
        console.print(f"{options.figures}: {len(files)} files")
    console.print(str(output))


def _default_output(paths: list[Path]) -> Path:
    return paths[0] / "report.html" if len(paths) == 1 else Path("report.html")


def _server(options: argparse.Namespace, paths: list[Path]) -> "LiveServer":
    from polytask.report import LiveServer

    if len(paths) > 1 or options.output or options.figures or options.single_task:
        raise UserError(
            "--live", "must be used with one run or comparison and no other option", None, "Name one folder"
        )
    return LiveServer(paths[0], options.port)


def _serve(server: "LiveServer", console: Any) -> None:
    console.print(f"{server.address} (stop with Ctrl-C)")
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
