"""Everything wrong with a config, as far as it can be known before data is read."""

import functools
from collections.abc import Callable
from typing import Any

from polytask._checks import is_number_or_bool
from polytask._errors import UserError, distinct, hint
from polytask._lightning._noise import SILENT
from polytask.config import Config
from polytask.config._locations import Location
from polytask.experiment._builders import make_system, own_callbacks, seed
from polytask.system._stages import STAGES

_PARTS = (
    "system.model",
    "system.criterion",
    "system.metrics",
    "system.adapters",
    "system.optimizer",
    "system.scheduler",
    "trainer.callbacks",
)


def find_problems(config: Config) -> list[UserError]:
    """Everything wrong with a config that can be known before data is read.

    Parts without a problem are built, so that the mistakes of all parts are found at once.

    Args:
        config: The config.
    """
    found = config.problems()
    try:
        plain = config.plain
    except UserError:
        # If a reference cannot be resolved, nothing can be built.
        return found
    found += _stage_problems(plain)
    broken = [_key(problem) for problem in found]
    if "seed" not in broken:
        seed(config)
    for part in _PARTS:
        if part in config and not any(key == part or key.startswith(f"{part}.") for key in broken):
            found += _raised(functools.partial(config.build, part))
    if not any(key.startswith("trainer") for key in broken):
        found += _raised(functools.partial(config.build, "trainer", dict(SILENT, callbacks=[])))
    if not found:
        found += _raised(functools.partial(_system_problems, config, found))
    return distinct(found)


def raise_problems(config: Config, in_files: bool) -> None:
    """Raise the first problem of a config, with the number of others.

    Args:
        config: The config.
        in_files: Whether it was read from config files, which `polytask check` reads too.

    Raises:
        UserError: If there is a problem.
    """
    problems = find_problems(config)
    if not problems:
        return
    first = problems[0]
    if len(problems) == 1:
        raise first
    listed = ": `polytask check` lists them all" if in_files else ""
    more = f"({len(problems) - 1} more{listed})"
    raise first.at(first.where, more if first.fix is None else f"{first.fix.rstrip('.')} {more}")


def _key(problem: UserError) -> str:
    """The dotted key that a problem is about."""
    return problem.where.key if isinstance(problem.where, Location) else problem.where


def _system_problems(config: Config, found: list[UserError]) -> None:
    loaders = config.plain["system"].get("dataloaders") or {}
    limit = (config.plain.get("trainer") or {}).get("limit_val_batches")
    found += make_system(config, {}).problems(list(loaders), own_callbacks(config), loaders, limit)


def _raised(build: Callable[[], Any]) -> list[UserError]:
    try:
        build()
    except UserError as error:
        return [error]
    return []


def _stage_problems(plain: dict[str, Any]) -> list[UserError]:
    where = "system.dataloaders"
    system = plain.get("system")
    given = (system.get("dataloaders") if isinstance(system, dict) else None) or {}
    if not isinstance(given, dict):
        return [
            UserError(
                where, "must be a mapping from stages to loaders", repr(given), f"Stages: {', '.join(STAGES)}"
            )
        ]
    found = []
    for stage, loader in given.items():
        if stage not in STAGES:
            found.append(UserError(where, f"unknown stage '{stage}'", None, hint(stage, STAGES)))
        if is_number_or_bool(loader):
            fix = "Write for example _target_: torch.utils.data.DataLoader"
            found.append(UserError(f"{where}.{stage}", "must be a loader", repr(loader), fix))
    return found
