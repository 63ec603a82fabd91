"""Lightning callbacks that stop a run so that it can be resumed, and resume it exactly."""

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from polytask._errors import UserError
from polytask._files import part_of, publish
from polytask._lightning._training import (
    continue_epoch,
    fetch_again,
    fetched_batches,
    leave_finished_epoch,
    request_stop,
    starts_processes,
    train_loaders,
)
from polytask.callbacks._settings import CallbackSettings, others, set_changes
from polytask.data._random_state import full_state, set_full_state
from polytask.data._replay import Resumable

_KEY = "polytask_resume"


class ExactResume(Callback):
    """Saves in every checkpoint what Lightning leaves out, so that a resumed run equals one never stopped.

    It adds the random states of python, numpy, torch and CUDA (one set for each rank), the values that
    callbacks monitor, whether a stop had been requested, and the position of this package's loaders in
    batches that were *used*, however many were fetched ahead. All of it is plain data and tensors. The states
    are loaded in ``on_train_start``: put this callback last if another one generates random numbers there.

    An argument of a callback that was changed since the checkpoint, such as the patience of an early
    stopping, has its new value, and the run continues even if the former callbacks had stopped it.

    Resuming is exact from checkpoints made at the end of a training epoch, at the end of a validation, by
    `StopOnSignal`, and after an optimizer step without a validation. A checkpoint made between two batches of
    an accumulation group (``ModelCheckpoint(train_time_interval=...)``) loses the group's gradients.

    Example:
        >>> trainer = Trainer(callbacks=[ExactResume()], logger=False, enable_checkpointing=False,
        ...                   accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
        >>> any(isinstance(callback, ExactResume) for callback in trainer.callbacks)
        True
    """

    def __init__(self) -> None:
        self._saved: dict[str, Any] | None = None
        self._settings: list[CallbackSettings] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note what the callbacks were given, before their states are loaded."""
        self._settings = [CallbackSettings(callback) for callback in others(trainer, self)]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the states."""
        loops = checkpoint["loops"]["fit_loop"]
        loaders = _replayable(loops["state_dict"].get("combined_loader", []))
        _count_used(loaders, loops["epoch_loop.batch_progress"])
        checkpoint[_KEY] = {
            "ranks": _on_all_ranks({"random": full_state(), "loaders": loaders}),
            "monitored": {key: value.detach().cpu() for key, value in trainer.callback_metrics.items()},
            "should_stop": trainer.should_stop,
            "callbacks": [settings.plain for settings in self._settings],
            "frozen": [name for name, value in pl_module.named_parameters() if not value.requires_grad],
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the states until the training starts; a checkpoint without them resumes as Lightning does.

        Raises:
            UserError: If it is from the middle of an epoch of another number of processes.
        """
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                _spell_alike(callback, checkpoint.get("callbacks", {}).get(callback.state_key))
        self._saved = checkpoint.get(_KEY)
        if self._saved is not None:
            _check_processes(self._saved["ranks"], trainer.world_size)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the arguments of callbacks that were changed, which their states would hide."""
        if self._saved is None:
            return
        # Checkpoints of version 0.1.0 before its release have no such key.
        before = self._saved.get("callbacks")
        if before is not None and set_changes(self._settings, before):
            self._saved |= {"should_stop": False, "frozen": None}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the states, after the loaders exist and before the first batch is fetched."""
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        trainer.callback_metrics.update(
            {key: value.to(trainer.strategy.root_device) for key, value in saved["monitored"].items()}
        )
        trainer.should_stop = saved["should_stop"]
        leave_finished_epoch(trainer)
        _freeze(pl_module, saved.get("frozen"))
        continue_epoch(trainer, pl_module)
        if trainer.world_size == len(saved["ranks"]):
            own = saved["ranks"][trainer.global_rank]
            set_full_state(own["random"])
            _load_loaders(trainer, own["loaders"])


def _spell_alike(callback: ModelCheckpoint, state: dict[str, Any] | None) -> None:
    """Write the paths in a checkpoint callback's state as those of its own folder.

    Lightning compares them as strings, and forgets the best checkpoint of a folder that is spelt otherwise:
    relative to the working directory, say, as the first of several processes may have it. Processes that
    differ in this wait for each other without end.
    """
    saved = None if state is None else state.get("dirpath")
    own = callback.dirpath
    if state is None or saved is None or own is None or not _is_same_folder(str(saved), str(own)):
        return
    state["dirpath"] = own
    for key in ("best_model_path", "last_model_path", "kth_best_model_path"):
        if state.get(key):
            state[key] = os.path.join(own, os.path.basename(state[key]))
    best = state.get("best_k_models", {})
    state["best_k_models"] = {os.path.join(own, os.path.basename(path)): best[path] for path in best}


def _is_same_folder(saved: str, own: str) -> bool:
    first, second = Path(saved).parts, Path(own).parts
    # One of them may be relative to a directory that another process works in.
    fewer = min(len(first), len(second))
    relative = not (os.path.isabs(saved) and os.path.isabs(own))
    same = os.path.realpath(saved) == os.path.realpath(own)
    return same or (relative and first[-fewer:] == second[-fewer:])


def _check_processes(ranks: list[dict[str, Any]], found: int) -> None:
    """Refuse another number of processes in the middle of an epoch, where each has a position of its own."""
    within = any(loader["batches"] for rank in ranks for loader in rank["loaders"])
    if within and found != len(ranks):
        rule = f"{len(ranks)} are required to resume in the middle of an epoch"
        raise UserError("the trainer's processes", rule, found, "Resume with as many as before")


def _freeze(module: LightningModule, frozen: list[str] | None) -> None:
    """Freeze what a callback had frozen; Lightning calls no hook for it within an epoch."""
    if frozen is not None:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in frozen)


def _replayable(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The states of this package's loaders among those of all loaders with a state."""
    return [state for state in states if Resumable.owns(state)]


def _count_used(loaders: list[dict[str, Any]], progress: dict[str, Any]) -> None:
    """Subtract the batches fetched ahead of the steps from the loaders' counts; 0 after the last batch."""
    current = progress["current"]
    if progress["is_last_batch"] and current["processed"] == current["ready"]:
        ahead = max((state["batches"] for state in loaders), default=0)
    else:
        ahead = max((state["batches"] for state in loaders), default=0) - current["processed"]
    for state in loaders:
        state["batches"] = max(0, state["batches"] - max(0, ahead))


def _load_loaders(trainer: Trainer, states: list[dict[str, Any]]) -> None:
    """Load the loaders' states, which Lightning does in the middle of an epoch only."""
    ahead = fetched_batches(trainer)
    # A loader without a length was read before this hook: in the middle of an epoch from the right position,
    # between two epochs with the wrong random states.
    if ahead and any(state["batches"] for state in states):
        return
    loaders = [loader for loader in train_loaders(trainer) if isinstance(loader, Resumable)]
    for loader, state in zip(loaders, states, strict=False):
        loader.load_state_dict(state)
    if ahead:
        fetch_again(trainer)


def _on_all_ranks(state: dict[str, Any]) -> list[dict[str, Any]]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states


@dataclass(frozen=True)
class Stop:
    """The step at which a run was stopped, and its checkpoint.

    Attributes:
        signal: The signal's name, ``SIGINT`` or ``SIGTERM``.
        epoch: The epoch in which the run continues, from 0.
        step: The number of optimizer steps made.
        path: The checkpoint to resume from.
    """

    signal: str
    epoch: int
    step: int
    path: Path


class StopOnSignal(Callback):
    """Ends the fit at SIGINT (Ctrl-C) or SIGTERM with a checkpoint that a run can be resumed from.

    The run continues to the next optimizer step, or to the one after it if that step is followed by a
    validation, or to the end of the epoch with its validation if that comes first. Then the checkpoint is
    written to a file next to ``path`` and renamed, and ``Trainer.fit`` raises Lightning's
    ``SIGTERMException``, a `SystemExit` whose code is 128 plus the signal's number. A second Ctrl-C raises
    `KeyboardInterrupt` at once. A run that is ending its last epoch finishes as usual.

    The previous handlers are restored when the fit ends. All ranks stop at the same step. Outside the main
    thread, in which alone Python allows signal handlers, and under strategies that spawn or fork their ranks
    (``ddp_spawn``, ``ddp_fork``), this callback does nothing. A terminal sends Ctrl-C to the loaders' workers
    too: workers forked after the training started (all of a `ReplayableLoader`) keep working, others end and
    the run fails.

    Args:
        path: The file to write.

    Attributes:
        stopped: The stop, or None if the run was not stopped.

    Example:
        >>> StopOnSignal("checkpoints/last.ckpt").stopped is None
        True
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.stopped: Stop | None = None
        self._signal: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}
        self._process = os.getpid()
        self._step = 0

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers."""
        self._install(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers if there was no sanity check."""
        self._install(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step, to see whether this batch makes one."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after this batch if it made a step and is not the epoch's last."""
        stepped = trainer.global_step > self._step
        request_stop(trainer, stepped and not trainer.is_last_batch and self._agreed(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Postpone a stop: Lightning resumes after a validation as if its last part were still to come."""
        request_stop(trainer, False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs, unless this was the last one."""
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps
        request_stop(trainer, not last and self._agreed(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the signal handlers."""
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save if the fit ends by a stop of this callback, and restore the signal handlers."""
        try:
            if isinstance(exception, SIGTERMException) and self._signal is not None:
                self._stop(trainer, exception, self._signal)
        finally:
            self._restore_handlers()

    def _stop(self, trainer: Trainer, exception: SIGTERMException, received: signal.Signals) -> None:
        self._save(trainer)
        self.stopped = Stop(received.name, trainer.current_epoch, trainer.global_step, self.path)
        exception.code = 128 + received
        rank_zero_info(f"Stopped by {received.name} at step {self.stopped.step}: {self.path}")

    def _save(self, trainer: Trainer) -> None:
        part = part_of(self.path)
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            publish(part, self.path)
        trainer.strategy.barrier("stopped")

    def _agreed(self, trainer: Trainer) -> bool:
        """Whether any rank received a signal; all of them have to stop at the same step."""
        received = self._signal is not None
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(received, all=False):
            self._signal = self._signal or signal.SIGTERM
        return self._signal is not None

    def _install(self, trainer: Trainer) -> None:
        if self._former or threading.current_thread() is not threading.main_thread():
            return
        if starts_processes(trainer):
            return
        self._signal, self.stopped, self._process = None, None, os.getpid()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._receive)

    def _restore_handlers(self) -> None:
        for number, handler in self._former.items():
            # Lightning ignores SIGINT while it shuts down: only handlers that are still ours are replaced.
            if signal.getsignal(number) == self._receive:
                signal.signal(number, handler)
        self._former = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._receive_in_worker(number)
        elif self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self._signal = signal.Signals(number)

    def _receive_in_worker(self, number: int) -> None:
        """Ctrl-C reaches forked workers too, and they have to keep working; SIGTERM is meant for them."""
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
