"""A small regression with the tasks of `tests.cases`, and a Trainer that writes nothing."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from tests.cases import TASKS
from tests.training import quiet_trainer


def rows(number: int, missing: Sequence[Any] = ()) -> list[Any]:
    """Points and their targets by task, without the labels at the indices ``missing``."""
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(number, 3, generator=generator, dtype=torch.float64)
    targets = 2 + torch.randn(number, 3, generator=generator, dtype=torch.float64)
    for index in missing:
        targets[index] = torch.nan
    return [
        (point, dict(zip(TASKS, target.split(1), strict=True)))
        for point, target in zip(points, targets, strict=True)
    ]


def plain(**options: Any) -> pl.Trainer:
    """A quiet Trainer that logs each step; ``options`` go before its own."""
    return quiet_trainer(**{"log_every_n_steps": 1, **options})
