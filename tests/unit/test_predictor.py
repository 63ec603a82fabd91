import numpy as np
import pytest
import torch
from torch import nn

from polytask import System, UserError
from polytask.config import Config
from polytask.predictions import read_predictions
from polytask.predictor import Predictor, load


def points(rows=8):
    angles = 2 * np.pi * (np.arange(rows) * 0.618 % 1)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.fixture
def run(demo, cli):
    done = cli("fit", "config.yaml", "--quiet")
    assert done.code == 0, done.err
    return done.run


def test_a_run_predicts_what_the_command_writes(run, cli):
    assert cli("predict", "config.yaml", "--quiet").code == 0
    written = read_predictions(next(run.parent.parent.parent.rglob("predictions.parquet")).parent)
    predictor = load(run)
    predicted = predictor.predict(points(), batch_size=3)
    assert set(predicted) == set(written) == set(predictor.names)
    for task, values in predicted.items():
        np.testing.assert_allclose(values, written[task], rtol=1e-4, atol=1e-5)
        assert type(values) is np.ndarray


def test_the_newest_of_several_runs(run):
    assert repr(load(run.parent)) == repr(load(run)) == "Predictor(Net, tasks=['shape', 'height'])"


def test_a_checkpoints_code_is_imported_only_where_it_is_named(run, demo):
    file = run / "checkpoints" / "best.ckpt"
    with pytest.raises(
        UserError, match=r"imported only on request, and 'net.Net' needs it. Pass project=DIR"
    ):
        load(file)
    np.testing.assert_array_equal(
        load(file, project=demo).predict(points())["shape"], load(run).predict(points())["shape"]
    )
    assert load(run, project=demo).names == ("shape", "height")


def test_loading_draws_no_random_numbers_of_the_callers(run):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(run)
    assert torch.equal(torch.rand(2), expected)


def test_inputs_of_any_kind_and_dropout_is_off(run, tmp_path):
    predictor = load(run)
    expected = predictor.predict(points())
    np.save(tmp_path / "points.npy", points())
    for inputs in (
        torch.tensor(points()),
        points().astype(np.float16),
        points().tolist(),
        tmp_path / "points.npy",
    ):
        predicted = predictor.predict(inputs)
        for task, values in expected.items():
            np.testing.assert_allclose(predicted[task], values, atol=5e-3)
    assert not predictor.model.training


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((3, 5)), "model: Net failed on a tensor of shape"),
        (np.zeros((0, 2)), "inputs: must have at least one row"),
        (np.array([["a", "b"]]), "inputs: must contain numbers"),
        (points, "inputs: must contain numbers"),
    ],
)
def test_inputs_that_do_not_fit(run, inputs, message):
    with pytest.raises(UserError, match=message):
        load(run).predict(inputs)


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_batch_size_that_is_none(run, size):
    with pytest.raises(UserError, match="batch_size"):
        load(run).predict(points(), batch_size=size)


def test_a_device_that_is_not_there(run):
    with pytest.raises(UserError, match="device: must be available"):
        load(run, device="cuda:99")


def test_what_is_no_run_and_no_checkpoint(run, tmp_path):
    (tmp_path / "empty").mkdir()
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    (tmp_path / "torn.ckpt").write_bytes((run / "checkpoints" / "best.ckpt").read_bytes()[:1000])
    for name, message in {
        "absent.ckpt": r"must be an existing file, got .*absent\.ckpt",
        "empty": "empty: must be a run, or a folder of runs",
        "foreign.ckpt": "foreign.ckpt: the checkpoint must contain its config",
        "torn.ckpt": "torn.ckpt: must be a complete checkpoint",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            load(tmp_path / name)
        assert "--" not in str(caught.value)


def test_a_predictor_of_a_system_in_hand(run):
    system = load(run)._system
    assert Predictor(system).predict(points(2))["height"].shape == (2, 1)


OWN = """

import torch
from torch import nn
from polytask import System
from torchmetrics import MeanSquaredError


class Negated(System):
    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        predicted = super().predict_step(batch, batch_idx)
        return {**predicted, "outputs": {name: -values for name, values in predicted["outputs"].items()}}


class Unnamed(nn.Module):
    def forward(self, outputs, targets):
        return sum(value.mean() ** 2 for value in outputs.values())


class Kept(MeanSquaredError):
    def __init__(self):
        super().__init__()
        self.persistent(True)
"""


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["system._target_=net.Negated"],
        ["system.criterion={_target_: net.Unnamed}"],
        ["system.criterion.weighting={_target_: polytask.weighting.UW}"],
        ["system.criterion.weighting={_target_: polytask.weighting.MGDA}"],
        ["system.metrics.height={_target_: net.Kept}"],
        ["system.adapters={logging: {_target_: polytask.adapters.LoggingAdapter, "
         "pred_transforms: {shape: {_target_: torch.nn.Softmax, dim: 1}}}}"],
    ],
    ids=lambda overrides: "".join(overrides)[:40] or "as it is",
)  # fmt: skip
def test_a_loaded_model_predicts_what_its_system_predicts(demo, cli, overrides):
    with (demo / "net.py").open("a") as file:
        file.write(OWN)
    done = cli("fit", "config.yaml", *overrides, "--quiet")
    assert done.code == 0, done.err
    predictor = load(done.run)
    system = Config.read([done.run / "config.yaml"]).build("system", {"dataloaders": {}})
    checkpoint = torch.load(done.run / "checkpoints" / "best.ckpt", weights_only=True)
    system.load_state_dict(checkpoint["state_dict"])
    expected = Predictor(system).predict(points())
    predicted = predictor.predict(points())
    assert predictor.names == system.names
    assert predicted.keys() == expected.keys()
    for task, values in expected.items():
        np.testing.assert_array_equal(predicted[task], values)


def test_a_checkpoint_of_another_architecture(run):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("width: 8", "width: 9"))
    rule = r"got 4 of another shape, such as model.backbone.0.weight \(8, 2\) for \(9, 2\)"
    with pytest.raises(UserError, match=rule):
        load(run)


class ByTask(nn.Module):
    """Called with the number of a task; heads of two widths."""

    task_names = ("one", "two")

    def forward(self, x, task):
        return x[:, :1] * 2 if task == 0 else x * 3


def test_rows_of_a_task_are_predicted_by_its_name():
    predictor = Predictor(System(ByTask(), nn.MSELoss()))
    x = np.ones((3, 2), dtype=np.float32)
    assert predictor.predict(x, batch_size=2, task="one")["one"].tolist() == [[2.0]] * 3
    found = predictor.predict(x, batch_size=2, task="two")
    assert {name: values.tolist() for name, values in found.items()} == {"two": [[3.0, 3.0]] * 3}
    with pytest.raises(UserError, match="task: no task is called 'three'"):
        predictor.predict(x, task="three")
