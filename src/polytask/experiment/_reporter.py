"""What a command reports while it runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from polytask._console import plain_console

if TYPE_CHECKING:
    from rich.console import Console


class Reporter(Protocol):
    """Receives what happens while a command runs; the command line prints it.

    Attributes:
        console: Where the progress of a training is shown.
    """

    console: "Console"

    def started(self, first: bool) -> None:
        """The command's processes are known; called once, before any other method.

        Args:
            first: Whether this process is the first of them; the others have nothing to say.
        """

    def resuming(self, run: Path, step: int, changed: Sequence[str]) -> None:
        """A run is about to be resumed.

        Args:
            run: The run's folder.
            step: Optimizer steps made so far.
            changed: Keys of the config that differ from the run's own.
        """

    def without_effect(self, names: Sequence[str]) -> None:
        """What was changed for a run that is resumed, and cannot change in it.

        Args:
            names: Keys of the config, and names of parameters and buffers.
        """

    def finished(self, run: Path, reason: str, fix: str) -> None:
        """A run was to be resumed, but has nothing left to train.

        Args:
            run: The run's folder.
            reason: Why it has ended.
            fix: How it can be continued.
        """

    def loading(self, checkpoint: Path, differing: Sequence[str]) -> None:
        """A checkpoint is about to be loaded.

        Args:
            checkpoint: Its file.
            differing: Keys of the config that differ from the run's own.
        """

    def stopped(self, run: Path, signal: str, epoch: int, step: int) -> None:
        """A training was stopped by a signal.

        Args:
            run: The run's folder.
            signal: The signal's name.
            epoch: The epoch in which the run continues, from 0.
            step: Optimizer steps made.
        """


class Silent:
    """A `Reporter` that shows nothing.

    Attributes:
        console: A console that prints nothing.

    Example:
        >>> Silent().console.print("epoch 1")
    """

    def __init__(self) -> None:
        self.console = plain_console(quiet=True)

    def started(self, first: bool) -> None:
        """Nothing."""

    def resuming(self, run: Path, step: int, changed: Sequence[str]) -> None:
        """Nothing."""

    def without_effect(self, names: Sequence[str]) -> None:
        """Nothing."""

    def finished(self, run: Path, reason: str, fix: str) -> None:
        """Nothing."""

    def loading(self, checkpoint: Path, differing: Sequence[str]) -> None:
        """Nothing."""

    def stopped(self, run: Path, signal: str, epoch: int, step: int) -> None:
        """Nothing."""
