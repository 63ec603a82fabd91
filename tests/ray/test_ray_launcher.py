"""Comparisons on a Ray of two workers: the same table as with processes, also after a kill."""

import signal
from collections.abc import Iterator

import pytest

pytest.importorskip("optuna")
ray = pytest.importorskip("ray")

from polytask import RunError, UserError  # noqa: E402
from polytask.compare import Comparison, RayCluster, compare  # noqa: E402
from polytask.compare._job import Job  # noqa: E402
from polytask.compare._ray import _work_there  # noqa: E402
from tests.comparisons import comparing, kill, numbers, rows  # noqa: E402

ARGUMENTS = ["compare", "config.yaml", "--methods", "uw", "--seeds", "1", "--trials", "2", "--jobs", "2"]
LOST = '''

class Lost(Points):
    """Takes the worker of the cluster away."""

    def __init__(self, rows=24):
        import multiprocessing

        os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
'''


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def test_the_table_is_that_of_processes_also_after_a_kill(cli, demo, cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    assert cli(*ARGUMENTS, "--dir", "processes").code == 0
    given = {"methods": ["uw"], "seeds": 1, "trials": 2}
    # In the trials, and in the trainings or tests.
    for lines in (1, 4):
        assert kill(lines, comparing, given, RayCluster, "killed") == -signal.SIGKILL
    assert not (demo / "killed/table.csv").exists()
    result = cli(*ARGUMENTS, "--launcher", "ray", "--dir", "killed")
    assert (result.code, result.err) == (0, "")
    # It found a Ray that was connected to, and left it so.
    assert ray.is_initialized()
    assert numbers(demo / "killed") == numbers(demo / "processes")
    assert rows(demo / "killed") == rows(demo / "processes")


@pytest.mark.usefixtures("cluster")
def test_as_many_runs_as_the_cluster_has_cpus():
    with RayCluster() as all_of_it, RayCluster(1) as one:
        assert (all_of_it.at_once, all_of_it.threads) == (2, 1)
        assert (one.at_once, one.threads) == (1, 2)


@pytest.mark.usefixtures("cluster")
def test_a_row_that_fails_is_left_out_with_its_reason(cli, demo):
    (demo / "wild.yaml").write_text("system: {optimizer: {lr: 1.0e+30}}")
    words = ["--methods", "wild.yaml", "--seeds", "1", "--launcher", "ray", "--dir", "wild"]
    result = cli("compare", "config.yaml", *words)
    assert (result.code, result.err) == (
        1,
        "error: polytask compare: every row must have a result, got none for wild-base.\n",
    )
    assert "Left out: wild-base failed with seed 0: task 'shape': the loss must be finite" in result.out
    assert [row["method"] for row in rows(demo / "wild")] == ["plain_sum"]


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_lost_is_a_run_that_failed(demo):
    data = (demo / "data.py").read_text()
    (demo / "data.py").write_text(data + LOST)
    text = (demo / "config.yaml").read_text().replace("data.Points, rows: 24", "data.Lost, rows: 24")
    (demo / "config.yaml").write_text(text)
    comparison = Comparison(["config.yaml"], [], seeds=1)
    with pytest.raises(
        RunError, match=r"plain_sum-base-seed0: polytask fit must run to its end, got .*[Ww]orker"
    ):
        compare(comparison, "lost", RayCluster())
    # And the comparison goes on where it stopped.
    (demo / "data.py").write_text(f"{data}\n\nLost = Points\n")
    assert compare(comparison, "lost", RayCluster()).rows[0].method == "plain_sum"


@pytest.mark.usefixtures("cluster")
def test_more_gpus_than_a_host_has_are_refused(tmp_path):
    job = Job("fit", tmp_path / "run", tmp_path / "c.yaml", tmp_path / "fit.log", gpus=2)
    with RayCluster() as cluster:
        with pytest.raises(UserError, match=r"run run: a host with 2 GPUs is required, got 0"):
            cluster.start(Job(**{**vars(job), "needs_gpus": True}))
        # What can do without them runs: here it finds no config.
        cluster.start(job)
        (ended,) = cluster.ended()
    assert ended.outcome.kind == "UserError"


def test_an_address_that_does_not_answer(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match=r"--launcher ray: Ray must be reachable at '127\.0\.0\.1:1'"):
        RayCluster().__enter__()


def test_a_folder_that_a_host_does_not_have(tmp_path):
    job = Job("fit", tmp_path / "run", tmp_path / "none.yaml", tmp_path / "fit.log")
    error = _work_there(job, tmp_path).error
    assert isinstance(error, UserError)
    assert error.where.endswith("none.yaml")
    assert error.rule == "the folder must be the same on all hosts"
