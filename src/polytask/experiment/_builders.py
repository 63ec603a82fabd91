"""Builds the parts of a run from a config: System, loaders, callbacks."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl

from polytask._errors import UserError, hint
from polytask.config import Config
from polytask.data._random_state import states_kept
from polytask.system import System
from polytask.system._stages import STAGES


def seed(config: Config) -> None:
    """Seed Python, NumPy and torch, so that what is built next is the same in every run.

    Args:
        config: The config, whose ``seed`` is used; 0 if it has none.
    """
    pl.seed_everything(config.seed or 0, workers=True, verbose=False)


def make_system(config: Config, dataloaders: Mapping[str, Any]) -> System:
    """The config's System with these loaders.

    The model is built before the criterion, whatever the order of their keys, from the current random states.

    Args:
        config: The config.
        dataloaders: Loaders by stage.

    Raises:
        UserError: If it cannot be built, or is not a System.
    """
    if "system" not in config:
        raise UserError("system", "is required", "no such key", "Write system: {model: ..., criterion: ...}")
    for part in ("system.model", "system.criterion"):
        if part in config:
            config.build(part)
    system = config.build("system", {"dataloaders": dict(dataloaders)})
    if not isinstance(system, System):
        raise UserError("system._target_", "must be polytask.System or a subclass", type(system).__name__)
    return system


def make_loaders(config: Config, stages: Sequence[str]) -> dict[str, Any]:
    """The loaders of these stages, built from the config's seed; the random states are not changed.

    Args:
        config: The config.
        stages: The stages; the first of them is required, unless all stages are given.

    Raises:
        UserError: If it is missing, a stage is unknown, or a loader cannot be built.
    """
    given = config.plain["system"].get("dataloaders") or {}
    for stage in given:
        if stage not in STAGES:
            raise UserError("system.dataloaders", f"unknown stage '{stage}'", None, hint(stage, STAGES))
    needed = stages[0]
    if given.get(needed) is None and len(stages) < len(STAGES):
        raise UserError(f"system.dataloaders.{needed}", "is required", "none", hint(needed, given, "Given"))
    wanted = [stage for stage in stages if given.get(stage) is not None]
    with states_kept():
        seed(config)
        return {stage: config.build(f"system.dataloaders.{stage}") for stage in wanted}


def own_callbacks(config: Config) -> list[pl.Callback]:
    """The callbacks of the config.

    Args:
        config: The config.

    Raises:
        UserError: If one cannot be built, or is not a callback.
    """
    given = config.build("trainer.callbacks") if "trainer.callbacks" in config else None
    callbacks = given if isinstance(given, list) else [] if given is None else [given]
    for callback in callbacks:
        if not isinstance(callback, pl.Callback):
            raise UserError(
                "trainer.callbacks",
                "must be a list of callbacks, or a mapping from names to callbacks",
                repr(callback),
                "Write for example {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: ...}",
            )
    return list(callbacks)
