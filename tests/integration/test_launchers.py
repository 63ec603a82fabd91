"""However its processes are started, a training has one run folder, one process's weights, and an end."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pytorch_lightning.plugins import environments

from tests.launchers import LAUNCHERS, NODES, SRUN, launch

EPOCHS = "trainer.max_epochs={}".format
DATASET = "system.dataloaders.train.dataset._target_={}".format
BATCH = "system.dataloaders.train.batch_size={}".format
PROJECT = '''\
import os
import signal

import torch
from torch import nn

from data import Points


class Plain(nn.Module):
    """Without batch statistics and random numbers: the joined batch gives the same step."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 6), nn.Tanh())
        self.heads = nn.ModuleDict({"shape": nn.Linear(6, 3), "height": nn.Linear(6, 1)})

    def forward(self, x):
        return {name: head(self.backbone(x)) for name, head in self.heads.items()}


def is_second():
    return torch.distributed.get_rank() == 1


class MissingOnSecond(Points):
    """Not there on the second node."""

    def __init__(self, rows=24):
        super().__init__(rows)
        if is_second():
            open("missing.csv")


class FailingOnSecond(Points):
    def __getitem__(self, i):
        if is_second() and i > 12:
            raise OSError("the disk is gone")
        return super().__getitem__(i)


class KilledOnSecond(Points):
    def __getitem__(self, i):
        if is_second() and i > 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)
