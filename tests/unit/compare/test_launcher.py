"""Launchers: how many jobs at a time, what a failure says, and what happens without Ray."""

import sys
from pathlib import Path

import pytest

from polytask import RunError, UserError
from polytask.compare import Launcher, Processes, RayCluster
from polytask.compare._job import Job
from polytask.compare._jobs import run_jobs
from polytask.compare._launcher import Ended
from polytask.compare._outcome import Outcome
from polytask.compare._run import gpus

ROOT = Path(__file__).parents[3]


OUTCOMES = {
    "0": Outcome("done"),
    "1": Outcome.of(RunError("task 'a'", "the loss must be finite", "nan", "Lower the learning rate")),
    "2": Outcome.of(UserError("c.yaml:3 system.model", "must be a module", "3")),
    "3": Outcome.of(ValueError("not today")),
    "8": Outcome.of(KeyboardInterrupt()),
    "9": Outcome.lost("exit code -9"),
}


class Ending(Launcher):
    """Ends each job at once, the last one first, with the outcome that its name ends in."""

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
        return [Ended(job, OUTCOMES[job.name[-1]])]

    def stop(self):
        self.jobs_now = []


LINE = str(OUTCOMES["1"].error)


def jobs(folder, *names):
    return [Job("fit", folder / name, folder / "c.yaml", folder / f"{name}.log") for name in names]


def test_no_more_than_a_given_number_at_a_time(tmp_path):
    lines, launcher = [], Ending(2)
    assert run_jobs(jobs(tmp_path, "a0", "b0", "c0"), launcher, lines.append) == {}
    assert lines == ["1/3 fit b0", "2/3 fit c0", "3/3 fit a0"]
    assert launcher.most == 2


def test_what_is_done_is_not_done_again(tmp_path):
    lines, (first, second) = [], jobs(tmp_path, "a0", "b0")
    first.run.mkdir()
    (first.run / "cost.json").write_text("{}")
    run_jobs([first, second], Ending(1), lines.append)
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
        run_jobs([first, second, third], Ending(1), lines.append, check=check)
    assert seen == ["a0", "b0"]
    assert lines == ["2/3 fit b0"]


def test_what_a_look_finds_is_said_once_the_others_ended(tmp_path):
    lines = []

    def check(job):
        raise RunError(job.name, "is wrong")

    with pytest.raises(RunError, match="b0: is wrong"):
        run_jobs(jobs(tmp_path, "a1", "b0", "c0"), Ending(2), lines.append, may_fail=True, check=check)
    assert lines == ["1/3 fit b0", f"2/3 fit a1 failed: {LINE}"]
    assert (tmp_path / "a1.broken").exists()


@pytest.mark.parametrize(
    ("name", "error", "found"),
    [
        ("a1", RunError, r"task 'a': the loss must be finite, got nan\. Lower the learning rate\."),
        ("a2", UserError, r"c\.yaml:3 system\.model: must be a module, got 3\."),
        ("a3", RunError, r"ValueError: not today\."),
        ("a8", RunError, r"polytask fit must run to its end, got interrupted\."),
        ("a9", RunError, r"polytask fit must run to its end, got exit code -9\."),
    ],
)
def test_the_first_failure_is_raised_once_the_others_ended(tmp_path, name, error, found):
    lines = []
    with pytest.raises(error, match=rf"^run {name}: {found} See .*{name}\.log\.$"):
        run_jobs(jobs(tmp_path, "b0", name, "c0"), Ending(2), lines.append)
    assert lines == ["2/3 fit b0"]


def test_a_run_that_may_fail_is_passed_over_now_and_later(tmp_path):
    lines, found = [], jobs(tmp_path, "a1", "b0")
    assert run_jobs(found, Ending(1), lines.append, may_fail=True) == {"a1": LINE}
    assert lines == [f"1/2 fit a1 failed: {LINE}", "2/2 fit b0"]
    assert run_jobs(found[:1], Ending(1), lines.append, may_fail=True) == {"a1": ""}
    assert len(lines) == 2


@pytest.mark.parametrize("kind", [Processes, RayCluster])
def test_a_number_of_jobs_is_above_0(kind):
    with pytest.raises(UserError, match=r"--jobs: must be 1 or more, got 0"):
        kind(0)


def test_without_ray_its_extra_is_named(cli, demo, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = cli("compare", "config.yaml", "--methods", "uw", "--launcher", "ray")
    assert result.code == 2
    assert (
        "--launcher ray: Ray must be installed, got no such package. pip install 'polytask[ray]'"
        in result.err
    )
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


@pytest.mark.slow
def test_ctrl_c_waits_until_a_process_does_its_job(tmp_path, forkserver):
    """In a process in which nothing has begun another before."""
    code = (
        f"import sys\nsys.path.append({str(ROOT)!r})\n"
        "from pathlib import Path\nfrom polytask.compare import _launcher\n"
        "from polytask.compare._job import Job\nfrom tests.comparisons import note_mask, note_mask_for\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "job = Job('fit', folder / 'held', folder / 'c.yaml', folder / 'fit.log')\n"
        "_launcher.work = note_mask_for\n"
        "if __name__ == '__main__':\n    _launcher.start(job).join()\n    note_mask(folder / 'here')\n"
    )
    (tmp_path / "held_back.py").write_text(code)
    done = forkserver.run("held_back", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "held").read_text() == "True"
    assert (tmp_path / "here").read_text() == "False"
