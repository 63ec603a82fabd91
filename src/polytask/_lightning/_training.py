"""The private names of Lightning's Trainer, its loops and its callbacks."""

import os
import signal
from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import (
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.loops.progress import _ProcessedTracker
from pytorch_lightning.plugins import DoublePrecision
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher
from pytorch_lightning.trainer.states import RunningStage
from torch import nn
from torch.utils.data import DataLoader, RandomSampler


def count_from_epoch(trainer: Trainer, epoch: int) -> None:
    """Make the next fit count its epochs from a number; samplers shuffle by it.

    Args:
        trainer: A trainer that has not trained yet.
        epoch: The number of epochs made before.

    Example:
        >>> trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> count_from_epoch(trainer, 3)
        >>> trainer.current_epoch
        3
    """
    progress = _epochs(trainer)
    progress.ready = progress.started = progress.processed = progress.completed = epoch


def leave_finished_epoch(trainer: Trainer) -> None:
    """Begin a new epoch if a resumed fit has finished one: with ``max_steps`` Lightning would end it twice.

    Args:
        trainer: A trainer that has loaded a checkpoint and starts to train.
    """
    loop, done = trainer.fit_loop, _epochs(trainer)
    if loop.restarting and done.processed == done.ready:
        loop.reset_restart_stage()
        loop._restarting = loop.epoch_loop.restarting = False
        if done.completed < done.processed:
            loop.epoch_progress.increment_completed()


def trained_epochs(trainer: Trainer) -> int:
    """How many epochs were trained to their last batch, whether or not what follows it was done.

    Args:
        trainer: A trainer that has loaded a checkpoint and starts to train.

    Example:
        >>> trained_epochs(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
        0
    """
    progress = trainer.fit_loop.epoch_progress.total
    assert isinstance(progress, _ProcessedTracker)
    within = progress.started > progress.processed
    return int(progress.processed) + (within and trainer.fit_loop.epoch_loop._num_ready_batches_reached())


def continue_epoch(trainer: Trainer, module: LightningModule) -> None:
    """Set what Lightning's own callbacks set at an epoch's start, and not if a fit resumes within one.

    This is the number of batches per step, and the scheduler of averaged weights, which Lightning removes
    when it resumes; making it again would set the learning rate anew.

    Args:
        trainer: A trainer that has loaded a checkpoint and starts to train.
        module: What it trains.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            callback.on_train_epoch_start(trainer, module)
        elif isinstance(callback, StochasticWeightAveraging) and callback._scheduler_state is not None:
            _continue_averaging(callback, trainer, module)


def _continue_averaging(
    callback: StochasticWeightAveraging, trainer: Trainer, module: LightningModule
) -> None:
    if callback.swa_start <= trainer.current_epoch <= callback.swa_end:
        groups = trainer.optimizers[0].param_groups
        reached = [dict(group) for group in groups]
        callback.on_train_epoch_start(trainer, module)
        for group, options in zip(groups, reached, strict=True):
            group.update(options)


def _epochs(trainer: Trainer) -> _ProcessedTracker:
    progress = trainer.fit_loop.epoch_progress.current
    assert isinstance(progress, _ProcessedTracker)
    return progress


def train_loaders(trainer: Trainer) -> list[Any]:
    """The training loaders of a fit that has started, in order.

    Args:
        trainer: A trainer that trains.
    """
    combined = trainer.fit_loop._combined_loader
    assert combined is not None
    return list(combined.flattened)


def fetched_batches(trainer: Trainer) -> int:
    """How many batches of the training loaders were fetched ahead of the first step.

    Args:
        trainer: A trainer that trains.
    """
    return int(_fetcher(trainer).fetched)


def fetch_again(trainer: Trainer) -> None:
    """Discard the batches that were fetched ahead, and iterate over the training loaders from their start.

    Args:
        trainer: A trainer that trains.
    """
    iter(_fetcher(trainer))


def _fetcher(trainer: Trainer) -> _DataFetcher:
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return fetcher


def request_stop(trainer: Trainer, stop: bool) -> None:
    """Make Lightning end the fit after the current batch, or epoch, with all that belongs to it.

    No hook comes after a batch's logging and validation; Lightning reads its own flag for SIGTERM there.

    Args:
        trainer: A trainer that trains.
        stop: Whether to stop; False withdraws a request.
    """
    trainer._signal_connector.received_sigterm = stop


def starts_processes(trainer: Trainer) -> bool:
    """Whether the trainer spawns or forks its processes, in which Lightning does not call ``on_exception``.

    Args:
        trainer: A trainer.

    Example:
        >>> starts_processes(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
        False
    """
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def own_share(trainer: Trainer, loader: Any) -> Any:
    """A training loader with this process's share of the samples, in an order of the same kind.

    Lightning shuffles the training data of several processes even if the loader does not.

    Args:
        trainer: A trainer.
        loader: A loader; one that is not a `DataLoader`, or has a distributed sampler, is returned unchanged.

    Example:
        >>> trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
        >>> own_share(trainer, [1, 2])
        [1, 2]
    """
    if trainer.world_size == 1 or not isinstance(loader, DataLoader):
        return loader
    shuffles = isinstance(loader.sampler, RandomSampler)
    return trainer._data_connector._prepare_dataloader(loader, shuffles, RunningStage.TRAINING)


def widen(trainer: Trainer, module: nn.Module) -> None:
    """Make a module float64 if the trainer will: it does so after it has loaded a checkpoint, which rounds.

    Args:
        trainer: A trainer.
        module: The module to load a checkpoint into.

    Example:
        >>> module = nn.Linear(1, 1)
        >>> options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
        >>> widen(Trainer(precision="64-true", **options), module)
        >>> module.weight.dtype
        torch.float64
    """
    if isinstance(trainer.precision_plugin, DoublePrecision):
        module.double()


def started_elsewhere(trainer: Trainer) -> bool:
    """Whether other processes of the training may exist before the trainer starts any.

    Args:
        trainer: A trainer.

    Example:
        >>> started_elsewhere(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
        False
    """
    return trainer.num_nodes > 1 or _cluster(trainer).creates_processes_externally


def external_processes(trainer: Trainer) -> int | None:
    """How many processes a cluster's launcher has started; None if it has started this one only, or none.

    Args:
        trainer: A trainer.

    Example:
        >>> external_processes(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
    """
    cluster = _cluster(trainer)
    if not cluster.creates_processes_externally or cluster.world_size() == 1:
        return None
    # Slurm says how many processes an allocation is for also to a script that is the only one.
    in_step = "SLURM_STEP_ID" in os.environ or cluster.global_rank() > 0
    return None if isinstance(cluster, SLURMEnvironment) and not in_step else cluster.world_size()


def join_group(trainer: Trainer) -> None:
    """Start the processes that the trainer starts itself, and meet all others, as a fit would.

    A fit starts no process a second time, and finds the process group.

    Args:
        trainer: A trainer of several processes that it does not spawn or fork.
    """
    strategy = trainer.strategy
    if strategy.launcher is None:
        strategy.setup_environment()
    else:
        strategy.launcher.launch(strategy.setup_environment, trainer=trainer)


def end_started(trainer: Trainer) -> None:
    """End the processes that the trainer has started: they would wait for this one.

    Args:
        trainer: A trainer whose call has failed in this process.
    """
    if trainer.strategy.launcher is not None:
        trainer.strategy.launcher.kill(signal.SIGKILL)


def _cluster(trainer: Trainer) -> ClusterEnvironment:
    return trainer._accelerator_connector.cluster_environment


def set_root_dir(trainer: Trainer, folder: str) -> None:
    """Set the folder of files for which no other folder is named.

    Args:
        trainer: A trainer that has not started.
        folder: The folder.
    """
    trainer._default_root_dir = folder  # type: ignore[attr-defined]


def overwrite_checkpoint(callback: ModelCheckpoint) -> None:
    """Make a checkpoint callback overwrite a file of the same name instead of adding ``-v1`` to its name.

    Args:
        callback: The callback.
    """
    callback._enable_version_counter = False


def forget_best(callback: ModelCheckpoint, trainer: Trainer) -> None:
    """Let a callback that keeps one checkpoint save that of this epoch, whatever value it monitors.

    Nothing happens if it does not save in this epoch.

    Args:
        callback: The callback.
        trainer: The trainer, whose strategy removes the former file unless it is overwritten.
    """
    every = callback.every_n_epochs
    if not every or (trainer.current_epoch + 1) % every:
        return
    former = callback.best_model_path
    callback.best_k_models, callback.kth_best_model_path = {}, ""
    callback.best_model_path, callback.best_model_score = "", None
    if former and callback._enable_version_counter:
        trainer.strategy.remove_checkpoint(former)
