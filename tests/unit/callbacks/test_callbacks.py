import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from polytask.callbacks import ExactResume, StopOnSignal
from polytask.callbacks._resume import _count_used
from polytask.data import ReplayableLoader

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning", "ignore:.*does not have many workers"
)


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return (self.weight * batch[0] - 1).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class AtBatch(Callback):
    """Calls a function at the start of one batch, counted over epochs."""

    def __init__(self, batch, action):
        self.batch, self.action = batch, action

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.batch:
            self.action()


def interrupt(times=1, number=signal.SIGINT):
    for _ in range(times):
        os.kill(os.getpid(), number)


def fit(*callbacks, max_epochs=2, ckpt_path=None):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = ReplayableLoader(DataLoader(TensorDataset(torch.ones(6)), 2, shuffle=True))
    trainer.fit(Line(), loader, ckpt_path=ckpt_path, weights_only=True)
    return trainer


@pytest.fixture
def handlers():
    """Fails where a fit leaves another handler behind."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)
    assert after == before


@pytest.mark.usefixtures("handlers")
class TestStopOnSignal:
    def test_a_run_without_a_signal_is_left_alone(self, tmp_path):
        stop = StopOnSignal(tmp_path / "stopped.ckpt")
        assert fit(stop).global_step == 6
        assert stop.stopped is None
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_saves_and_says_where(self, tmp_path, number, code):
        stop = StopOnSignal(tmp_path / "stopped.ckpt")
        with pytest.raises(SystemExit) as ended:
            fit(AtBatch(1, lambda: interrupt(number=number)), stop)
        assert ended.value.code == code
        assert (stop.stopped.signal, stop.stopped.step, stop.stopped.epoch) == (number.name, 2, 0)
        assert stop.stopped.path == tmp_path / "stopped.ckpt"
        assert [path.name for path in tmp_path.iterdir()] == ["stopped.ckpt"]

    def test_a_run_in_its_last_epoch_end_finishes(self, tmp_path):
        stop = StopOnSignal(tmp_path / "stopped.ckpt")
        assert fit(AtBatch(5, interrupt), stop).global_step == 6
        assert stop.stopped is None

    def test_second_ctrl_c_ends_at_once(self, tmp_path):
        stop = StopOnSignal(tmp_path / "stopped.ckpt")
        with pytest.raises(SystemExit) as ended:
            fit(AtBatch(1, lambda: interrupt(2)), stop)
        assert ended.value.code == 1
        assert stop.stopped is None
        assert not any(tmp_path.iterdir())

    def test_sigterm_twice_still_saves(self, tmp_path):
        stop = StopOnSignal(tmp_path / "stopped.ckpt")
        with pytest.raises(SystemExit):
            fit(AtBatch(1, lambda: interrupt(2, signal.SIGTERM)), stop)
        assert stop.stopped.step == 2

    def test_another_failure_is_not_a_stop(self, tmp_path):
        def fail():
            interrupt()
            raise RuntimeError("broken")

        stop = StopOnSignal(tmp_path / "stopped.ckpt")
        with pytest.raises(RuntimeError, match="broken"):
            fit(AtBatch(1, fail), stop)
        assert stop.stopped is None

    def test_serves_a_second_fit(self, tmp_path):
        stop = StopOnSignal(tmp_path / "stopped.ckpt")
        with pytest.raises(SystemExit):
            fit(AtBatch(1, interrupt), stop)
        assert fit(stop, ExactResume(), ckpt_path=stop.path).global_step == 6
        assert stop.stopped is None

    def test_does_nothing_outside_the_main_thread(self, tmp_path):
        found = []

        def look():
            found.append(signal.getsignal(signal.SIGINT))

        stop = StopOnSignal(tmp_path / "stopped.ckpt")
        thread = threading.Thread(target=fit, args=(AtBatch(1, look), stop))
        thread.start()
        thread.join()
        assert found == [signal.getsignal(signal.SIGINT)]


def test_a_failed_save_keeps_the_former_file(tmp_path, monkeypatch):
    """Lightning stops cleaning up then, and leaves its own handler for SIGTERM."""
    former = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    path = tmp_path / "stopped.ckpt"
    path.write_text("former")

    def fail(trainer, file):
        Path(file).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(Trainer, "save_checkpoint", fail)
    with pytest.raises(OSError, match="disk full"):
        fit(AtBatch(1, interrupt), StopOnSignal(path))
    signal.signal(signal.SIGTERM, former[0])
    assert signal.getsignal(signal.SIGINT) == former[1]
    assert path.read_text() == "former"


TERMINAL = """
import os, signal, sys, warnings
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
import torch
from test_callbacks import AtBatch, Line, ReplayableLoader, StopOnSignal, Trainer, DataLoader, TensorDataset
stop = StopOnSignal(sys.argv[2])
trainer = Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
                  accumulate_grad_batches=8, enable_progress_bar=False, enable_model_summary=False,
                  callbacks=[stop, AtBatch(1, lambda: os.killpg(0, signal.SIGINT))])
loader = ReplayableLoader(DataLoader(TensorDataset(torch.ones(40)), 2, num_workers=2))
try:
    trainer.fit(Line(), loader)
finally:
    assert stop.stopped.step == 1, stop.stopped
"""


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_workers_and_does_not_end_them(tmp_path):
    """The whole process group gets the signal; the group of batches needs twelve more of them."""
    script = tmp_path / "script.py"
    script.write_text(TERMINAL)
    path = tmp_path / "stopped.ckpt"
    done = subprocess.run(
        [sys.executable, str(script), str(Path(__file__).parent), str(path)],
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert path.exists()
    assert "Stopped by SIGINT at step 1" in done.stderr


@pytest.mark.parametrize(
    ("counts", "processed", "ready", "last", "expected"),
    [
        ([3], 3, 3, False, [3]),
        ([4], 3, 3, False, [3]),
        ([9, 2], 8, 8, False, [8, 1]),
        ([5], 5, 5, True, [0]),
        ([6, 2], 5, 5, True, [0, 0]),
        ([5], 4, 5, True, [4]),
        ([], 4, 5, True, []),
    ],
)
def test_counts_used_batches_only(counts, processed, ready, last, expected):
    states = [{"batches": count} for count in counts]
    _count_used(states, {"current": {"processed": processed, "ready": ready}, "is_last_batch": last})
    assert [state["batches"] for state in states] == expected


def test_a_checkpoint_without_the_states_resumes_as_lightning_does(tmp_path):
    trainer = fit(max_epochs=1)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    assert fit(ExactResume(), ckpt_path=tmp_path / "plain.ckpt").global_step == 6


def test_random_states_are_put_back_once(tmp_path):
    trainer = fit(ExactResume(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    expected = torch.rand(3)
    drawn = []
    torch.manual_seed(99)
    callback = ExactResume()
    fit(callback, AtBatch(-1, None), _Draw(drawn), ckpt_path=tmp_path / "one.ckpt")
    assert torch.equal(drawn[0], expected)
    torch.manual_seed(99)
    fit(callback, _Draw(drawn), max_epochs=1)
    torch.manual_seed(99)
    assert torch.equal(drawn[1], torch.rand(3))


class _Draw(Callback):
    """Draws before the first batch of a fit."""

    def __init__(self, drawn):
        self.drawn = drawn

    def on_train_start(self, trainer, pl_module):
        self.drawn.append(torch.rand(3))
