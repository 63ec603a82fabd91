"""The CIFAR-10 example on a small archive in CIFAR-10's own format, through the command line."""

import csv
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from torchvision.transforms import v2

from polytask.predictions import read_predictions
from tests.scripts import load_script

EXAMPLE = Path(__file__).parents[2] / "examples" / "cifar10"
SITE = Path(__file__).parent / "site"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
WORDS = (
    "--run-dir=run",
    "vars.val_size=20",
    "vars.batch_size=20",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
)


def pixels(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """A bright square on a dark ground, in one of two places that say the class."""
    random = np.random.default_rng(seed)
    classes = [i % 2 for i in range(count)]
    images = random.integers(0, 40, (count, 3, 32, 32), np.uint8)
    for image, label in zip(images, classes, strict=True):
        image[:, 12:20, 4 + 14 * label : 14 + 14 * label] += 200
    return images, classes


def batch(count: int, seed: int) -> bytes:
    images, classes = pixels(count, seed)
    return pickle.dumps({"data": images.reshape(count, -1), "labels": classes})


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder of a small archive, and the MD5 sums of its files."""
    root = tmp_path_factory.mktemp("cifar10")
    files = {name: batch(16, seed) for seed, name in enumerate(TRAIN)}
    files["test_batch"] = batch(12, 9)
    files["batches.meta"] = pickle.dumps({"label_names": [f"class{i}" for i in range(10)]})
    with tarfile.open(root / ARCHIVE, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    sums = {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    return root, sums | {ARCHIVE: hashlib.md5((root / ARCHIVE).read_bytes()).hexdigest()}


def polytask(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-W", "error", "-m", "polytask", command, str(EXAMPLE / "config.yaml")]
    return subprocess.run(
        [*call, "small.yaml", *WORDS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SITE)},
        capture_output=True,
        text=True,
        check=False,
    )


def module(name: str) -> ModuleType:
    return load_script(f"cifar10_{Path(name).stem}", EXAMPLE / name)


@pytest.mark.slow
def test_fit_test_and_predict(tmp_path: Path, small: tuple[Path, dict[str, str]]) -> None:
    root, sums = small
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"vars": {"root": str(root), "checksums": sums}}))
    for command in ("fit", "test", "predict"):
        done = polytask(tmp_path, command)
        assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "test" / "metrics.csv").open() as file:
        values = list(csv.DictReader(file))[-1]
    for key in (
        "classification/Accuracy",
        "segmentation/DiceScore",
        "loss/classification",
        "loss/segmentation",
        "loss/total",
    ):
        assert np.isfinite(float(values[f"test/{key}/epoch"])), key
    predictions = read_predictions(tmp_path / "run" / "predictions")
    assert predictions["classification"].shape == (12,)
    assert predictions["segmentation"].shape == (12, 32, 32)
    assert set(np.unique(predictions["segmentation"])) <= {0, 1}
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


def test_a_file_with_another_sum_is_refused(small: tuple[Path, dict[str, str]]) -> None:
    root, sums = small
    data = module("datasets/cifar10.py")
    data.Archive(str(root), True, sums, download=True)
    with pytest.raises(RuntimeError, match="not found or corrupted"):
        data.Archive(str(root), True, sums | {"data_batch_3": "0" * 32})


def test_a_sum_of_an_unknown_file_is_refused(small: tuple[Path, dict[str, str]]) -> None:
    with pytest.raises(ValueError, match="no file data_batch_6"):
        module("datasets/cifar10.py").Archive(str(small[0]), True, {"data_batch_6": "0" * 32})


def test_validation_is_cut_from_train(small: tuple[Path, dict[str, str]]) -> None:
    root, sums = small
    segmented = module("datasets/cifar10.py").SegmentedCIFAR10
    parts = {
        split: segmented(str(root), split, v2.Identity(), val_size=20, checksums=sums)
        for split in ("train", "val")
    }
    assert len(parts["val"]) == 20
    assert sorted(parts["train"].rows + parts["val"].rows) == list(range(80))


def test_image_and_mask_are_transformed_together(small: tuple[Path, dict[str, str]]) -> None:
    root, sums = small
    segmented = module("datasets/cifar10.py").SegmentedCIFAR10
    plain, flipped = (
        segmented(str(root), "test", transform, checksums=sums)
        for transform in (v2.Identity(), v2.RandomHorizontalFlip(p=1.0))
    )
    (image, targets), (mirror, mirrored) = plain[0], flipped[0]
    assert torch.equal(mirror, image.flip(-1))
    assert torch.equal(mirrored["segmentation"], targets["segmentation"].flip(-1))
    assert not torch.equal(mirrored["segmentation"], targets["segmentation"])


def test_the_mask_is_what_stands_out_from_the_border() -> None:
    images, _ = pixels(2, 0)
    mask = module("datasets/cifar10.py").foreground(torch.from_numpy(images[1]))
    expected = torch.zeros(32, 32, dtype=torch.int64)
    expected[12:20, 18:28] = 1
    assert torch.equal(mask, expected)


def test_the_backbone_keeps_its_places() -> None:
    models = module("models/resnet.py")
    features = models.ResNet18().eval()(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, 512, 4, 4)
    assert models.ClassificationHead(512, 10)(features).shape == (2, 10)
    assert models.SegmentationHead(512, 2)(features).shape == (2, 2, 32, 32)


def test_the_criterion_adds_up() -> None:
    losses = module("losses/multi_task_loss.py")
    scores = torch.zeros(1, 2, 2, 2)
    targets = {"classification": torch.tensor([1]), "segmentation": torch.tensor([[[0, 1], [0, 1]]])}
    outputs = {"classification": torch.zeros(1, 10), "segmentation": scores}
    found = losses.MultiTaskLoss(segmentation_weight=0.5)(outputs, targets)
    # P is 1/2 everywhere: the overlap is 1, both sums are 2, so that the soft Dice loss is 1/2.
    expected = (np.log(10), np.log(2) + 0.5)
    assert float(found["classification"]) == pytest.approx(expected[0])
    assert float(found["segmentation"]) == pytest.approx(expected[1])
    assert float(found["total"]) == pytest.approx(expected[0] + 0.5 * expected[1])