'''


STARTED = [name for name, launcher in LAUNCHERS.items() if not launcher.missing]
# One that Lightning detects, and that of a user who starts each process himself.
SAMPLE = {"SLURMEnvironment", "LightningEnvironment"}
every_launcher = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.long) for name in STARTED]
)


def test_every_cluster_environment_has_a_launcher():
    found = {
        name
        for name, value in inspect.getmembers(environments, inspect.isclass)
        if issubclass(value, environments.ClusterEnvironment) and not inspect.isabstract(value)
    }
    assert found == set(LAUNCHERS)


@pytest.fixture
def project(demo):
    """The demo without random numbers, in float64."""
    (demo / "plain.py").write_text(PROJECT)
    (demo / "hosts").write_text("launch\nnode0\nnode1\n")
    config = yaml.safe_load((demo / "config.yaml").read_text())
    config["trainer"]["precision"] = "64-true"
    config["system"]["model"] = {"_target_": "plain.Plain"}
    config["system"]["dataloaders"]["train"]["shuffle"] = False
    (demo / "config.yaml").write_text(yaml.safe_dump(config))
    return demo


def last(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def rows(run: Path) -> list[str]:
    return (run / "metrics.csv").read_text().splitlines()


def only_run(project: Path) -> Path:
    (run,) = Path("runs", project.name).iterdir()
    return run


def assert_trained_as_by_one(cli, run: Path) -> None:
    """Compare with one process that has the joined batches."""
    assert cli("fit", "config.yaml", BATCH(8), EPOCHS(2), "--run-dir", "one").code == 0
    one, found = last(Path("one")), last(run)
    assert one.keys() == found.keys()
    for key, value in one.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-10)
    steps = [[row.split(",")[:2] for row in rows(folder)] for folder in (Path("one"), run)]
    assert steps[0] == steps[1]


@every_launcher
def test_two_nodes_have_one_run_and_resume_it(cli, project, forkserver, tmp_path, name):
    words = "config.yaml", BATCH(4), *NODES
    first = launch(forkserver, name, tmp_path / "first", "fit", *words, EPOCHS(1))
    assert first.codes == [0, 0], first.err
    run = only_run(project)
    assert re.findall("^run: .*", first.out[0], re.MULTILINE) == [f"run: {run}"]
    assert first.out[1] == ""
    words = *words, EPOCHS(2), "--resume", "--run-dir", f"{run}"
    again = launch(forkserver, name, tmp_path / "again", "fit", *words)
    assert again.codes == [0, 0], again.err
    assert again.out[0].startswith(f"resuming {run} at step 3")
    assert again.out[1] == ""
    assert only_run(project) == run
    assert_trained_as_by_one(cli, run)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(cli, project, forkserver, tmp_path):
    alone, on_two = ("config.yaml", BATCH(8)), ("config.yaml", BATCH(4), *NODES)
    assert cli("fit", *alone, EPOCHS(1), "--run-dir", "more").code == 0
    go_on = EPOCHS(2), "--resume", "--run-dir"
    ended = launch(forkserver, "SLURMEnvironment", tmp_path / "more", "fit", *on_two, *go_on, "more")
    assert ended.codes == [0, 0], ended.err
    assert_trained_as_by_one(cli, Path("more"))
    first = EPOCHS(1), "--run-dir", "fewer"
    ended = launch(forkserver, "SLURMEnvironment", tmp_path / "fewer", "fit", *on_two, *first)
    assert ended.codes == [0, 0], ended.err
    assert cli("fit", *alone, *go_on, "fewer").code == 0
    for key, value in last(Path("one")).items():
        torch.testing.assert_close(last(Path("fewer"))[key], value, rtol=0, atol=1e-10)
    # Each process has fewer batches than the one had.
    same = "config.yaml", BATCH(8), *NODES, EPOCHS(3), "--resume", "--run-dir", "one"
    ended = launch(forkserver, "SLURMEnvironment", tmp_path / "same", "fit", *same)
    assert ended.codes == [0, 0], ended.err


@pytest.mark.slow
def test_two_nodes_that_are_stopped_in_an_epoch_resume_exactly(cli, demo, forkserver, tmp_path):
    """With shuffled rows, noise on them and dropout, of which each process has its own."""
    name, reads = "SLURMEnvironment", "system.dataloaders.train.dataset.reads=17"
    words = "config.yaml", *NODES, DATASET("data.Interrupting"), reads, "--run-dir"
    stopped = launch(forkserver, name, tmp_path / "first", "fit", *words, "stopped")
    assert sorted(stopped.codes) == [130, 143], stopped.err
    assert "in epoch 2 after step 5" in stopped.out[0]
    alone = cli("fit", "--resume", "--run-dir", "stopped", "trainer.num_nodes=1", "trainer.strategy=auto")
    assert alone.code == 2
    assert "processes: 2 are required to resume in the middle of an epoch, got 1" in alone.err
    for run, options in (("stopped", ["--resume"]), ("whole", [])):
        ended = launch(forkserver, name, tmp_path / run, "fit", *words, run, *options)
        assert ended.codes == [0, 0], ended.err
    one, found = last(Path("whole")), last(Path("stopped"))
    assert all(torch.equal(found[key], value) for key, value in one.items())
    assert rows(Path("stopped")) == rows(Path("whole"))


@pytest.mark.slow
def test_validation_and_predictions_of_two_nodes_are_said_once(cli, project, forkserver, tmp_path):
    run = cli("fit", "config.yaml").run
    words = "config.yaml", *NODES, "--run-dir", f"{run}"
    for command, line in (("validate", f"run: {run}"), ("predict", f"predictions: {run}/predictions")):
        ended = launch(forkserver, "SLURMEnvironment", tmp_path / command, command, *words)
        assert ended.codes == [0, 0], ended.err
        assert ended.out[0].splitlines()[-1] == line
        assert ended.out[1] == ""
    (file,) = run.glob("predictions/*")
    assert pq.read_table(file)["row"].to_pylist() == list(range(8))


TWO = "config.yaml", BATCH(4), "trainer.devices=2", "trainer.strategy=ddp", "--run-dir", "two"
# A run of one epoch, which is resumed for another.
TWO_EPOCHS = (*TWO, EPOCHS(1)), (*TWO, EPOCHS(2), "--resume")


@pytest.mark.slow
def test_two_devices_of_one_host_have_one_run(cli, project, forkserver):
    for words in TWO_EPOCHS:
        done = forkserver.run("polytask", "fit", *words, cwd=project, warnings="ignore")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "run: two"
    assert_trained_as_by_one(cli, Path("two"))


@pytest.mark.long
def test_torchrun_with_two_processes_has_one_run(cli, project):
    torchrun = "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "polytask"
    for words in TWO_EPOCHS:
        command = [sys.executable, "-m", *torchrun, "fit", *words]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        assert re.findall("^run: .*", done.stdout, re.MULTILINE) == ["run: two"]
    assert_trained_as_by_one(cli, Path("two"))


@pytest.mark.slow
def test_what_fails_on_one_node_before_the_training_ends_both(project, forkserver, tmp_path):
    words = "fit", "config.yaml", *NODES, DATASET("plain.MissingOnSecond")
    ended = launch(forkserver, "SLURMEnvironment", tmp_path / "group", *words)
    assert ended.codes == [1, 2]
    assert "error: process 1 of 2: must succeed for the others to continue" in ended.err[0]
    for said in ended.err:
        assert "missing.csv" in said.splitlines()[-1]
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_folder_that_is_taken_ends_both_nodes(project, forkserver, tmp_path):
    Path("taken").mkdir()
    Path("taken/config.yaml").write_text("mine")
    words = "fit", "config.yaml", *NODES, "--run-dir", "taken"
    ended = launch(forkserver, "TorchElasticEnvironment", tmp_path / "group", *words)
    assert ended.codes == [2, 1]
    assert all("--run-dir taken: must be a new or an empty folder" in said for said in ended.err)
    assert Path("taken/config.yaml").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "code"),
    [("FailingOnSecond", 2), pytest.param("KilledOnSecond", -9, marks=pytest.mark.long)],
)
def test_what_fails_on_one_node_in_the_training_ends_both(project, forkserver, tmp_path, dataset, code):
    words = "fit", "config.yaml", *NODES, DATASET(f"plain.{dataset}")
    ended = launch(forkserver, "TorchElasticEnvironment", tmp_path / "group", *words)
    assert ended.codes == [1, code], ended.err


@pytest.mark.slow
def test_a_trainer_for_fewer_processes_than_were_started_trains_nothing(project, forkserver, tmp_path):
    words = "fit", "config.yaml", "trainer.devices=1"
    for name in ("TorchElasticEnvironment", "SLURMEnvironment"):
        ended = launch(forkserver, name, tmp_path / name, *words)
        assert ended.codes == [2, 2], ended.err
        for said in ended.err:
            assert said.startswith("error: trainer: devices times num_nodes must be 2")
    assert not Path("runs").exists()


def test_a_script_alone_in_a_larger_allocation_trains(cli, demo, monkeypatch):
    for key, value in SRUN.items():
        monkeypatch.setenv(key, value.format(rank=0))
    monkeypatch.delenv("SLURM_STEP_ID")
    assert cli("fit", "config.yaml", EPOCHS(1), "trainer.devices=1").code == 0


@pytest.mark.slow
def test_spawned_processes_of_several_nodes_are_refused(cli, demo):
    result = cli(
        "fit", "config.yaml", "trainer.num_nodes=2", "trainer.devices=2", "trainer.strategy=ddp_spawn"
    )
    assert result.code == 2
    assert result.err.startswith("error: trainer.strategy: must be ddp on several nodes")
