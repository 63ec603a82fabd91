"""How a job ended, as data: written by the process that did it, read by the one that waited for it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from polytask._errors import RunError, UserError, one_line
from polytask._files import write_text

Status = Literal["done", "failed", "interrupted", "lost"]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: ``done``; ``failed`` with an error; ``interrupted`` by a signal, with a checkpoint to resume
            from; ``lost`` if its process wrote no outcome, for example after ``kill -9``.
        kind: The class of the error.
        where: The error's ``where``; its class again if it is not one of polytask's.
        rule: The error's ``rule``, or its message.
        found: The error's ``found``; for a lost job how its process ended.
        fix: The error's ``fix``.

    Example:
        >>> print(Outcome.of(ValueError("not today")).error)
        ValueError: not today.
    """

    status: Status
    kind: str = ""
    where: str = ""
    rule: str = ""
    found: str | None = None
    fix: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The outcome of a job that an error ended.

        Args:
            error: Any exception.
        """
        if isinstance(error, KeyboardInterrupt):
            return cls("interrupted")
        kind = type(error).__name__
        if isinstance(error, UserError | RunError):
            found = None if error.found is None else one_line(error.found)
            return cls("failed", kind, str(error.where), error.rule, found, error.fix)
        return cls("failed", kind, kind, one_line(error))

    @classmethod
    def lost(cls, how: str) -> Self:
        """The outcome of a job whose process left none.

        Args:
            how: How the process ended.
        """
        return cls("lost", found=how)

    @property
    def error(self) -> UserError | RunError:
        """The error; one that is not polytask's becomes a `RunError`."""
        kind = UserError if self.kind == UserError.__name__ else RunError
        return kind(self.where, self.rule, self.found, self.fix)

    @property
    def is_run_error(self) -> bool:
        """Whether the training itself failed, and not because of a mistake in the config."""
        return self.status == "failed" and self.kind != UserError.__name__

    def write(self, file: Path) -> None:
        """Write it, in one step.

        Args:
            file: The file.
        """
        write_text(file, json.dumps(asdict(self)))


def read_outcome(file: Path, code: int | None) -> Outcome:
    """The outcome of a job whose process has ended.

    Args:
        file: The file that the process wrote it to.
        code: The process's exit code.
    """
    if not file.exists():
        return Outcome.lost(f"exit code {code}")
    return Outcome(**json.loads(file.read_text()))
