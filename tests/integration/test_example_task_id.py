"""The example with task ids, through the command line."""

import csv
from pathlib import Path

import torch

from polytask.config import Config
from polytask.predictions import read_predictions
from tests.forkserver import ForkServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "task_id"
TASKS = ("task0", "task1", "task2")


def polytask(forkserver: ForkServer, folder: Path, command: str, *configs: str) -> None:
    files = [str(EXAMPLE / name) for name in configs]
    words = ("--run-dir", "run", "trainer.max_epochs=3")
    done = forkserver.run("polytask", command, *files, *words, cwd=folder)
    assert done.returncode == 0, done.stderr


def last_values(path: Path) -> dict[str, float]:
    """The newest value of every column."""
    with path.open() as file:
        return {key: float(value) for row in csv.DictReader(file) for key, value in row.items() if value}


# In each task the most frequent class makes up less than 0.55 of the rows.
def assert_learned(values: dict[str, float], stage: str) -> None:
    accuracies = {task: values[f"{stage}/{task}/Accuracy/epoch"] for task in TASKS}
    assert min(accuracies.values()) > 0.75, accuracies


def test_batches_of_mixed_tasks(tmp_path: Path, forkserver: ForkServer) -> None:
    for command in ("fit", "test", "predict"):
        polytask(forkserver, tmp_path, command, "config.yaml")
    assert_learned(last_values(tmp_path / "run" / "test" / "metrics.csv"), "test")
    predictions = read_predictions(tmp_path / "run" / "predictions")
    answered = {
        task: [i for i, value in enumerate(column) if value is not None and value == value]
        for task, column in predictions.items()
    }
    assert answered == {task: list(range(i, 1500, 3)) for i, task in enumerate(TASKS)}


def test_batches_of_one_task(tmp_path: Path, forkserver: ForkServer) -> None:
    polytask(forkserver, tmp_path, "fit", "config.yaml", "one_task_batches.yaml")
    assert_learned(last_values(tmp_path / "run" / "metrics.csv"), "val")


def test_a_batch_of_one_task_has_rows_of_one_task() -> None:
    config = Config.read([EXAMPLE / "config.yaml", EXAMPLE / "one_task_batches.yaml"])
    loader = config.build("system.dataloaders.train")
    seen = torch.zeros(6000)
    for batch in loader.batch_sampler:
        assert len({loader.dataset[row][2] for row in batch}) == 1
        seen[batch] += 1
    assert len(loader) == 102
    assert bool((seen == 1).all())
