"""The command line's arguments, its exit codes, and what it does not import."""

import contextlib
import os
import pty
import subprocess
import sys

import pytest

from polytask import UserError, __version__, cli
from polytask.cli import _main
from polytask.cli._notice import notice

HEAVY = ("torch", "numpy", "omegaconf", "rich", "pytorch_lightning", "torchmetrics", "pyarrow", "tensorboard")


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["--version"], ["init", "new"], ["fitt"]])
def test_what_needs_no_torch_imports_none(words, tmp_path):
    program = f"""
import sys
from polytask.cli import main
try:
    main({words!r})
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_files_and_overrides_may_come_anywhere_among_the_options():
    options = cli.parse(["fit", "a.yaml", "x=1", "--quiet", "b.yaml", "--seed", "3", "y.z=[1, 2]"])
    assert options.config == ["a.yaml", "b.yaml"]
    assert options.overrides == ["x=1", "y.z=[1, 2]", "seed=3"]
    assert options.quiet


@pytest.mark.parametrize("name", ["vars.title=cats", "vars.title=a b.c", "lr=0.1.txt"])
def test_a_text_that_is_also_the_name_of_a_file_is_an_override(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()

    options = cli.parse(["fit", "config.yaml", name])

    assert (options.config, options.overrides) == (["config.yaml"], [name])


@pytest.mark.parametrize("path", ["lr=0.1.yaml", "lr=0.1/config.yml", "runs/lr=0.1/config.yaml"])
def test_a_path_may_have_an_equals_sign(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()

    options = cli.parse(["fit", path, "seed=1"])

    assert (options.config, options.overrides) == ([path], ["seed=1"])


@pytest.mark.parametrize("size", [255, 256, 5000, 100_000])
@pytest.mark.parametrize("end", ["", ".yaml", "é", "\0"])
def test_an_override_may_be_longer_than_the_name_of_a_file(size, end):
    long = f"vars.title={'x' * size}{end}"

    assert cli.parse(["fit", "config.yaml", long]).overrides == [long]


def test_config_options_are_files_too_and_repeat():
    assert cli.parse(["check", "--config", "a.yaml", "--config", "b.yaml"]).config == ["a.yaml", "b.yaml"]


def test_options_are_not_abbreviated():
    with pytest.raises(UserError, match=r"unknown option '--resu'. Did you mean '--resume'"):
        cli.parse(["fit", "a.yaml", "--resu"])


def test_a_misspelt_command_gets_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown command 'completoin'. Did you mean 'completion'"):
        cli.parse(["completoin", "bash"])


def test_every_command_has_a_line_of_help(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--help"])
    assert exit.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {text}" in shown for name, text in cli.COMMANDS.items())


@pytest.mark.parametrize("command", [*cli.COMMANDS, "completion"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert f"polytask {command}" in capsys.readouterr().out


def test_the_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"polytask {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completions_know_the_commands(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "validate" in script
    assert "--run-dir" in script or "run-dir" in script


def python(folder, *words):
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)


def test_an_unforeseen_error_is_one_line_and_1(tmp_path):
    broken = "from polytask.cli import _main; _main._run = lambda options: 1 / 0; _main.main(['init', 'x'])"
    done = python(tmp_path, "-c", broken)
    assert done.returncode == 1
    assert done.stderr == "error: ZeroDivisionError: division by zero (--debug shows the traceback)\n"


def test_an_interrupt_is_one_line_and_130(tmp_path, monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(_main, "_run", interrupted)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    assert cli.main(["init", "x"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_debug_shows_the_traceback(tmp_path):
    done = python(tmp_path, "-m", "polytask", "init", ".", "--debug")
    assert done.stderr.startswith("Traceback")
    assert "polytask._errors.UserError" in done.stderr


def test_a_mistake_is_2_in_a_process_of_its_own(tmp_path):
    done = python(tmp_path, "-m", "polytask", "fit", "--resum")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: polytask fit: unknown option '--resum'. Did you mean '--resume'?\n"


# Ends where torch would be imported.
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from polytask.cli import main; main(sys.argv[1:])"


def lines_on_a_terminal(folder, *arguments):
    """What a command writes to a terminal as its standard error."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=theirs, check=False)
    os.close(theirs)
    with contextlib.closing(os.fdopen(ours, "rb", buffering=0)) as terminal:
        try:
            written = terminal.read(4096).decode()
        except OSError:
            # Nobody wrote to it.
            written = ""
    return done.stdout, written.splitlines()


@pytest.mark.parametrize(
    ("arguments", "notice"),
    [
        (["fit", "config.yaml"], "polytask fit: importing torch and Lightning …"),
        (["check", "config.yaml"], "polytask check: importing torch and Lightning …"),
        (["methods"], "polytask methods: importing torch …"),
    ],
)
def test_a_terminal_shows_first_what_takes_long(tmp_path, arguments, notice):
    out, lines = lines_on_a_terminal(tmp_path, *arguments)
    assert out == b""
    assert lines[0] == notice
    assert lines[1].startswith("error: ")


def test_with_quiet_a_terminal_stays_clean(tmp_path):
    _, lines = lines_on_a_terminal(tmp_path, "fit", "config.yaml", "--quiet")
    assert len(lines) == 1
    assert lines[0].startswith("error: ")


def test_help_and_completion_stay_clean_on_a_terminal(tmp_path):
    assert lines_on_a_terminal(tmp_path, "completion", "bash")[1] == []
    assert lines_on_a_terminal(tmp_path, "fit", "--help")[1] == []


def test_without_standard_error_nothing_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    notice("fit", quiet=False)


def test_a_pipe_stays_clean(tmp_path):
    done = python(tmp_path, "-c", WITHOUT_TORCH, "fit", "config.yaml")
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
