"""Jobs in processes: what they leave, and how they end."""

import os
import signal
from pathlib import Path

import pytest
import torch

from polytask import UserError
from polytask.compare._command import read_cost
from polytask.compare._job import Job
from polytask.compare._launcher import start
from polytask.compare._outcome import read_outcome
from polytask.config import Config


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '{"seconds": "x", "peak_memory_mb": 1}'])
def test_a_runs_damaged_cost_says_what_to_delete(cli, demo, text):
    run = demo / "runs" / "one"
    run.mkdir(parents=True)
    (run / "cost.json").write_text(text)
    with pytest.raises(
        UserError,
        match=r"cost.json: must contain seconds and peak_memory_mb: .*Delete it and .*one to train again",
    ):
        read_cost(run)


@pytest.mark.slow
def test_a_job_of_two_devices_is_done_by_a_python_of_its_own(demo):
    config = Config.read(["config.yaml"], ["trainer.devices=2", "trainer.max_epochs=1"])
    config.dump("two.yaml")
    job = Job("fit", Path("runs/two"), Path("two.yaml"), Path("logs/two.log"))
    process = start(job)
    process.join()
    assert read_outcome(job.outcome, process.exitcode).status == "done", job.log.read_text()
    # The second process joined the first: it trained in the same run, and reported nothing.
    assert [run.name for run in Path("runs").glob("[!.]*")] == ["two"]
    assert job.log.read_text().count("run: runs/two\n") == 1
    assert torch.load("runs/two/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    assert read_cost(job.run)["seconds"] > 0


@pytest.mark.slow
def test_a_job_that_is_killed_is_lost_and_one_that_is_stopped_is_interrupted(demo):
    text = (demo / "config.yaml").read_text()
    (demo / "config.yaml").write_text(text.replace("max_epochs: 2", "max_epochs: 10_000"))
    Config.read(["config.yaml"]).dump("long.yaml")
    for number, status in ((signal.SIGKILL, "lost"), (signal.SIGTERM, "interrupted")):
        name = signal.Signals(number).name
        job = Job("fit", Path("runs") / name, Path("long.yaml"), Path("logs") / f"{name}.log")
        process = start(job)
        while process.is_alive() and not (job.run / "checkpoints" / "last.ckpt").exists():
            process.join(0.01)
        os.kill(process.pid, number)
        process.join()
        assert read_outcome(job.outcome, process.exitcode).status == status
        assert not job.is_done
