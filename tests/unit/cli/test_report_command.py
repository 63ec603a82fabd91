"""`polytask report`: files, arguments and exit codes."""

import sys

import pytest

from polytask.cli import _report_command, main, parse
from polytask.report import LiveServer
from tests.report_folders import write_comparison, write_run


def test_the_page_is_written_beside_the_run(tmp_path, capsys):
    run = write_run(tmp_path / "one", records=False)
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_page_of_several_runs_is_written_here(tmp_path, monkeypatch):
    runs = [write_run(tmp_path / name, records=False) for name in ("one", "two")]
    monkeypatch.chdir(tmp_path)
    assert main(["report", *map(str, runs)]) == 0
    assert (tmp_path / "report.html").is_file()


def test_a_comparison_has_a_page_in_its_folder(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    assert main(["report", str(folder)]) == 0
    assert "1 seed: no interval" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_and_the_figures_are_written_where_they_are_asked_for(tmp_path, capsys):
    folder = write_run(tmp_path / "one", ("digit",), records=False)
    words = ["--output", str(tmp_path / "x.html"), "--figures", str(tmp_path / "figures")]
    assert main(["report", str(folder), *words]) == 0
    files = sorted((tmp_path / "figures").iterdir())
    assert capsys.readouterr().out == f"{tmp_path / 'figures'}: {len(files)} files\n{tmp_path / 'x.html'}\n"
    assert (tmp_path / "x.html").is_file()


def test_runs_may_stand_on_both_sides_of_an_option(tmp_path, capsys):
    one, two = (str(write_run(tmp_path / name, ("digit",), records=False)) for name in ("one", "two"))
    output = str(tmp_path / "x.html")
    assert main(["report", one, "--output", output, two]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "Runs: <code>one</code>, <code>two</code>." in text
    assert main(["report", one, "--figurs", two]) == 2
    assert "unknown option '--figurs'. Did you mean '--figures'?" in capsys.readouterr().err


def test_baselines_are_named(tmp_path):
    run = write_run(tmp_path / "one", records=False)
    single = write_run(tmp_path / "single", ("digit",), records=False)
    assert main(["report", str(run), "--single-task", str(single)]) == 0
    assert "single-task" in (run / "report.html").read_text(encoding="utf-8").split('id="figures">')[1]


def test_a_mistake_is_one_line_and_2(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_page_that_cannot_be_written_is_said(tmp_path, capsys):
    run = write_run(tmp_path / "one", records=False)
    assert main(["report", str(run), "--output", str(tmp_path)]) == 2
    assert "must be a writable file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "words", "needs"), [("plotly", [], "plotly"), ("matplotlib", ["--figures", "f"], "matplotlib")]
)
def test_what_is_not_installed_is_said_with_how(tmp_path, monkeypatch, capsys, module, words, needs):
    run = write_run(tmp_path / "one", records=False)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["report", str(run), *words]) == 2
    assert f"{needs} is required" in (error := capsys.readouterr().err)
    assert "pip install 'polytask[report]'" in error


def test_a_run_is_served_until_it_is_stopped(tmp_path, monkeypatch, capsys):
    def interrupted(self, poll_interval=0.5):
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveServer, "serve_forever", interrupted)
    run = write_run(tmp_path / "one", records=False)
    assert main(["report", "--live", str(run)]) == 0
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("words", [["b"], ["--output", "x"], ["--figures", "x"], ["--single-task", "x"]])
def test_live_is_one_folder_and_nothing_else(words, capsys):
    assert main(["report", "a", *words, "--live"]) == 2
    assert "--live: must be used with one run or comparison" in capsys.readouterr().err


def test_a_port_is_a_number(capsys):
    assert main(["report", "a", "--live", "--port", "http"]) == 2
    assert "--port" in capsys.readouterr().err


def test_the_arguments(tmp_path):
    options = parse(["report", "a", "b", "--figures", "c"])
    assert [str(path) for path in options.paths] == ["a", "b"]
    assert options.port == 0


def test_the_command_imports_nothing_heavy_to_be_listed():
    assert not {"torch", "pyarrow", "jinja2"} & set(vars(_report_command))
