"""What a data set raises, told as a mistake in the data with the loader's key."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter

from polytask._errors import RunError, UserError


@contextmanager
def data_errors(dataloaders: Mapping[str, Any]) -> Iterator[None]:
    """Turn what goes wrong inside a `torch.utils.data.DataLoader` into a `UserError`.

    Args:
        dataloaders: Loaders by stage, to name the one at fault.

    Raises:
        UserError: Where a data set, a sampler or the collation raised; everything else passes.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader([[1], [1, 2]], batch_size=2)
        >>> with data_errors({"train": loader}):
        ...     next(iter(loader))
        Traceback (most recent call last):
        polytask._errors.UserError: system.dataloaders.train: a batch of list could not be loaded, got ...
    """
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        at_fault = _at_fault(error)
        if at_fault is None:
            raise
        stages = [stage for stage, loader in dataloaders.items() if _dataset(loader) is at_fault._dataset]
        raise UserError(
            ".".join(["system.dataloaders", *stages[:1]]),
            f"a batch of {type(at_fault._dataset).__name__} could not be loaded",
            _reason(error),
            "--debug shows where",
        ) from error


def _dataset(loader: Any) -> Any:
    return getattr(loader, "dataset", None)


def _at_fault(error: Exception) -> _BaseDataLoaderIter | None:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is _BaseDataLoaderIter.__next__.__code__:
            at_fault: _BaseDataLoaderIter = frame.f_locals["self"]
            return at_fault
    return None


def _reason(error: Exception) -> str:
    """The error in one line; a worker hands over its traceback as text, whose last line is the error."""
    text = str(error)
    if "Original Traceback" in text:
        return text.strip().splitlines()[-1]
    return f"{type(error).__name__}: {' '.join(text.split())}"
