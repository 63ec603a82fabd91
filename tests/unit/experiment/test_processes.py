"""Which processes a trainer has, and that they end together."""

import subprocess
import sys

import pytest
from pytorch_lightning import Trainer

from polytask import UserError
from polytask.experiment._processes import RunProcesses

OPTIONS = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}


def test_a_failure_ends_the_processes_that_were_started():
    trainer = Trainer(devices=2, strategy="ddp", **OPTIONS)
    waiting = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    trainer.strategy.launcher.procs.append(waiting)
    with pytest.raises(ValueError, match="here"), RunProcesses(trainer).ending_together():
        raise ValueError("here")
    waiting.communicate(b"\n")
    assert waiting.returncode == -9


def test_a_stop_by_a_signal_leaves_them_to_stop_as_well():
    trainer = Trainer(devices=2, strategy="ddp", **OPTIONS)
    waiting = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    trainer.strategy.launcher.procs.append(waiting)
    with pytest.raises(SystemExit), RunProcesses(trainer).ending_together():
        raise SystemExit(143)
    waiting.communicate(b"\n")
    assert waiting.returncode == 0


def test_a_mistake_before_any_process_is_started_starts_none():
    trainer = Trainer(devices=2, strategy="ddp", **OPTIONS)

    def fail():
        raise UserError("data", "is required")

    with pytest.raises(UserError, match="data: is required"):
        RunProcesses(trainer).on_each(fail)
    assert trainer.strategy.launcher.procs == []
