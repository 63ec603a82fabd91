"""Which keys of a config shape the weights of a run, and so decide whose checkpoints these are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polytask.config._references import referred

_STAGES = ("train", "val", "test", "predict")
# What decides how fast a loader is, and not what it yields.
_SPEED = (
    *("num_workers", "pin_memory", "pin_memory_device", "timeout", "prefetch_factor", "persistent_workers"),
    "multiprocessing_context",
)


def shaping(keys: Sequence[str], *configs: Mapping[str, Any]) -> list[str]:
    """Those of some keys that shape the weights: the seed, model, criterion, optimizer, training data.

    Args:
        keys: Dotted keys, such as those in which the configs differ.
        configs: Plain configs, of which the references are followed.

    Example:
        >>> config = {"system": {"model": "$@vars.net", "dataloaders": {}}, "vars": {"net": {}, "n": 1}}
        >>> keys = ["seed", "vars.net.width", "vars.n", "trainer.precision", "system.dataloaders.predict"]
        >>> shaping(keys, config)
        ['seed', 'vars.net.width']
    """
    prefixes = {prefix for config in configs for prefix in _prefixes(config)}
    fast = {f"{prefix}.{option}" for prefix in prefixes for option in _SPEED}
    return [key for key in keys if key not in fast and any(f"{key}.".startswith(f"{p}.") for p in prefixes)]


def _prefixes(config: Mapping[str, Any]) -> set[str]:
    """The keys of what shapes the weights, and of all that is referred to there."""
    found: set[str] = set()
    ahead = ["seed", *_of_system(config)]
    while ahead:
        key = ahead.pop()
        if key not in found:
            found.add(key)
            ahead += _references(_at(config, key))
    return found


def _of_system(config: Mapping[str, Any]) -> Iterator[str]:
    system = config.get("system")
    for name in system if isinstance(system, Mapping) else ():
        if name not in ("metrics", "adapters", "dataloaders"):
            yield f"system.{name}"
    yield f"{_followed(config, 'system.dataloaders')}.train"
    adapters = _followed(config, "system.adapters")
    given = _at(config, adapters)
    by_stage = isinstance(given, Mapping) and any(stage in given for stage in _STAGES)
    start = f"{adapters}.train" if by_stage else adapters
    yield from (f"{start}.{name}" for name in ("batch", "criterion"))


def _followed(config: Mapping[str, Any], key: str) -> str:
    """The key itself, or the one that it refers to."""
    return referred(_at(config, key)) or key


def _at(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        if isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, Mapping):
            node = node.get(name)
        else:
            return None
    return node


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
    elif (key := referred(node)) is not None:
        yield key
