"""Random numbers that continue from a checkpoint."""

import torch
from torch import Tensor, nn

from polytask._checks import check_integer


class RandomStream(nn.Module):
    """A seeded random generator for every step, the same on every rank and after a resume.

    Its state is a seed and a number of steps, which `state_dict` holds. Weightings keep it as ``draws``, the
    name under which checkpoints hold that state.

    Args:
        seed: Seed of the random numbers; None means the seed of torch.

    Example:
        >>> one, other = RandomStream(0), RandomStream(0)
        >>> other.load_state_dict(one.state_dict())
        <All keys matched successfully>
        >>> bool(torch.rand((), generator=one.step()) == torch.rand((), generator=other.step()))
        True
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        given = torch.initial_seed() if seed is None else check_integer(seed, "seed", optional=True)
        self.seed = given % 2**63
        self.steps = 0

    def step(self, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator of the next step.

        Args:
            device: The generator's device.
        """
        # An odd factor with many bits keeps the streams of neighbouring seeds apart.
        mixed = (self.seed * 0x9E3779B97F4A7C15 + self.steps) % 2**63
        self.steps += 1
        return torch.Generator(device).manual_seed(mixed)

    def get_extra_state(self) -> Tensor:
        """Seed and number of steps."""
        return torch.tensor([self.seed, self.steps])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the seed and the number of steps.

        Args:
            state: What `get_extra_state` returned.
        """
        self.seed, self.steps = state.tolist()
