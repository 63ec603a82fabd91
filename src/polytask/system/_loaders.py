"""The loader of a stage."""

from collections.abc import Mapping
from typing import Any

from polytask._errors import UserError, hint
from polytask.data import ReplayableLoader, TaskLoader
from polytask.data._replay import length_of
from polytask.system._stages import STAGES


def loaders_by_stage(dataloaders: Mapping[str, Any] | None) -> dict[str, Any]:
    """The loaders, once each is for a stage.

    Args:
        dataloaders: Loaders by stage.

    Raises:
        UserError: Where a name is not a stage.

    Example:
        >>> loaders_by_stage({"val": [1, 2]})
        {'val': [1, 2]}
    """
    for stage in dataloaders or {}:
        if stage not in STAGES:
            raise UserError("dataloaders", f"no stage is called '{stage}'", None, hint(stage, STAGES))
    return dict(dataloaders or {})


def loader_of(dataloaders: Mapping[str, Any], stage: str) -> Any:
    """The loader of a stage.

    Args:
        dataloaders: Loaders by stage.
        stage: ``train``, ``val``, ``test`` or ``predict``.

    Raises:
        UserError: Where there is none, it has no batch, or draws tasks outside training.

    Example:
        >>> loader_of({"val": [1, 2]}, "val")
        [1, 2]
    """
    loader = dataloaders.get(stage)
    if loader is None:
        given = hint(stage, dataloaders, "Given")
        raise UserError(f"dataloaders.{stage}", "is needed here", "none", given)
    if length_of(loader) == 0:
        raise UserError(f"dataloaders.{stage}", "needs one batch at least", "none", "Look at the data set")
    if isinstance(loader, TaskLoader):
        _check_draws(loader, stage)
    return loader


def _check_draws(loader: TaskLoader, stage: str) -> None:
    """Raise where an evaluation would see some data twice, or a training task after task."""
    draws = loader.task_sampler is not None
    if draws and stage != "train":
        rule, fix = "sees every task's data once, so without a sampler", "Leave the sampler out"
        raise UserError(f"dataloaders.{stage}", rule, repr(loader.task_sampler), fix)
    if not draws and stage == "train":
        fix = "Pass for example sampler=polytask.data.Proportional()"
        raise UserError(
            f"dataloaders.{stage}", "needs a sampler, which draws the tasks of each step", "none", fix
        )


def replayable(loader: Any) -> Any:
    """The loader in a form that resumes in the middle of an epoch, where it has none of its own.

    Args:
        loader: What yields the batches.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> type(replayable(DataLoader([1, 2]))).__name__
        'ReplayableLoader'
    """
    foreign = hasattr(loader, "state_dict") or not hasattr(loader, "__iter__")
    return loader if foreign else ReplayableLoader(loader)
