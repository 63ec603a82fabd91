"""Everything wrong with a config, as far as it can be known before data is touched."""

import functools
from collections.abc import Callable
from typing import Any

from polytask._errors import UserError, hint
from polytask._lightning._noise import SILENT
from polytask.config import Config
from polytask.experiment._build import make_system, own_callbacks, seed
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
    """Everything wrong with a config that can be known before data is touched.

    Parts that have no problem of their own are built, so that the mistakes of all are found at once.
    """
    found = config.problems()
    try:
        plain = config.plain
    except UserError:
        # With a reference that leads nowhere, nothing can be built.
        return found
    found += _stage_problems(plain)
    broken = [str(problem.args[0]).split()[-1] for problem in found]
    if "seed" not in broken:
        seed(config)
    for part in _PARTS:
        if part in config and not any(key == part or key.startswith(f"{part}.") for key in broken):
            found += _raised(functools.partial(config.build, part))
    if not any(key.startswith("trainer") for key in broken):
        found += _raised(functools.partial(config.build, "trainer", dict(SILENT, callbacks=[])))
    if not found:
        found += _raised(functools.partial(_system_problems, config, found))
    return list({str(problem): problem for problem in found}.values())


def _system_problems(config: Config, found: list[UserError]) -> None:
    stages = list(config.plain["system"].get("dataloaders") or {})
    found += make_system(config, {}).problems(stages, own_callbacks(config))


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
        return [UserError(where, "are loaders by stage", repr(given), f"Stages: {', '.join(STAGES)}")]
    found = []
    for stage, loader in given.items():
        if stage not in STAGES:
            found.append(UserError(where, f"no stage is called '{stage}'", None, hint(stage, STAGES)))
        if isinstance(loader, (int, float)):
            fix = "Write for example _target_: torch.utils.data.DataLoader"
            found.append(UserError(f"{where}.{stage}", "must be a loader", repr(loader), fix))
    return found
