"""A run that is stopped anywhere and resumed equals, bit for bit, the run that was never stopped."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from polytask.callbacks import ExactResume, StopOnSignal
from polytask.data import ReplayableLoader
from polytask.loggers import CSVLogger

ROWS, BATCH, EPOCHS = 44, 4, 3
BATCHES = ROWS // BATCH
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers",
    "ignore:.*number of training batches",
    "ignore:You defined a `validation_step` but have no",
    "ignore:Checkpoint directory .* exists and is not empty",
)


class Noisy(Dataset):
    """Rows with random augmentation drawn where the row is loaded."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = torch.sin(torch.arange(6.0) * (index + 1)) + 0.1 * torch.randn(6)
        return row, torch.tensor([float(index % 3)])


class NoisyStream(IterableDataset):
    """The same without a length, so that Lightning fetches one batch ahead."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rows = Noisy()
        for index in range(worker.id if worker else 0, ROWS, worker.num_workers if worker else 1):
            yield rows[index]


class Small(LightningModule):
    """Dropout, batch statistics, Adam; epoch means are summed in buffers, for they are state."""

    def __init__(self, schedule: str = "step_lr") -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.schedule = schedule
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("val_total", torch.zeros(()))

    def on_train_epoch_start(self) -> None:
        self.total.zero_()

    def training_step(self, batch, batch_idx):
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.total += loss.detach()
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.total / BATCHES)
        self.step_plateau("train/loss")

    def on_validation_epoch_start(self) -> None:
        self.val_total.zero_()

    def validation_step(self, batch, batch_idx):
        self.val_total += nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.val_total)
        if self.trainer.is_last_batch:
            self.step_plateau("val/loss")

    def step_plateau(self, key: str) -> None:
        for config in self.trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.monitor == key and not self.trainer.sanity_checking:
                config.scheduler.step(self.trainer.callback_metrics[key])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        if self.schedule == "step_lr":
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]
        if self.schedule == "step_lr_by_step":
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
        # Nothing is ever better, so that each epoch's step of the scheduler shows in the learning rate.
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, patience=0, threshold=1e9, threshold_mode="abs", factor=0.5
        )
        config = {"scheduler": scheduler, "monitor": self.schedule, "frequency": sys.maxsize}
        return {"optimizer": optimizer, "lr_scheduler": config}


@dataclass
class Act(Callback):
    """Does something at the n-th call of one hook."""

    hook: str
    call: int
    action: Callable[[], None]
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        setattr(self, self.hook, self._count)

    def _count(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.calls += 1
            if self.calls == self.call:
                self.action()

    def __hash__(self) -> int:
        return id(self)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


class KilledError(Exception):
    """Stands for a kill: nothing is saved, no handler runs."""


def kill() -> None:
    raise KilledError


def train_loader(workers: int = 0, stream: bool = False, **options: Any) -> ReplayableLoader:
    order = {} if stream else {"shuffle": True}
    data = NoisyStream() if stream else Noisy()
    return ReplayableLoader(DataLoader(data, BATCH, num_workers=workers, **order, **options))


@dataclass
class Run:
    """Settings that make one run twice: never stopped, and stopped and resumed."""

    folder: Path
    loader: Callable[[], ReplayableLoader] = train_loader
    schedule: str = "step_lr"
    options: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[Path], list[Callback]] = lambda folder: []
    val: bool = True

    def fit(self, name: str, *extra: Callback, resume: Path | None = None) -> tuple[Trainer, Small]:
        seed_everything(999 if resume else 1, verbose=False)
        folder = self.folder / name
        trainer = Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            logger=CSVLogger(folder),
            callbacks=[ExactResume(), *extra, *self.callbacks(folder)],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=bool(self.callbacks(folder)),
            **{
                "max_epochs": EPOCHS,
                "accumulate_grad_batches": 2,
                "log_every_n_steps": 1,
                "num_sanity_val_steps": 1,
                **self.options,
            },
        )
        module = Small(self.schedule)
        val = DataLoader(Noisy(), 22) if self.val else None
        trainer.fit(module, self.loader(), val, ckpt_path=resume, weights_only=True)
        return trainer, module


def state(trainer: Trainer, module: Small) -> dict[str, Any]:
    loops = trainer.fit_loop.state_dict()
    return {
        "model": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "random": torch.get_rng_state(),
        "steps": trainer.global_step,
        "epochs": loops["epoch_progress"]["current"]["completed"],
        "metrics": Path(trainer.logger.path).read_text(),
    }


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, item in enumerate(expected):
            assert_same(found[index], item, f"{where}[{index}]")
    else:
        assert found == expected, where


def assert_resumes(run: Run, hook: str, call: int, number: signal.Signals, at: tuple[int, int]) -> None:
    """Stop by a signal in a hook, at the epoch and step expected, resume, and compare everything."""
    expected = state(*run.fit("whole"))
    path = run.folder / "parts" / "stopped.ckpt"
    stop = StopOnSignal(path)
    with pytest.raises(SystemExit) as ended:
        run.fit("parts", Act(hook, call, partial(send, number)), stop)
    assert ended.value.code == 128 + number
    assert stop.stopped is not None
    assert (stop.stopped.signal, stop.stopped.epoch, stop.stopped.step) == (number.name, *at)
    torch.load(path, weights_only=True)
    assert_same(state(*run.fit("parts", StopOnSignal(path), resume=path)), expected)


PLACES = {
    "first batch, inside a group": ("on_train_batch_start", 1, signal.SIGINT, (0, 1)),
    "first step": ("on_train_batch_end", 2, signal.SIGTERM, (0, 1)),
    "middle of an epoch": ("on_before_optimizer_step", 9, signal.SIGINT, (1, 9)),
    "last batch of an epoch": ("on_train_batch_end", BATCHES, signal.SIGTERM, (1, 6)),
    "in validation": ("on_validation_batch_start", 3, signal.SIGINT, (2, 12)),
    "at the end of validation": ("on_validation_end", 1, signal.SIGTERM, (1, 6)),
    "between epochs": ("on_train_epoch_start", 2, signal.SIGINT, (1, 7)),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_stop_by_signal_and_resume(tmp_path, place, workers):
    assert_resumes(Run(tmp_path, partial(train_loader, workers)), *place)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_with_own_generator(tmp_path, workers):
    def loader():
        return train_loader(workers, generator=torch.Generator().manual_seed(3))

    assert_resumes(Run(tmp_path, loader), *PLACES["middle of an epoch"])
    assert_resumes(Run(tmp_path / "b", loader), *PLACES["at the end of validation"])


SAVES = {"at validation end": False, "at train epoch end": True, "by default": None}
KILLED = {
    f"{schedule}, saved {save}, {'val' if val else 'no val'}": (schedule, SAVES[save], val)
    for schedule, save, val in product(
        ["step_lr", "step_lr_by_step", "train/loss", "val/loss"], SAVES, [True, False]
    )
    if val or (schedule != "val/loss" and SAVES[save] is not False)
}


@pytest.mark.parametrize(("schedule", "save_at_end", "val"), KILLED.values(), ids=KILLED)
@pytest.mark.parametrize("limit", [{"max_epochs": EPOCHS}, {"max_steps": 15, "max_epochs": -1}], ids=str)
def test_killed_and_resumed_from_the_last_checkpoint(tmp_path, schedule, save_at_end, val, limit):
    def callbacks(folder):
        return [ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=save_at_end)]

    run = Run(tmp_path, schedule=schedule, val=val, options=limit, callbacks=callbacks)
    expected = state(*run.fit("whole"))
    with pytest.raises(KilledError):
        run.fit("parts", Act("on_train_batch_end", BATCHES + 3, kill))
    assert_same(state(*run.fit("parts", resume=tmp_path / "parts" / "last.ckpt")), expected)


@pytest.mark.parametrize("schedule", ["step_lr", "train/loss", "val/loss"])
@pytest.mark.parametrize("place", ["middle of an epoch", "at the end of validation"])
def test_stop_of_a_run_by_steps(tmp_path, schedule, place):
    run = Run(tmp_path, schedule=schedule, options={"max_steps": 15, "max_epochs": -1})
    assert_resumes(run, *PLACES[place])


@pytest.mark.parametrize("place", ["middle of an epoch", "at the end of validation"])
def test_stream_without_a_length_in_workers(tmp_path, place):
    assert_resumes(Run(tmp_path, partial(train_loader, 2, stream=True)), *PLACES[place])


def test_stream_that_shares_random_numbers_with_training_is_told(tmp_path):
    run = Run(tmp_path, partial(train_loader, stream=True))
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(SystemExit):
        run.fit("parts", Act("on_train_batch_end", 5, partial(send, signal.SIGINT)), StopOnSignal(path))
    with pytest.warns(UserWarning, match="same random state"):
        run.fit("parts", resume=path)


def test_persistent_workers(tmp_path):
    run = Run(tmp_path, partial(train_loader, 2, persistent_workers=True))
    assert_resumes(run, *PLACES["first step"])


def test_stop_waits_for_a_step_without_validation(tmp_path):
    run = Run(tmp_path, options={"val_check_interval": 4})
    assert_resumes(run, "on_train_batch_end", 4, signal.SIGINT, (0, 3))


def test_stop_where_every_step_is_validated(tmp_path):
    run = Run(tmp_path, options={"val_check_interval": 2})
    assert_resumes(run, "on_train_batch_end", 4, signal.SIGINT, (1, 6))


def test_stop_with_limited_batches(tmp_path):
    run = Run(tmp_path, options={"limit_train_batches": 6})
    assert_resumes(run, "on_train_batch_end", 6, signal.SIGINT, (1, 3))
    assert_resumes(
        Run(tmp_path / "b", options={"limit_train_batches": 6}),
        "on_train_batch_end",
        8,
        signal.SIGINT,
        (1, 4),
    )


def test_stop_twice(tmp_path):
    run = Run(tmp_path)
    expected = state(*run.fit("whole"))
    path = tmp_path / "stopped.ckpt"
    for call, resume in ((3, None), (9, path)):
        act = Act("on_train_batch_end", call, partial(send, signal.SIGINT))
        with pytest.raises(SystemExit):
            run.fit("parts", act, StopOnSignal(path), resume=resume)
    assert_same(state(*run.fit("parts", resume=path)), expected)


def test_early_stopping_is_remembered(tmp_path):
    """The monitored value and the decision to stop are both older than the checkpoint."""

    def callbacks(folder):
        stop = EarlyStopping("val/loss", patience=1, min_delta=1e9)
        return [stop, ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=False)]

    run = Run(tmp_path, callbacks=callbacks)
    expected = state(*run.fit("whole"))
    with pytest.raises(KilledError):
        run.fit("parts", Act("on_train_epoch_end", 1, kill))
    assert_same(state(*run.fit("parts", resume=tmp_path / "parts" / "last.ckpt")), expected)
    assert expected["epochs"] == 2


def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    def callbacks(folder):
        stop = EarlyStopping("val/loss", patience=1, min_delta=1e9)
        return [stop, ModelCheckpoint(folder, save_last=True)]

    run = Run(tmp_path, callbacks=callbacks)
    expected = state(*run.fit("whole"))
    again = state(*run.fit("whole", resume=tmp_path / "whole" / "last.ckpt"))
    assert again["steps"] == expected["steps"] == 12
    assert_same(again["optimizers"], expected["optimizers"])
    assert_same(again["metrics"], expected["metrics"])
