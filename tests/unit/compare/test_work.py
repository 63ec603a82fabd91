"""What a killed run leaves, and what the next one makes of it."""

import json
import os
import signal

import pytest
import torch

from polytask.compare._work import Job, _earlier_seconds, _session, work


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


def test_ctrl_c_that_came_before_a_job_ends_it_without_a_word(tmp_path, capfd):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(SystemExit) as stop:
            work(Job("fit", tmp_path / "run", tmp_path / "c.yaml", tmp_path / "log"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == 130
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
