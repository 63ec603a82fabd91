"""The tutorial's page and its notebook: one source, and what it says is what happens."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import load_script

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "digits.md"
# The cells in order, in one namespace, with what each of them prints.
RUNNER = """\
import contextlib, io, json, sys, traceback
from pathlib import Path

namespace, printed = {"__name__": "__main__"}, []
for cell in json.loads(Path(sys.argv[1]).read_text())["cells"]:
    if cell["cell_type"] == "code":
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            try:
                exec(compile("".join(cell["source"]), f"<{cell['id']}>", "exec"), namespace)
            except BaseException:
                sys.exit(f"{out.getvalue()}{traceback.format_exc()}")
        printed.append(out.getvalue())
Path(sys.argv[2]).write_text(json.dumps(printed))
"""
RUN = re.compile(r"\d{8}-\d{6}-\d{3}-[0-9a-f]{6}")
NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
TASK = re.compile(r"(digit|parity) 0 %")


def maker() -> ModuleType:
    return load_script("make_notebook", ROOT / "docs" / "make_notebook.py")


def form(text: str) -> str:
    """The text without what differs between machines: numbers, names of runs, the worst task of a row."""
    return TASK.sub("task 0 %", " ".join(NUMBER.sub("0", RUN.sub("RUN", text)).split()))


def agrees(expected: str, printed: str) -> bool:
    """Whether the output has the form that the page shows; ``...`` stands for any lines."""
    pattern = ".*".join(re.escape(part.strip()) for part in form(expected).split("..."))
    return re.fullmatch(pattern, form(printed)) is not None


def code_cells() -> list[dict[str, str]]:
    return [cell for cell in maker().cells(PAGE.read_text()) if cell["cell_type"] == "code"]


def blocks(kind: str) -> list[tuple[str | None, str]]:
    return [(m["caption"], m["text"]) for m in maker().BLOCK.finditer(PAGE.read_text()) if m["kind"] == kind]


def test_the_notebook_is_made_from_the_page() -> None:
    made = maker()
    assert made.NOTEBOOK.read_text() == made.notebook(PAGE.read_text()), "run python docs/make_notebook.py"


def test_the_notebook_has_every_file_and_every_command_of_the_page() -> None:
    code = "\n".join(cell["source"] for cell in code_cells())
    for kind in ("{code-block} python", "{code-block} yaml", "python"):
        assert blocks(kind)
        assert all(text in code for _, text in blocks(kind))
    lines = [line for _, text in blocks("sh") for line in text.splitlines()]
    commands = [line for line in lines if line.startswith("polytask ")]
    assert re.findall(r'^run\("(.*)"\)$', code, re.MULTILINE) == commands


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of the project, and what each cell of the notebook printed, in a fresh process."""
    folder = tmp_path_factory.mktemp("tutorial")
    # As in a kernel, there is no script that the processes of a comparison could import.
    command = [sys.executable, "-c", RUNNER, str(maker().NOTEBOOK), str(folder / "printed.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "digits", json.loads((folder / "printed.json").read_text())


@pytest.mark.long
def test_every_cell_prints_what_the_page_shows(executed: tuple[Path, list[str]]) -> None:
    _, printed = executed
    code = code_cells()
    assert len(printed) == len(code)
    for cell, found in zip(code, printed, strict=True):
        refused = "error: " in cell["output"]
        assert ("exit code 2" in found) == refused, found
        shown = found.replace("exit code 2\n", "") if refused else found
        assert agrees(cell["output"], shown), f"{cell['source']}\nprinted\n{found}"


@pytest.mark.long
def test_the_project_is_that_of_the_example(executed: tuple[Path, list[str]]) -> None:
    folder, _ = executed
    for name in ("data.py", "config.yaml"):
        assert (folder / name).read_text() == (ROOT / "examples" / "digits" / name).read_text()


@pytest.mark.long
def test_the_run_folder_holds_what_the_page_lists(executed: tuple[Path, list[str]]) -> None:
    folder, _ = executed
    ((_, listing),) = blocks("{code-block} text")
    run = min((folder / "runs" / "digits").iterdir())
    for line in listing.splitlines():
        assert (run / line.split()[0]).exists(), line
    listed = {Path(line.split()[0]).parts[0] for line in listing.splitlines()}
    assert {path.name for path in run.iterdir()} == listed | {"test", "predictions"}


@pytest.mark.long
def test_the_numbers_are_good_ones(executed: tuple[Path, list[str]]) -> None:
    """The form alone would hold for a model that learns nothing."""
    _, printed = executed
    tables = [found for found in printed if "┃ test" in found]
    assert len(tables) == 2
    row = re.compile(r"^│ (?:digit|parity).*│ (\S+) *│$", re.MULTILINE)
    for table in tables:
        accuracies = [float(cell) for cell in row.findall(table)]
        assert len(accuracies) == 2
        assert min(accuracies) > 0.9
