"""What a changed config can and cannot change in a run that is resumed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from polytask._checks import is_integer
from polytask._errors import UserError
from polytask.config import Config
from polytask.data._random_state import states_kept
from polytask.experiment._builders import make_system, seed
from polytask.system import System
from polytask.system._given import GIVEN

# Models and criteria may put arguments into their state.
_WITH_STATE = ("system.model", "system.criterion", "vars")
_KEPT = ("seed",)
# Former checkpoints do not say what the optimizer was given, so that no change is known.
_KEPT_BEFORE = ("system.optimizer", "system.scheduler")


def check_length(config: Config, checkpoint: Mapping[str, Any]) -> None:
    """Refuse an end that lies before the checkpoint.

    Args:
        config: The config of the run that continues.
        checkpoint: Its checkpoint.

    Raises:
        UserError: If the run has trained more epochs than ``trainer.max_epochs``.
    """
    trained = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    given = config.plain["trainer"].get("max_epochs")
    if is_integer(given, 0) and given < trained:
        rule = f"must be at least {trained}, the number of epochs that the run has trained"
        raise UserError("trainer.max_epochs", rule, str(given), "Raise it")


def why_finished(trainer: pl.Trainer) -> tuple[str, str]:
    """Why a resumed run had nothing left to train, and what continues it.

    Args:
        trainer: The trainer after its fit.
    """
    if trainer.should_stop:
        return f"a callback stopped the run after step {trainer.global_step}", "Change the callback"
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"the run has made its {trainer.global_step} steps", "Raise trainer.max_steps"
    return f"the run has trained its {trainer.current_epoch} epochs", "Raise trainer.max_epochs"


def kept_values(
    system: System, former: Config, changed: Sequence[str], checkpoint: Mapping[str, Any]
) -> list[str]:
    """What was changed and has no effect, since a resumed run has it from its checkpoint.

    Args:
        system: The system of the config, before the checkpoint's weights are loaded.
        former: The run's own config.
        changed: The keys in which the config differs from that.
        checkpoint: The run's checkpoint.

    Returns:
        Keys of the config, and the names of the system's parameters and buffers that begin with other values.
    """
    states = _KEPT if GIVEN in checkpoint else (*_KEPT, *_KEPT_BEFORE)
    keys = [key for key in changed if within(key, states)]
    if "seed" in keys or not any(within(key, _WITH_STATE) for key in changed):
        return keys
    with states_kept():
        seed(former)
        before = make_system(former, {}).state_dict()
    now = system.state_dict()
    # Other shapes are refused when the weights are loaded.
    names = [
        name
        for name, value in now.items()
        if name in before and value.shape == before[name].shape and not torch.equal(value, before[name])
    ]
    return [*keys, *names]


def within(key: str, prefixes: Sequence[str]) -> bool:
    """Whether a key is one of some keys, or below one.

    Args:
        key: The key.
        prefixes: The other keys.
    """
    return any(f"{key}.".startswith(f"{prefix}.") for prefix in prefixes)
