"""Errors of a data set, reported as a mistake in the data with the key of its loader."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from polytask._errors import Reason, RunError, UserError
from polytask._lightning._loaders import failed_dataset, raised_in_worker


@contextmanager
def data_errors(dataloaders: Mapping[str, Any]) -> Iterator[None]:
    """Turn what goes wrong inside a `torch.utils.data.DataLoader` into a `UserError`.

    Args:
        dataloaders: Loaders by stage, to name the one at fault.

    Raises:
        UserError: If a data set, a sampler or the collation raised; every other error is left alone.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader([[1], [1, 2]], batch_size=2)
        >>> with data_errors({"train": loader}):
        ...     next(iter(loader))
        Traceback (most recent call last):
        polytask._errors.UserError: system.dataloaders.train: a batch of list could not be loaded: ...
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        failed = failed_dataset(error)
        if failed is None:
            raise
        (dataset,) = failed
        stages = [stage for stage, loader in dataloaders.items() if _has(loader, dataset)]
        raise UserError(
            ".".join(["system.dataloaders", *stages[:1]]),
            f"a batch of {type(dataset).__name__} could not be loaded",
            _reason(error),
            "Run with --debug for the traceback",
        ) from error


def _has(loader: Any, dataset: Any) -> bool:
    """Whether a loader, or one of several, is of a data set."""
    if isinstance(loader, (list, tuple)):
        return any(_has(one, dataset) for one in loader)
    if isinstance(loader, Mapping):
        return any(_has(one, dataset) for one in loader.values())
    return getattr(loader, "dataset", None) is dataset


def _reason(error: Exception) -> Reason:
    """The error in one line; a worker sends its traceback as a string, whose last line is the error."""
    if raised_in_worker(error):
        return Reason(str(error).strip().splitlines()[-1])
    return Reason.of(error)
