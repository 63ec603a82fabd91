"""The stages of a run, and what is given once for all of them or for each."""

import copy
from collections.abc import Mapping
from typing import Any

from polytask._errors import UserError, hint
from polytask.adapters import BatchAdapter, CriterionAdapter, LoggingAdapter, MetricsAdapter

STAGES = ("train", "val", "test", "predict")
_ADAPTERS = {
    "batch": BatchAdapter,
    "criterion": CriterionAdapter,
    "metrics": MetricsAdapter,
    "logging": LoggingAdapter,
}


def by_stage(value: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    """The value for every stage, never one object for two: its own where stages are named, else a copy.

    Args:
        value: By stage, or one for all.
        where: The key it came from, for the message.

    Raises:
        UserError: Where stages and other keys are mixed, or a value is not a mapping.

    Example:
        >>> by_stage({"digit": 1}, "metrics")["val"]
        {'digit': 1}
        >>> by_stage({"val": {"digit": 1}}, "metrics")
        {'val': {'digit': 1}}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(where, "is a mapping", type(value).__name__)
    stages = [key for key in value if key in STAGES]
    if not stages:
        return {stage: copy.deepcopy(dict(value)) for stage in STAGES}
    for key, own in value.items():
        if key not in STAGES:
            raise UserError(
                f"{where}.{key}", f"stands beside the stages {', '.join(stages)}", None, hint(key, STAGES)
            )
        if not (own is None or isinstance(own, Mapping)):
            raise UserError(f"{where}.{key}", f"is a mapping, as {where} without stages is", repr(own))
    # Each by itself: in one copy of the whole, what two stages share would stay shared.
    return {stage: copy.deepcopy(own) for stage, own in value.items()}


def adapters_by_stage(given: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The four adapters of every stage, the plain ones where none are given.

    Args:
        given: Adapters by kind, or such mappings by stage.

    Raises:
        UserError: Where a kind is not known, or an adapter is of another.

    Example:
        >>> list(adapters_by_stage(None)["val"])
        ['batch', 'criterion', 'metrics', 'logging']
    """
    chosen = by_stage(given, "adapters")
    adapters: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        own = chosen.get(stage) or {}
        for kind, adapter in own.items():
            if kind not in _ADAPTERS:
                raise UserError(f"adapters.{kind}", "is no adapter", None, hint(kind, _ADAPTERS))
            if not isinstance(adapter, _ADAPTERS[kind]):
                raise UserError(
                    f"adapters.{kind}",
                    f"must be a polytask.adapters.{_ADAPTERS[kind].__name__}",
                    type(adapter).__name__,
                )
        adapters[stage] = {kind: own.get(kind) or make() for kind, make in _ADAPTERS.items()}
    return adapters
