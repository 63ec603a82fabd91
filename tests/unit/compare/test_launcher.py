"""Launchers: how many jobs at a time, what a failure says, and what a missing Ray does."""

import subprocess
import sys
from pathlib import Path

import pytest

from polytask._errors import RunError, UserError
from polytask.compare import Launcher, Processes, RayCluster
from polytask.compare._jobs import failure, run_jobs
from polytask.compare._launcher import Ended
from polytask.compare._run import gpus
from polytask.compare._work import Job

ROOT = Path(__file__).parents[3]


class Codes(Launcher):
    """Ends each job at once, the last one first, with the code that its name ends in."""

    def __init__(self, jobs):
        super().__init__(jobs)
        self.at_once, self.threads, self.jobs_now, self.most = jobs, 1, [], 0

    @property
    def running(self):
        return len(self.jobs_now)

    def start(self, job):
        self.jobs_now.append(job)
        self.most = max(self.most, self.running)

    def ended(self):
        job = self.jobs_now.pop()
        return [Ended(job, int(job.name[-1]), "lost" if job.name.endswith("9") else "")]

    def stop(self):
        self.jobs_now = []


def jobs(folder, *names):
    found = [Job("fit", folder / name, folder / "c.yaml", folder / f"{name}.log") for name in names]
    for job in found:
        job.log.write_text(f"one line\nerror: of {job.name}\n\n")
    return found


def test_no_more_than_so_many_at_a_time(tmp_path):
    lines, launcher = [], Codes(2)
    assert run_jobs(jobs(tmp_path, "a0", "b0", "c0"), launcher, lines.append) == set()
    assert lines == ["1/3 fit b0", "2/3 fit c0", "3/3 fit a0"]
    assert launcher.most == 2


def test_what_is_done_is_not_done_again(tmp_path):
    lines, (first, second) = [], jobs(tmp_path, "a0", "b0")
    first.run.mkdir()
    (first.run / "cost.json").write_text("{}")
    run_jobs([first, second], Codes(1), lines.append)
    assert lines == ["2/2 fit b0"]


def test_what_is_done_is_looked_at_at_once(tmp_path):
    lines, seen, (first, second, third) = [], [], jobs(tmp_path, "a0", "b0", "c0")
    first.run.mkdir()
    (first.run / "cost.json").write_text("{}")

    def check(job):
        seen.append(job.name)
        if job == second:
            raise RunError("b0", "is wrong")

    with pytest.raises(RunError, match="b0: is wrong"):
        run_jobs([first, second, third], Codes(1), lines.append, check=check)
    assert seen == ["a0", "b0"]
    assert lines == ["2/3 fit b0"]


def test_what_a_look_finds_is_said_once_the_others_ended(tmp_path):
    lines = []

    def check(job):
        raise RunError(job.name, "is wrong")

    with pytest.raises(RunError, match="b0: is wrong"):
        run_jobs(jobs(tmp_path, "a1", "b0", "c0"), Codes(2), lines.append, may_fail=True, check=check)
    assert lines == ["1/3 fit b0", "2/3 fit a1 broke down: error: of a1"]
    assert (tmp_path / "a1.broken").exists()


@pytest.mark.parametrize(
    ("name", "error", "found"),
    [("a1", RunError, "of a1"), ("a2", UserError, "of a2"), ("a9", RunError, "lost")],
)
def test_the_first_failure_is_raised_once_the_others_ended(tmp_path, name, error, found):
    lines = []
    with pytest.raises(error, match=rf"run {name}: polytask fit failed, got {found}\. See .*{name}\.log"):
        run_jobs(jobs(tmp_path, "b0", name, "c0"), Codes(2), lines.append)
    assert lines == ["2/3 fit b0"]


def test_a_run_that_may_fail_is_passed_over_now_and_later(tmp_path):
    lines, found = [], jobs(tmp_path, "a1", "b0")
    assert run_jobs(found, Codes(1), lines.append, may_fail=True) == {"a1"}
    assert lines == ["1/2 fit a1 broke down: error: of a1", "2/2 fit b0"]
    assert run_jobs(found[:1], Codes(1), lines.append, may_fail=True) == {"a1"}
    assert len(lines) == 2


def test_a_job_without_a_word_in_its_log(tmp_path):
    job = Job("test", tmp_path / "a", tmp_path / "c.yaml", tmp_path / "none.log")
    assert "got exit code -9" in str(failure(Ended(job, -9)))


@pytest.mark.parametrize("kind", [Processes, RayCluster])
def test_a_number_of_jobs_is_above_0(kind):
    with pytest.raises(UserError, match=r"--jobs: is 1 or more, got 0"):
        kind(0)


def test_without_ray_its_extra_is_named(cli, demo, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = cli("compare", "config.yaml", "--methods", "uw", "--launcher", "ray")
    assert result.code == 2
    assert "--launcher ray: needs Ray, got it is not installed. pip install 'polytask[ray]'" in result.err
    assert not (demo / "comparisons").exists()


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({}, (1, False)),
        ({"accelerator": "cpu", "devices": 4}, (0, False)),
        ({"accelerator": "gpu", "devices": "auto"}, (1, True)),
        ({"accelerator": "cuda", "devices": [0, 1]}, (2, True)),
        ({"accelerator": "gpu", "devices": "2"}, (2, True)),
        ({"accelerator": "gpu", "devices": -1}, (1, True)),
    ],
)
def test_the_gpus_that_a_trainer_takes(trainer, expected):
    assert gpus(trainer) == expected


def test_ctrl_c_waits_until_a_process_does_its_job(tmp_path):
    """In a Python of its own, so that nothing has begun a process before."""
    code = (
        "import signal\nfrom pathlib import Path\n"
        "from polytask.compare import _launcher\nfrom tests.comparisons import note_mask\n"
        f"_launcher.work = note_mask\n_launcher.start(Path({str(tmp_path / 'held')!r})).join()\n"
        f"note_mask(Path({str(tmp_path / 'here')!r}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert (tmp_path / "held").read_text() == "True"
    assert (tmp_path / "here").read_text() == "False"
