"""What a run notes about where it was trained, and what a report makes of it."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from polytask._errors import UserError
from polytask.report import collect, page
from polytask.report._tables import environments
from polytask.runs import _environment
from polytask.runs._environment import FILE, environment, keep, read
from tests.report_folders import write_comparison, write_run


def git(*words: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *own, *words], check=True, capture_output=True, text=True).stdout.strip()


def test_a_run_notes_it_once_also_where_it_is_resumed(cli, demo):
    assert cli("fit", "config.yaml", "--run-dir", "run", "--quiet").code == 0
    (found,) = read(Path("run"))
    assert found["device"] == "cpu"
    assert found["torch"] == torch.__version__
    assert {"system", "Python", "polytask", "pytorch-lightning", "torchmetrics"} < found.keys()
    assert cli("fit", "--resume", "--run-dir", "run", "--quiet").code == 0
    assert read(Path("run")) == [found]


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_of_the_project_and_whether_it_was_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Folders above it may be under git as well.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "commit" not in environment("cpu", tmp_path)
    git("init", "-q")
    (tmp_path / "net.py").write_text("")
    git("add", "net.py")
    git("commit", "-q", "-m", "Begin")
    commit = git("rev-parse", "HEAD")
    assert environment("cpu", tmp_path)["commit"] == commit
    (tmp_path / "net.py").write_text("pass")
    assert environment("cpu", tmp_path)["commit"] == f"{commit}-dirty"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "commit" not in environment("cpu", tmp_path)


def test_what_was_resumed_with_something_else_stands_behind(tmp_path):
    for device in ("cpu", "cpu", "H100", "cpu"):
        keep(tmp_path, {"device": device})
    assert [one["device"] for one in read(tmp_path)] == ["cpu", "H100", "cpu"]


@pytest.mark.parametrize("text", ["", "{", "{}", '["cpu"]', "[" * 100_000])
def test_a_damaged_file_is_named(tmp_path, text):
    run = write_run(tmp_path / "run")
    (run / FILE).write_text(text)
    with pytest.raises(UserError, match=r"environment\.json: must "):
        page(collect([run]))


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    run = write_run(tmp_path / "run")
    (run / FILE).mkdir()
    with pytest.raises(UserError, match=r"environment\.json: must be JSON"):
        page(collect([run]))


def test_runs_side_by_side_with_differences_marked(tmp_path):
    one, other = (write_run(tmp_path / name, records=False) for name in ("one", "other"))
    keep(one, {"device": "cpu", "torch": "2.9"})
    keep(other, {"device": "cpu", "torch": "2.9"})
    keep(other, {"device": "<b>", "torch": "2.9"})
    grid = environments(collect([one, other]))
    assert grid.header == ("what", "one", "other", "this page")
    rows = {row.cells[0]: row for row in grid.rows}
    assert rows["device"].cells[1:] == ("cpu", "cpu | <b>", "")
    assert rows["device"].differs
    assert rows["torch"].cells[1:] == ("2.9", "2.9", _environment.version("torch"))
    assert not rows["torch"].differs
    text = page(collect([one, other]))
    assert "cpu | &lt;b&gt;" in text
    assert '<th scope="row"><span class="mark" title="differs">≠ </span>device</th>' in text


def test_the_seeds_of_a_comparison_and_its_baselines(tmp_path):
    folder = write_comparison(tmp_path / "comparison", methods=("uw",))
    for run in (folder / "runs").iterdir():
        keep(
            run, {"torch": "2.8" if run.name in ("uw-base-seed1", "single_task_digit-base-seed0") else "2.9"}
        )
    grid = environments(collect([folder]))
    assert grid.header == ("what", "uw", "plain_sum", "single-task", "this page")
    row = next(row for row in grid.rows if row.cells[0] == "torch")
    assert row.cells[1:4] == ("2.9 | 2.8", "2.9", "2.8 | 2.9")
    assert row.differs


def test_runs_that_noted_nothing(tmp_path):
    grid = environments(collect([write_run(tmp_path / "run", records=False)]))
    assert all(row.cells[1] == "" and not row.differs for row in grid.rows)
    assert grid.header == ("what", "run", "this page")
