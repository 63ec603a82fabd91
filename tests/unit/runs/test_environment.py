"""What a run notes about where it was trained, and what a report makes of it."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from polytask.runs import _environment
from polytask import UserError
from polytask.report import collect, page
from polytask.runs._environment import FILE, environment, keep, read
from tests.report_folders import write_comparison, write_run


def git(*words: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *own, *words], check=True, capture_output=True, text=True).stdout.strip()


def test_a_run_notes_it_once_also_where_it_is_resumed(cli, demo):
    assert cli("fit", "config.yaml", "--run-dir", "run", "--quiet").code == 0
    (found,) = read(Path("run"))
    assert found["device"] == "cpu"
    # The metadata of some builds lacks the name of the build.
    assert torch.__version__.startswith(found["torch"])
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
