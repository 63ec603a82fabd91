"""What a killed run leaves, and what the next one makes of it."""

import json
import os
import subprocess
import sys

import torch

from polytask.compare._work import Job, _earlier_seconds, _session


def left(folder, checkpoint=b"", noted=True):
    last = folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(checkpoint)
    if not checkpoint:
        torch.save({"state_dict": {}}, last)
    os.utime(last, (1030, 1030))
    if noted:
        _session(folder).write_text(json.dumps({"earlier": 10.0, "start": 1000.0}))
    return _earlier_seconds(folder)


def test_the_time_up_to_the_last_checkpoint_counts(tmp_path):
    assert left(tmp_path / "run") == 40.0


def test_a_run_without_a_whole_checkpoint_begins_anew(tmp_path):
    assert _earlier_seconds(tmp_path / "none") is None
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
from polytask.compare._work import Job, work

run, config, log = map(Path, sys.argv[1:])
# A process in the background may have been told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
signal.pthread_kill(threading.get_ident(), signal.SIGINT)
work(Job("fit", run, config, log))
"""


def test_ctrl_c_that_came_before_a_job_ends_it_without_a_word(tmp_path):
    files = [str(tmp_path / name) for name in ("run", "c.yaml", "log")]
    done = subprocess.run([sys.executable, "-c", HELD, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert not list(tmp_path.iterdir())
