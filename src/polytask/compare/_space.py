"""Search spaces over config keys, and trials that are sampled from them."""

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from polytask._errors import UserError, hint

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Drawn = dict[str, Any]
_RANGE = ("low", "high", "log")


class Space:
    """Values that config keys may take.

    Args:
        given: By dotted key a list of choices, or ``low``, ``high`` and, for a logarithmic scale,
            ``log: true``. A range between two integers holds integers.
        where: The option or file that it is from, for messages.

    Raises:
        UserError: If an entry is neither.

    Example:
        >>> space = Space({"system.optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}})
        >>> space.draw(0, 1) == space.draw(0, 1), space.draw(0, 1) == space.draw(0, 2)
        (True, False)
    """

    def __init__(self, given: Mapping[Any, Any], where: str = "space") -> None:
        if not isinstance(given, Mapping) or not given:
            fix = "Write key: [choices], or key: {low: 1, high: 2}"
            raise UserError(where, "must be a mapping from config keys to values", repr(given), fix)
        self.given = {str(key): _entry(value, f"{where} {key}") for key, value in given.items()}

    def __or__(self, other: "Space | None") -> "Space":
        return self if other is None else Space({**self.given, **other.given})

    def distributions(self) -> "dict[str, BaseDistribution]":
        """The same for Optuna.

        Raises:
            UserError: If Optuna is not installed.
        """
        optuna = _optuna()
        return {key: _distribution(optuna.distributions, value) for key, value in self.given.items()}

    def draw(self, seed: int, trial: int) -> Drawn:
        """The values of a trial, by key; they depend on the two numbers alone.

        Args:
            seed: The seed of the whole search.
            trial: The trial's number.
        """
        optuna = _optuna()
        sampler = optuna.samplers.RandomSampler(trial_seed(seed, trial))
        drawn: Drawn = optuna.create_study(sampler=sampler).ask(self.distributions()).params
        return drawn


def trial_seed(seed: int, trial: int) -> int:
    """A number below 2^32 for a seed and a trial, without a pattern.

    Example:
        >>> trial_seed(0, 1) != trial_seed(1, 0)
        True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{trial}".encode()).digest()[:4])


def overrides(drawn: Drawn) -> list[str]:
    """The values as ``key=value``.

    Example:
        >>> overrides({"trainer.max_epochs": 3, "trainer.precision": None, "seed": 0.5})
        ['trainer.max_epochs=3', 'trainer.precision=null', 'seed=0.5']
    """
    return [f"{key}={_text(value)}" for key, value in drawn.items()]


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "'{}'".format(value.replace("'", "''")) if isinstance(value, str) else repr(value)


def _entry(value: Any, where: str) -> Any:
    plain = str | int | float | bool | None
    if isinstance(value, list) and value and all(isinstance(choice, plain) for choice in value):
        return value
    if not isinstance(value, Mapping):
        fix = "Write [choices], or {low: 1, high: 2}"
        raise UserError(where, "must be a list of plain values, or low and high", repr(value), fix)
    for option in value:
        if option not in _RANGE:
            raise UserError(
                where, f"unknown option '{option}' of a range", None, hint(str(option), _RANGE, "Options")
            )
    low, high, log = (value.get(option) for option in _RANGE)
    if not (_is_number(low) and _is_number(high) and low <= high):
        raise UserError(where, "low and high must be finite numbers, low not above high", dict(value))
    if log not in (None, True, False):
        raise UserError(f"{where} log", "must be true or false", repr(log))
    if log and low <= 0:
        raise UserError(where, "a logarithmic range must be above 0", f"low {low}")
    return {"low": low, "high": high, "log": bool(log)}


def _is_number(bound: Any) -> TypeGuard[int | float]:
    return isinstance(bound, int | float) and not isinstance(bound, bool) and math.isfinite(bound)


def _distribution(kinds: Any, value: Any) -> "BaseDistribution":
    if isinstance(value, list):
        made: BaseDistribution = kinds.CategoricalDistribution(value)
    else:
        whole = isinstance(value["low"], int) and isinstance(value["high"], int)
        kind = kinds.IntDistribution if whole else kinds.FloatDistribution
        made = kind(value["low"], value["high"], log=value["log"])
    return made


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "tuning", "Optuna must be installed", "no such package", "pip install 'polytask[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
