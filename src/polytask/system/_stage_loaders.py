"""The loaders of the stages."""

from collections.abc import Mapping, Sequence
from typing import Any

from polytask._errors import UserError, hint
from polytask._tasks import check_task_names
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
    for one in each_loader(loader):
        if isinstance(one, TaskLoader):
            _check_sampler(one, stage)
    return loader


def each_loader(loader: Any) -> list[Any]:
    """The loaders of a stage that may have several.

    Args:
        loader: A loader, or a mapping or list of them.

    Example:
        >>> each_loader({"clean": [1], "noisy": [2]})
        [[1], [2]]
    """
    if isinstance(loader, Mapping):
        return list(loader.values())
    return list(loader) if isinstance(loader, (list, tuple)) else [loader]


def loader_names(loader: Any, stage: str, tasks: Sequence[str]) -> tuple[str, ...]:
    """The names of several loaders of a stage, in order; none if there is one.

    Args:
        loader: A loader, or what a config gives for it; a mapping of several by name, or a list.
        stage: The stage.
        tasks: All tasks.

    Raises:
        UserError: If a name cannot stand in a log key.

    Example:
        >>> loader_names({"clean": [1], "noisy": [2]}, "val", ["digit"]), loader_names([[1], [2]], "val", [])
        (('clean', 'noisy'), ('0', '1'))
    """
    if isinstance(loader, Mapping) and "_target_" not in loader:
        where = f"dataloaders.{stage}"
        for name in loader:
            if name in tasks:
                raise UserError(where, "names of loaders must differ from those of tasks", repr(name))
        return tuple(check_task_names([str(name) for name in loader], where)) if len(loader) > 1 else ()
    if isinstance(loader, (list, tuple)) and len(loader) > 1:
        return tuple(map(str, range(len(loader))))
    return ()


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
