"""A small regression with the tasks of `tests.cases`, and a Trainer that writes nothing."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from tests.cases import TASKS


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
    """A Trainer for one epoch; ``options`` go before its own."""
    defaults: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(**{**defaults, **options})
