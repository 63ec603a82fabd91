"""The MNIST example on small IDX files, through the command line."""

import csv
import gzip
import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from polytask.predictions import read_predictions
from tests.forkserver import ForkServer
from tests.scripts import load_script

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist"
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SMALL = ("vars.val_size=100", "vars.batch_size=32", "trainer.max_epochs=3")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose two parallel bars say the digit: by their distance, and by lying or standing."""
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = np.random.default_rng(seed).integers(0, 10, (count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        off = 2 + 2 * (int(label) // 2)
        drawn = image.T if label % 2 else image
        drawn[13 - off : 15 - off, 4:24] = drawn[13 + off : 15 + off, 4:24] = 255
    return images, labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for (images, labels), names in ((digits(600, 0), FILES[:2]), (digits(100, 1), FILES[2:])):
        (folder / names[0]).write_bytes(idx(images))
        (folder / f"{names[1]}.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def polytask(server: ForkServer, root: Path, command: str) -> subprocess.CompletedProcess[str]:
    words = (str(EXAMPLE / "config.yaml"), f"vars.root={root}", "--run-dir", "run", *SMALL)
    return server.run("polytask", command, *words, cwd=root)


def module() -> ModuleType:
    return load_script("mnist_example", EXAMPLE / "mnist.py")


def test_fit_test_and_predict(root: Path, forkserver: ForkServer) -> None:
    for command in ("fit", "test", "predict"):
        done = polytask(forkserver, root, command)
        assert done.returncode == 0, done.stderr
    with (root / "run" / "test" / "metrics.csv").open() as file:
        values = list(csv.DictReader(file))[-1]
    assert float(values["test/digit/Accuracy/epoch"]) > 0.9
    assert float(values["test/parity/Accuracy/epoch"]) > 0.9
    predictions = read_predictions(root / "run" / "predictions")
    assert (predictions["digit"] == np.arange(100) % 10).mean() > 0.9
    assert (predictions["parity"] == np.arange(100) % 2).mean() > 0.9


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision downloads them")
def test_missing_files_are_named_with_their_place(root: Path, forkserver: ForkServer) -> None:
    folder = root / "MNIST" / "raw"
    for path in folder.iterdir():
        path.unlink()
    done = polytask(forkserver, root, "fit")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for text in (*FILES, str(folder), "torchvision"):
        assert text in done.stderr


def test_a_cut_file_is_refused_by_name(root: Path) -> None:
    path = root / "MNIST" / "raw" / FILES[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{FILES[0]}: is not a whole IDX file"):
        module().MNIST(str(root), "val", val_size=100)


def test_labels_are_those_of_the_images(root: Path) -> None:
    path = root / "MNIST" / "raw" / f"{FILES[1]}.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(599, np.uint8))))
    with pytest.raises(ValueError, match="600 train images, but 599 labels"):
        module().MNIST(str(root), "train", val_size=100)


@pytest.mark.parametrize("val_size", [0, 600])
def test_validation_leaves_something_to_train_on(root: Path, val_size: int) -> None:
    with pytest.raises(ValueError, match="val_size"):
        module().MNIST(str(root), "train", val_size=val_size)


def test_validation_is_cut_from_train(root: Path) -> None:
    mnist = module()
    parts = {split: mnist.MNIST(str(root), split, val_size=100) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 500, "val": 100, "test": 100}
    rows = {split: mnist.rows_of(split, 600, 100, 0).tolist() for split in ("train", "val")}
    assert sorted(rows["train"] + rows["val"]) == list(range(600))
    assert parts["val"].digits.tolist() == [row % 10 for row in rows["val"]]


def test_an_item_is_a_row_of_a_batch(root: Path) -> None:
    data = module().MNIST(str(root), "test")
    images, targets = data.__getitems__([3, 7])
    image, target = data[7]
    assert image.shape == (1, 28, 28)
    assert torch.equal(image, images[1])
    assert {task: int(value) for task, value in target.items()} == {"digit": 7, "parity": 1}
    assert {task: value.tolist() for task, value in targets.items()} == {"digit": [3, 7], "parity": [1, 1]}


def test_augmentation_without_amounts_changes_nothing(root: Path) -> None:
    mnist = module()
    plain, still, moved = (
        mnist.MNIST(str(root), "test", augment=augment)[0][0]
        for augment in (None, mnist.RandomAffine(0, 0, 0), mnist.RandomAffine(10, 0.1, 1))
    )
    assert float((still - plain).abs().max()) < 1e-3
    assert float((moved - plain).abs().max()) > 0.1


def test_straighten_undoes_slant_and_place() -> None:
    upright, slanted = torch.zeros(2, 28, 28)
    upright[4:24, 13:15] = 1
    for row in range(4, 24):
        left = 15 + (row - 4) // 4
        slanted[row - 2, left : left + 2] = 1
    straight = module().straighten(torch.stack([upright, slanted]))
    assert float((straight[0] - upright).abs().max()) < 1e-4
    columns = straight[1].sum(dim=0)
    assert float(columns[12:16].sum()) > 0.95 * float(columns.sum())


def test_an_empty_image_stays_empty() -> None:
    assert float(module().straighten(torch.zeros(1, 28, 28)).abs().sum()) == 0
