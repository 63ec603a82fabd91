"""What a job's process leaves, and what the next one does with it."""

import json
import os

import pytest
import torch

from polytask import RunError, UserError
from polytask.compare._command import earlier_seconds, perform, session_file
from polytask.compare._job import Job
from polytask.compare._outcome import Outcome, read_outcome
from polytask.compare._work import has_several_devices


def left(folder, checkpoint=b"", noted=True):
    last = folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(checkpoint)
    if not checkpoint:
        torch.save({"state_dict": {}}, last)
    os.utime(last, (1030, 1030))
    if noted:
        session_file(folder).write_text(json.dumps({"earlier": 10.0, "start": 1000.0}))
    return earlier_seconds(folder)


def test_the_time_up_to_the_last_checkpoint_counts(tmp_path):
    assert left(tmp_path / "run") == 40.0


def test_a_run_without_a_whole_checkpoint_begins_anew(tmp_path):
    assert earlier_seconds(tmp_path / "none") is None
    assert left(tmp_path / "half", b"PK\x03\x04 half of it") is None


def test_a_checkpoint_of_unknown_origin_is_not_gone_on_from(tmp_path):
    assert left(tmp_path / "run", noted=False) is None


def test_a_job_is_done_once_its_command_ended(tmp_path):
    fit, test = (
        Job(command, tmp_path, tmp_path / "c.yaml", tmp_path / f"{command}.log")
        for command in ("fit", "test")
    )
    assert not fit.is_done
    (tmp_path / "cost.json").write_text("{}")
    assert fit.is_done
    assert not test.is_done


HELD = """
import signal, sys, threading
from pathlib import Path
from polytask.compare._job import Job
from polytask.compare._work import work

run, config, log = map(Path, sys.argv[1:])
# A process in the background may have been told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
signal.pthread_kill(threading.get_ident(), signal.SIGINT)
work(Job("fit", run, config, log))
"""


@pytest.mark.slow
def test_ctrl_c_that_came_before_a_job_ends_it_without_a_word(tmp_path, forkserver):
    files = [str(tmp_path / name) for name in ("run", "c.yaml", "log")]
    (tmp_path / "held.py").write_text(HELD)
    done = forkserver.run("held", *files, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert [file.name for file in tmp_path.iterdir()] == ["held.py"]


def test_a_mistake_in_the_config_is_left_as_data(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("system: {modle: 3}\n")
    job = Job("fit", tmp_path / "run", tmp_path / "c.yaml", tmp_path / "fit.log")
    assert perform(job) == 2
    outcome = read_outcome(job.outcome, 2)
    assert (outcome.status, outcome.kind, outcome.is_run_error) == ("failed", "UserError", False)
    assert outcome.where.endswith("c.yaml:1 system.modle")
    # The log has what the command prints.
    assert capsys.readouterr().err == f"error: {outcome.error}\n"


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (
            UserError("seed", "must be an integer", 3.5, "Write 3"),
            UserError,
            "seed: must be an integer, got 3.5. Write 3.",
        ),
        (RunError("task 'a'", "the loss must be finite"), RunError, "task 'a': the loss must be finite."),
        (ValueError("not\n today"), RunError, "ValueError: not today."),
    ],
)
def test_an_outcome_is_read_as_it_was_written(tmp_path, error, kind, line):
    Outcome.of(error).write(tmp_path / "fit.json")
    outcome = read_outcome(tmp_path / "fit.json", 1)
    assert outcome == Outcome.of(error)
    assert type(outcome.error) is kind
    assert str(outcome.error) == line
    assert [file.name for file in tmp_path.iterdir()] == ["fit.json"]


def test_a_process_that_left_no_outcome_is_lost(tmp_path):
    outcome = read_outcome(tmp_path / "fit.json", -9)
    assert (outcome.status, outcome.found, outcome.is_run_error) == ("lost", "exit code -9", False)


@pytest.mark.parametrize(
    ("trainer", "gpus", "several"),
    [
        ({}, 0, False),
        ({}, 1, False),
        ({}, 2, True),
        ({"accelerator": "cpu"}, 2, False),
        ({"devices": 1}, 2, False),
        ({"devices": "2"}, 0, True),
        ({"devices": -1, "accelerator": "gpu"}, 2, True),
        ({"devices": [1]}, 2, False),
        ({"devices": [0, 1]}, 2, True),
        ({"devices": 1, "num_nodes": 2}, 1, True),
    ],
)
def test_whether_lightning_starts_processes(trainer, gpus, several):
    assert has_several_devices(trainer, gpus) is several
