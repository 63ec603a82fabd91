"""Eight cameras, one encoder, three heads: through the command line."""

from pathlib import Path

import torch

from polytask.config import Config
from polytask.predictions import read_predictions

EXAMPLE = Path(__file__).parents[2] / "examples" / "hydra"
SMALL = ["system.dataloaders.train.dataset.rows=200", "trainer.max_epochs=1", "--run-dir", "run"]


def test_trains_and_predicts(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(EXAMPLE / "config.yaml"), *SMALL]
    assert cli("fit", *words).code == 0
    assert cli("predict", *words).code == 0
    predictions = read_predictions(Path("run/predictions"))
    shapes = {name: array.shape for name, array in predictions.items()}
    assert shapes == {"vehicle": (200, 8), "light": (200, 3), "lane": (200, 1)}
    loader = Config.read([EXAMPLE / "config.yaml"]).build("system.dataloaders.test")
    chosen = torch.as_tensor(predictions["vehicle"]).argmax(1)
    assert float((chosen == loader.dataset.targets["vehicle"]).float().mean()) > 0.5


def test_cameras_share_one_encoder_that_is_called_once():
    model = Config.read([EXAMPLE / "config.yaml"]).build("system.model")
    assert len(model.encoders) == 1
    calls = []
    model.encoders[0].register_forward_pre_hook(lambda module, args: calls.append(args[0].shape))
    outputs = model({camera: torch.rand(2, 3, 16, 16) for camera in model.encoder_indices})
    assert calls == [(16, 3, 16, 16)]
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "vehicle": (2, 8),
        "light": (2, 3),
        "lane": (2, 1),
    }
