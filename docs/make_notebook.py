"""Makes `tutorial/digits.ipynb` from the page `tutorial/digits.md`, the only source of both.

python docs/make_notebook.py

A block of the page that names a file becomes a cell that writes the file, a block of commands becomes a cell
that runs them in the process of the notebook, and a block of Python stays what it is. The ``text`` block that
follows is the output of the cell. Everything else becomes Markdown. The cells are plain Python, so that the
notebook runs without a shell.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "tutorial" / "digits.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")

BLOCK = re.compile(
    r"^```(?P<kind>[^\n]*)\n(?::caption: (?P<caption>[^\n]*)\n\n)?(?P<text>.*?)^```$\n?",
    re.MULTILINE | re.DOTALL,
)
HELPERS = '''\
"""The page of this tutorial has commands for a shell. Here, `run` runs them in this process."""

import os
import shlex
from pathlib import Path

from polytask.cli import main


def run(command: str) -> None:
    """Run a command line of polytask."""
    code = main(shlex.split(command)[1:])
    if code:
        print("exit code", code)


def append(name: str, text: str) -> None:
    """Add the text to the end of a file."""
    with open(name, "a") as file:
        file.write(text)
'''


def shell(line: str) -> str:
    """The Python of one line of a shell."""
    program, _, argument = line.partition(" ")
    match program:
        case "polytask":
            return f"run({json.dumps(line, ensure_ascii=False)})"
        case "mkdir":
            return f"Path({argument!r}).mkdir(exist_ok=True)".replace("'", '"')
        case "cd":
            return f"os.chdir({argument!r})".replace("'", '"')
        case _:
            raise ValueError(f"{PAGE.name}: no Python for the command {line!r}")


def file_cell(name: str, text: str, *, begun: bool) -> str:
    """Python that writes a file, or adds to one that an earlier cell began."""
    if "'''" in text or "\\" in text:
        raise ValueError(f"{PAGE.name}: a block of {name} must have no ''' and no backslash")
    return (
        f"append({json.dumps(name)}, '''\\\n{text}''')"
        if begun
        else (f"_ = Path({json.dumps(name)}).write_text('''\\\n{text}''')")
    )


def cells(page: str) -> Iterator[dict[str, Any]]:
    """The cells of a page, in order: ``cell_type``, ``source`` and the expected ``output``."""
    files: set[str] = set()
    markdown = ""
    code: dict[str, Any] | None = None
    place = 0
    yield {"cell_type": "code", "source": HELPERS, "output": ""}
    for block in BLOCK.finditer(page):
        kind, caption, text = block["kind"].strip(), block["caption"], block["text"]
        between = page[place : block.start()]
        place = block.end()
        if kind == "text" and code is not None and not between.strip():
            code["output"] = text
            continue
        if code is not None:
            yield code
            code = None
        markdown += between
        if kind == "{code-block} text":
            markdown += f"`{caption}`:\n\n```text\n{text}```\n"
            continue
        if markdown.strip():
            yield {"cell_type": "markdown", "source": markdown}
            markdown = ""
        if caption is not None:
            source = file_cell(caption, text, begun=caption in files)
            files.add(caption)
        elif kind == "sh":
            source = "\n".join(shell(line) for line in text.splitlines())
        elif kind == "python":
            source = text
        else:
            raise ValueError(f"{PAGE.name}: no cell for a block of the kind {kind!r}")
        code = {"cell_type": "code", "source": source, "output": ""}
    if code is not None:
        yield code
    yield {"cell_type": "markdown", "source": markdown + page[place:]}


def stored(number: int, cell: dict[str, Any]) -> dict[str, Any]:
    """A cell in the format of a notebook."""
    found: dict[str, Any] = {"cell_type": cell["cell_type"], "id": f"cell-{number}", "metadata": {}}
    found["source"] = cell["source"].strip("\n").splitlines(keepends=True)
    if cell["cell_type"] == "code":
        output = cell["output"].splitlines(keepends=True)
        found["outputs"] = [{"output_type": "stream", "name": "stdout", "text": output}] if output else []
        found["execution_count"] = None
    return found


def notebook(page: str) -> str:
    """The notebook of a page, as the text of its file."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": [stored(number, cell) for number, cell in enumerate(cells(page))],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(PAGE.read_text()))
