"""Every project of this folder, taken through the command line and Python as its user would.

What is expected comes from the files that a run leaves, by numpy and scikit-learn: the table is project by
test.
"""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

import polytask
from tests.forkserver import ForkServer
from tests.launchers import NODES, launch
from tests.projects.conftest import PROJECTS, Case
from tests.projects.support import (
    assert_close,
    assert_same_weights,
    count_rows,
    in_order,
    last_values,
    predictions,
)

# What a project's user is told of his data.
pytestmark = pytest.mark.filterwarnings("ignore:.*are not among the .* categories known from training")
FLOAT64 = "trainer.precision=64-true"
EPOCHS = "trainer.max_epochs={}".format
TWO_DEVICES = "trainer.devices=2", "trainer.strategy=ddp"


def in_stage(stage: str, values: dict[str, float]) -> dict[str, float]:
    """The keys that a stage logs at its end."""
    return {f"{stage}/{key}/epoch": value for key, value in values.items()}


def test_every_folder_is_a_project_and_exemptions_name_tests():
    here = Path(__file__).parent
    folders = {path.name for path in here.iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert folders == {name for name, _, _ in PROJECTS.values()}
    tests = {
        name.removeprefix("test_")
        for name, value in globals().items()
        if name.startswith("test_") and "case" in inspect.signature(value).parameters
    }
    for name, (folder, config, project) in PROJECTS.items():
        assert (here / folder / config).exists(), name
        assert set(project.exempt) <= tests, name
        assert all(len(reason) > 20 for reason in project.exempt.values()), name


@pytest.mark.slow
def test_values_are_those_of_the_predictions(cli, case: Case):
    """What each evaluation logs follows from the predictions and the labels."""
    assert cli("check", case.config).code == 0
    fitted = cli("fit", case.config)
    assert fitted.code == 0, fitted.err
    run = fitted.run
    tested = cli("test", "--run-dir", run, "--ckpt", "last")
    assert tested.code == 0, tested.err
    predicted = cli("predict", "--run-dir", run, "--ckpt", "last")
    assert predicted.code == 0, predicted.err
    found = predictions(run / "predictions/predictions.parquet")
    expected = dict(case.project.expected(Path(), found))
    (evaluated,) = run.glob("test*/metrics.csv")
    assert_close(last_values(evaluated), in_stage("test", expected), 1e-5)
    assert_close(last_values(run / "metrics.csv"), in_stage("val", expected), 1e-5)


@pytest.mark.slow
def test_rows_in_another_order_have_the_same_predictions(cli, case: Case):
    """Of the predictor, and of the file joined by row."""
    run = cli("fit", case.config).run
    assert cli("predict", "--run-dir", run, "--ckpt", "last").code == 0
    written = predictions(run / "predictions/predictions.parquet")
    project = yaml.safe_load(Path(case.config).read_text())["project"]
    predictor = polytask.load(run / "checkpoints/last.ckpt", project=project)
    inputs = case.project.inputs(Path())
    for task, own in inputs.items() if case.project.by_task else [(None, inputs)]:
        order = np.random.default_rng(0).permutation(count_rows(own))
        found = predictor.predict(in_order(own, order), batch_size=4, task=task)
        assert set(found) == ({task} if case.project.by_task else set(predictor.names))
        for name, values in found.items():
            expected = np.stack([value for value in written[name] if value is not None])[order]
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("place", ["train:1", "train:7", "val:1", "last of an epoch"])
def test_stopped_and_resumed_is_never_stopped(cli, case: Case, monkeypatch: pytest.MonkeyPatch, place: str):
    """Weights and logged values, to the last bit."""
    callbacks = yaml.safe_load(Path(case.config).read_text())["trainer"].get("callbacks", [])
    words = (
        case.config,
        f"trainer.callbacks={json.dumps([*callbacks, {'_target_': 'stopping.Stopping'}])}",
        EPOCHS(3),
    )
    whole = cli("fit", *words, "--run-dir", "whole")
    assert whole.code == 0, whole.err
    if place == "last of an epoch":
        steps = int(last_values(Path("whole/metrics.csv"))["step"]) + 1
        place = f"train:{steps // 3}"
    monkeypatch.setenv("PROJECT_STOPS_AT", place)
    with pytest.raises(SystemExit):
        cli("fit", *words, "--run-dir", "stopped")
    monkeypatch.delenv("PROJECT_STOPS_AT")
    resumed = cli("fit", "--run-dir", "stopped", "--resume")
    assert resumed.code == 0, resumed.err
    assert_same_weights(Path("stopped"), Path("whole"))
    assert Path("stopped/metrics.csv").read_text() == Path("whole/metrics.csv").read_text()


def train(case: Case, start: Callable[..., None], run: str, words: tuple[str, ...]) -> None:
    """One epoch, and a second one of the resumed run."""
    words = case.config, *case.project.plain, FLOAT64, *words, "--run-dir", run
    start(*words, EPOCHS(1))
    start(*words, EPOCHS(2), "--resume")


@pytest.mark.long
@pytest.mark.parametrize("way", ["devices", "torchrun", "nodes under Slurm"])
def test_two_processes_train_as_one(cli, case: Case, forkserver: ForkServer, tmp_path: Path, way: str):
    """One run folder, and in float64 the weights of one process that has the joined batches."""

    def alone(*words: str) -> None:
        result = cli("fit", *words)
        assert result.code == 0, result.err

    def devices(*words: str) -> None:
        done = forkserver.run("polytask", "fit", *words, *TWO_DEVICES, cwd=Path.cwd(), warnings="ignore")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run: ") == 1

    def torchrun(*words: str) -> None:
        options = "--standalone", "--nproc-per-node", "2", "-m", "polytask"
        command = [sys.executable, "-m", "torch.distributed.run", *options, "fit", *words, *TWO_DEVICES]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run: ") == 1

    def nodes(*words: str) -> None:
        group = tmp_path / f"group{len(list(tmp_path.iterdir()))}"
        ended = launch(forkserver, "SLURMEnvironment", group, "fit", *words, *NODES)
        assert ended.codes == [0, 0], ended.err
        assert ended.out[0].count("run: ") == 1
        assert ended.out[1] == ""

    starts = {"devices": devices, "torchrun": torchrun, "nodes under Slurm": nodes}
    train(case, alone, "runs/one", case.project.one)
    train(case, starts[way], "runs/two", case.project.two)
    assert {path.name for path in Path("runs").iterdir()} == {"one", "two"}
    assert_same_weights(Path("runs/two"), Path("runs/one"), 1e-10)


@pytest.mark.slow
def test_python_gives_the_numbers_of_the_config(cli, case: Case, forkserver: ForkServer):
    """Twice in one process: the second training has nothing of the first."""
    fitted = cli("fit", case.config)
    assert fitted.code == 0, fitted.err
    module = case.project.script.removesuffix(".py")
    done = forkserver.run(module, cwd=Path.cwd(), warnings="ignore")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert second == first
    values = last_values(fitted.run / "metrics.csv")
    ended = {key for key in values if key.startswith(("val/", "train/")) and key.endswith("/epoch")}
    assert_close(first, {key: values[key] for key in ended}, 1e-6)
