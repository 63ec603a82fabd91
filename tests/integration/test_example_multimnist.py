"""The MultiMNIST example on small IDX files, and the benchmark that compares weightings on it."""

import gzip
import importlib
import logging
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from polytask import weighting
from polytask.compare import Result, Table
from polytask.predictions import read_predictions
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "multimnist"
TRAIN, TEST = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
SMALL = ("vars.val_size=20", "vars.batch_size=20")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images of one brightness each, their number's, and labels that are its last figure."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for (images, labels), count in ((TRAIN, 100), (TEST, 30)):
        numbers = np.arange(count, dtype=np.uint8)
        pixels = np.broadcast_to(numbers[:, None, None], (count, 28, 28))
        (folder / images).write_bytes(idx(pixels))
        (folder / f"{labels}.gz").write_bytes(gzip.compress(idx(numbers % 10)))
    return tmp_path


@pytest.fixture(scope="module")
def two_digits() -> ModuleType:
    return load_script("two_digits_example", EXAMPLE / "two_digits.py")


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark with one weighting, whose table goes to a folder of the test."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    found = importlib.import_module("multimnist_compare")
    for module in (found, importlib.import_module("_table")):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(found, "METHODS", ("uw",))
    lightning = logging.getLogger("pytorch_lightning")
    level = lightning.level
    yield found
    lightning.setLevel(level)


def numbers(data: torch.utils.data.Dataset) -> tuple[list[int], list[int]]:
    """The numbers of the left and the right images, from corners that only one of them covers."""
    images = data.inputs[""]
    assert images.dtype == torch.uint8
    assert images.shape == (len(data), 1, 28, 28)
    return images[:, 0, 0, 0].tolist(), images[:, 0, 25, 25].tolist()


def test_fit_test_and_predict(cli, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(EXAMPLE / "config.yaml"), f"vars.root={root}", *SMALL]
    for command in ("fit", "test", "predict"):
        result = cli(command, *words, "trainer.max_epochs=1", "--run-dir", "run")
        assert result.code == 0, result.err
    predictions = read_predictions(tmp_path / "run" / "predictions")
    shapes = {name: array.shape for name, array in predictions.items()}
    assert shapes == {"left": (30, 10), "right": (30, 10)}


def test_digits_stand_where_the_paper_has_them(two_digits):
    draw = np.random.default_rng(0)
    left, right = draw.integers(0, 256, (2, 3, 28, 28), np.uint8)
    canvas = np.zeros((3, 36, 36), np.uint8)
    for row in range(28):
        for column in range(28):
            canvas[:, row, column] = left[:, row, column]
    for row in range(28):
        for column in range(28):
            place = canvas[:, row + 6, column + 6]
            canvas[:, row + 6, column + 6] = np.maximum(place, right[:, row, column])
    nearest = [math.floor(pixel * 36 / 28) for pixel in range(28)]
    expected = canvas[:, nearest][:, :, nearest]
    found = two_digits.overlaid(torch.from_numpy(left), torch.from_numpy(right))
    np.testing.assert_array_equal(found.squeeze(1).numpy(), expected)


def test_no_digit_of_a_split_is_in_another(two_digits, root):
    train, val = (two_digits.MultiMNIST(str(root), split, val_size=20) for split in ("train", "val"))
    (left, right), (val_left, val_right) = numbers(train), numbers(val)
    assert sorted(left) == sorted(right)
    assert sorted(val_left) == sorted(val_right)
    assert sorted(left + val_left) == list(range(100))
    assert left != right


def test_labels_are_those_of_their_images(two_digits, root):
    data = two_digits.MultiMNIST(str(root), "test")
    for task, found in zip(("left", "right"), numbers(data), strict=True):
        # The brighter one is seen where both are, and each alone in its corner.
        assert data.targets[task].tolist() == [number % 10 for number in found]


def test_pairs_are_the_same_for_every_seed_of_a_training(two_digits, root):
    pairs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        pairs.append(numbers(two_digits.MultiMNIST(str(root), "train", val_size=20)))
    assert pairs[0] == pairs[1]


def test_fewer_rows_leave_validation_as_it_is(two_digits, root):
    few = two_digits.MultiMNIST(str(root), "train", val_size=20, rows=30)
    val, again = (two_digits.MultiMNIST(str(root), "val", val_size=20, rows=rows) for rows in (None, 30))
    assert len(few) == 30
    assert numbers(val) == numbers(again)
    assert not set(numbers(few)[0]) & set(numbers(val)[0])


