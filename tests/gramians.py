"""Gramians that are hard in one way each."""

import torch

KINDS = ("independent", "dependent", "ill", "conflicting", "scales", "tiny", "huge", "similar")


def jacobian(kind: str, tasks: int, seed: int = 0) -> torch.Tensor:
    """Gradients of one kind, float64.

    Example:
        >>> jacobian("tiny", 2).norm() < 1e-5
        tensor(True)
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64)

    rows = normal(tasks, 3 * tasks + 2)
    along = torch.linspace(-1, 1, tasks, dtype=torch.float64)[:, None]
    shrinking = torch.logspace(0, -3, tasks, dtype=torch.float64)
    return {
        "independent": rows,
        "dependent": normal(tasks, (tasks + 1) // 2) @ rows[: (tasks + 1) // 2],
        "ill": normal(tasks, tasks) @ (shrinking[:, None] * rows),
        "conflicting": rows + 3 * along * normal(1, 3 * tasks + 2),
        "scales": rows * torch.logspace(0, 4, tasks, dtype=torch.float64)[:, None],
        "tiny": rows * 1e-8,
        "huge": rows * 1e8,
        "similar": rows[:1] + 0.05 * normal(tasks, 3 * tasks + 2),
    }[kind]


def gramian(kind: str, tasks: int, seed: int = 0) -> torch.Tensor:
    """The Gramian of `jacobian`.

    Example:
        >>> gramian("ill", 3).shape
        torch.Size([3, 3])
    """
    rows = jacobian(kind, tasks, seed)
    return rows @ rows.mT


def random_numbers(seed: int, step: int) -> torch.Generator:
    """The generator that a seeded weighting uses in a step, which resumed runs rely on."""
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + step) % 2**63)
