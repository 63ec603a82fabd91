import csv
import itertools

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from polytask.loggers import CSVLogger


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_every_row_is_on_disk_at_once(tmp_path):
    logger = CSVLogger(tmp_path / "run")
    logger.log_metrics({"a": torch.tensor(0.5), "epoch": 0}, step=0)
    assert rows(tmp_path / "run") == [{"epoch": "0", "step": "0", "a": "0.5"}]
    logger.log_metrics({"a": float("nan"), "epoch": 0}, step=1)
    assert rows(tmp_path / "run")[1] == {"epoch": "0", "step": "1", "a": "nan"}


def test_a_new_metric_adds_a_column(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"b": 1.0}, step=0)
    logger.log_metrics({"a": 2.0, "b,c": 3.0}, step=1)
    logger.log_metrics({"b": 4.0}, step=2)
    assert logger.path.read_text().splitlines() == [
        'epoch,step,b,a,"b,c"',
        ",0,1.0,,",
        ",1,,2.0,3.0",
        ",2,4.0,,",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def log(folder, *entries):
    logger = CSVLogger(folder)
    for key, step in entries:
        logger.log_metrics({key: float(step)}, step=step)


def test_a_resumed_run_drops_what_came_after_its_start(tmp_path):
    log(tmp_path, ("a", 0), ("a", 1), ("a", 2), ("b", 2), ("a", 3))
    log(tmp_path, ("a", 2), ("b", 2))
    assert rows(tmp_path) == [
        {"step": "0", "a": "0.0"},
        {"step": "1", "a": "1.0"},
        {"step": "2", "a": "2.0"},
        {"step": "2", "b": "2.0"},
    ]


def test_a_row_of_the_first_step_that_is_not_logged_again_stays(tmp_path):
    """The validation came before the checkpoint, the epoch's end after it."""
    log(tmp_path, ("val", 5), ("train", 5), ("train", 6))
    log(tmp_path, ("train", 5), ("val", 11))
    assert rows(tmp_path) == [
        {"step": "5", "val": "5.0"},
        {"step": "5", "train": "5.0"},
        {"step": "11", "val": "11.0"},
    ]


def test_a_metric_that_is_new_at_the_first_step(tmp_path):
    log(tmp_path, ("a", 5))
    log(tmp_path, ("b", 5), ("a", 6))
    assert rows(tmp_path) == [
        {"step": "5", "a": "5.0"},
        {"step": "5", "b": "5.0"},
        {"step": "6", "a": "6.0"},
    ]


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path, cut):
    log(tmp_path, ("a", 0), ("a", 10))
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-cut])
    log(tmp_path, ("a", 20))
    assert [row["step"] for row in rows(tmp_path)] == ["0", "20"]


def test_an_empty_file_is_begun_anew(tmp_path):
    (tmp_path / "metrics.csv").touch()
    log(tmp_path, ("a", 1))
    assert rows(tmp_path) == [{"step": "1", "a": "1.0"}]


def test_places(tmp_path):
    logger = CSVLogger(tmp_path)
    assert (logger.save_dir, logger.log_dir) == (str(tmp_path), str(tmp_path))
    assert (logger.name, logger.version) == ("", "")
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")
    assert not any(tmp_path.iterdir())


def test_tensorboard_in_the_run_folder_forgets_the_steps_after_a_resume(tmp_path, monkeypatch):
    """Not ours, but the setting that the command line relies on."""
    # Event files are read in the order of their names, which begin with the second.
    seconds = itertools.count(1_000_000_000)
    monkeypatch.setattr("time.time", lambda: float(next(seconds)))
    for purge, steps in ((None, (0, 1, 2, 3)), (2, (2,))):
        logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False, purge_step=purge)
        for step in steps:
            logger.log_metrics({"a": float(step)}, step)
        logger.finalize("failed")
    assert all(path.name.startswith("events.out") for path in tmp_path.iterdir())
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("a")] == [0, 1, 2]