@pytest.mark.parametrize(("val_size", "rows"), [(0, None), (100, None), (20, 81), (20, 0), (-1, 5)])
def test_splits_need_digits(two_digits, root, val_size, rows):
    with pytest.raises(ValueError, match="100 digits are not enough"):
        two_digits.MultiMNIST(str(root), "train", val_size=val_size, rows=rows)


@pytest.mark.parametrize("damaged", [b"", b"\0\0", b"\0\0\x0b\x01", idx(np.zeros(5, np.uint8))[:-1]])
def test_a_damaged_file_is_refused_by_name(two_digits, root, damaged):
    (root / "MNIST" / "raw" / TRAIN[0]).write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{TRAIN[0]}: is not a whole IDX file"):
        two_digits.MultiMNIST(str(root), "train", val_size=20)


def test_files_that_do_not_belong_together_are_refused(two_digits, root):
    (root / "MNIST" / "raw" / f"{TRAIN[1]}.gz").write_bytes(gzip.compress(idx(np.zeros(99, np.uint8))))
    with pytest.raises(ValueError, match="100 images, but 99 labels"):
        two_digits.MultiMNIST(str(root), "train", val_size=20)


def test_a_missing_file_is_named(cli, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (root / "MNIST" / "raw" / TRAIN[0]).unlink()
    result = cli("fit", str(EXAMPLE / "config.yaml"), f"vars.root={root}", *SMALL)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert TRAIN[0] in result.err


def test_the_network_has_the_size_of_the_papers(two_digits):
    # 10 x 25 + 10, 20 x 250 + 20, 320 x 50 + 50
    assert sum(parameter.numel() for parameter in two_digits.LeNet().parameters()) == 260 + 5020 + 16050
    assert two_digits.LeNet()(torch.zeros(3, 1, 28, 28)).shape == (3, 50)


def test_the_benchmark_names_weightings(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    methods = importlib.import_module("multimnist_compare").METHODS
    assert len(set(methods)) == len(methods) == 7
    assert set(methods) <= {name.lower() for name in weighting.__all__}


@pytest.mark.usefixtures("_as_before")
def test_the_benchmark_keeps_its_table_and_repeats_nothing(benchmark, root, tmp_path, monkeypatch, capsys):
    project = shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    config = project / "config.yaml"
    config.write_text(config.read_text().replace("val_size: 5000", "val_size: 20"))
    monkeypatch.setattr(benchmark, "CONFIG", config)
    few = ["--epochs", "1", "--rows", "40", "--trials", "1", "--seeds", "1"]
    few += ["--folder", str(tmp_path / "kept")]
    monkeypatch.setattr(sys, "argv", ["multimnist_compare.py", str(root), *few])
    benchmark.main()
    text = (tmp_path / "results" / "multimnist_compare.md").read_text()
    assert text.startswith(
        "# MultiMNIST, test accuracy, shortened: 1 epoch of 40 training images, where the "
    )
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")] == [
        "| method",
        "| single_task",
        "| plain_sum",
        "| uw",
    ]
    assert "- **uw**: 1 seed: no interval" in text
    assert "4/4 test" in capsys.readouterr().out
    benchmark.main()
    assert (tmp_path / "results" / "multimnist_compare.md").read_text() == text
    assert " test " not in capsys.readouterr().out.partition("#")[0]


def table(gain: float) -> Table:
    """Five seeds of the tuned plain sum and of a weighting that is better by this much."""
    results = [
        Result(method, "base", kind, seed, task, "Accuracy", value, True, "test", 1.0, 9.0, f"{method}{seed}")
        for seed in range(5)
        for task in ("left", "right")
        for method, kind, value in (
            ("plain_sum", "plain_sum", 0.9 + 0.01 * seed),
            ("uw", "method", 0.9 + 0.01 * seed + gain + 0.0001 * (seed % 2)),
        )
    ]
    return Table(results, trials=4)


@pytest.mark.parametrize(
    ("gain", "better", "worse"), [(0.01, "uw", "none"), (-0.01, "none", "uw"), (-0.00004, "none", "none")]
)
def test_findings_say_what_is_beyond_the_noise(benchmark, gain, better, worse):
    (found,) = benchmark.findings(table(gain))
    assert found.endswith(f"on a task: {better}; worse on a task: {worse}.")
