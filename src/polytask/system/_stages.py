"""The stages of a run, and arguments that are given once for all stages or by stage."""

import copy
from collections.abc import Mapping
from typing import Any

from polytask._errors import UserError, hint
from polytask.adapters import BatchAdapter, CriterionAdapter, LoggingAdapter, MetricsAdapter

STAGES = ("train", "val", "test", "predict")
# What the mapping of a stage maps.
_RULES = {"metrics": "must map tasks to metrics", "adapters": "must map kinds to adapters"}
_ADAPTERS = {
    "batch": BatchAdapter,
    "criterion": CriterionAdapter,
    "metrics": MetricsAdapter,
    "logging": LoggingAdapter,
}


def by_stage(value: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    """The mapping of each stage: its own if stages are named, else a copy for each.

    Args:
        value: A mapping for all stages, or such mappings by stage.
        where: The argument's key, for the message.

    Raises:
        UserError: If stages and other keys are mixed, or a value is not a mapping.

    Example:
        >>> by_stage({"digit": 1}, "metrics")["val"]
        {'digit': 1}
        >>> by_stage({"val": {"digit": 1}}, "metrics")
        {'val': {'digit': 1}}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(where, "must be a mapping", type(value).__name__)
    stages = [key for key in value if key in STAGES]
    if not stages:
        return {stage: copy.deepcopy(dict(value)) for stage in STAGES}
    for key, own in value.items():
        if key not in STAGES:
            rule = f"cannot be combined with the stages {', '.join(stages)}"
            raise UserError(f"{where}.{key}", rule, None, hint(key, STAGES, "Stages"))
        if not (own is None or isinstance(own, Mapping)):
            raise UserError(f"{where}.{key}", _RULES.get(where, "must be a mapping"), repr(own))
    # Copied one by one: in one copy of the whole, an object of two stages would stay shared.
    return {stage: copy.deepcopy(own) for stage, own in value.items()}


def adapters_by_stage(given: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The four adapters of every stage, the default ones if none are given.

    Args:
        given: Adapters by kind, or such mappings by stage.

    Raises:
        UserError: If a kind is unknown, or an adapter is of another kind.

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
                raise UserError(
                    "adapters", "keys must be kinds of adapters", repr(kind), hint(kind, _ADAPTERS)
                )
            if not isinstance(adapter, _ADAPTERS[kind]):
                raise UserError(
                    f"adapters.{kind}",
                    f"must be a polytask.adapters.{_ADAPTERS[kind].__name__}",
                    type(adapter).__name__,
                )
        adapters[stage] = {kind: own.get(kind) or make() for kind, make in _ADAPTERS.items()}
    return adapters
