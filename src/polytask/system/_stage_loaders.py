"""The loaders of the stages."""

from collections.abc import Mapping
from typing import Any

from polytask._errors import UserError, hint
from polytask.data import ReplayableLoader, TaskLoader
from polytask.data._replay import length_of
from polytask.system._stages import STAGES


def loaders_by_stage(dataloaders: Mapping[str, Any] | None) -> dict[str, Any]:
    """The loaders as a dict, after a check of the stages' names.

    Args:
        dataloaders: Loaders by stage.

    Raises:
        UserError: If a name is not a stage.

    Example:
        >>> loaders_by_stage({"val": [1, 2]})
        {'val': [1, 2]}
    """
    for stage in dataloaders or {}:
        if stage not in STAGES:
            raise UserError("dataloaders", "keys must be stages", repr(stage), hint(stage, STAGES, "Stages"))
    return dict(dataloaders or {})


def loader_of(dataloaders: Mapping[str, Any], stage: str) -> Any:
    """The loader of a stage.

    Args:
        dataloaders: Loaders by stage.
        stage: ``train``, ``val``, ``test`` or ``predict``.

    Raises:
        UserError: If there is none, it has no batch, or its sampler does not fit the stage.

    Example:
        >>> loader_of({"val": [1, 2]}, "val")
        [1, 2]
    """
    loader = dataloaders.get(stage)
    if loader is None:
        given = hint(stage, dataloaders, "Given")
        raise UserError(f"dataloaders.{stage}", "is required", "none", given)
    if length_of(loader) == 0:
        raise UserError(f"dataloaders.{stage}", "must yield at least one batch", "none", "Check the data set")
    if isinstance(loader, TaskLoader):
        _check_sampler(loader, stage)
    return loader


def _check_sampler(loader: TaskLoader, stage: str) -> None:
    """A sampler chooses the tasks of training steps; evaluation goes through the data of every task once."""
    sampled = loader.task_sampler is not None
    where = f"dataloaders.{stage}"
    if sampled and stage != "train":
        rule = "must yield the data of every task once, so without a sampler"
        raise UserError(where, rule, repr(loader.task_sampler), "Remove the sampler")
    if not sampled and stage == "train":
        rule = "must have a sampler that chooses the tasks of each step"
        raise UserError(where, rule, "none", "Pass for example sampler=polytask.data.Proportional()")


def replayable(loader: Any) -> Any:
    """The loader in a form that resumes in the middle of an epoch.

    Args:
        loader: A loader; one that has a ``state_dict`` is returned unchanged.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> type(replayable(DataLoader([1, 2]))).__name__
        'ReplayableLoader'
    """
    unchanged = hasattr(loader, "state_dict") or not hasattr(loader, "__iter__")
    return loader if unchanged else ReplayableLoader(loader)
