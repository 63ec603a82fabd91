"""The two errors that polytask raises on purpose, and the hint that names the nearest known name."""

import difflib
from collections.abc import Iterable
from typing import Self

# Characters of a value in a message.
_LONGEST = 200


class Reason(str):
    """What another library or the system says about a failure.

    A message has it after a colon, since it is no value that was given. It is shown uncut, because the remedy
    may be at the end.

    Example:
        >>> Reason.of(KeyError("image"))
        "KeyError: 'image'"
    """

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The class and the message of an error, in one line.

        Args:
            error: The error.
        """
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())}")

    @classmethod
    def said(cls, error: BaseException) -> Self:
        """The message of an error alone, in one line; for a system's error without the path.

        Args:
            error: The error.

        Example:
            >>> Reason.said(FileNotFoundError(2, "No such file or directory", "a.csv"))
            'No such file or directory'
        """
        text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        return cls(" ".join(text.split()))


class _FieldsError(Exception):
    """What the two errors have in common: four fields, and the line made of them."""

    def __init__(self, where: str, rule: str, found: object = None, fix: str | None = None) -> None:
        super().__init__(where, rule, found, fix)
        self.where, self.rule, self.found, self.fix = where, rule, found, fix

    def at(self, where: str, fix: str | None = None) -> Self:
        """The same error at another key or argument.

        Args:
            where: The new ``where``.
            fix: The new ``fix``; the error's own if None.
        """
        return type(self)(where, self.rule, self.found, self.fix if fix is None else fix)

    def __str__(self) -> str:
        line = f"{self.where}: {self.rule}"
        if isinstance(self.found, Reason):
            line = f"{line}: {self.found}"
        elif self.found is not None:
            line = f"{line.rstrip('.')}, got {one_line(self.found)}"
        parts = [line] if self.fix is None else [line, self.fix]
        return " ".join(part if part.endswith(("?", "!")) else part.rstrip(".") + "." for part in parts)


class UserError(_FieldsError, ValueError):
    """An argument, a key or a file of the user that cannot be used; the command line exits with 2.

    The message is one line: ``<where>: <rule>, got <found>. <fix>.``, with a `Reason` in place of a value
    ``<where>: <rule>: <reason>. <fix>.``

    Args:
        where: The key, argument or task at fault.
        rule: What must hold there, without a full stop.
        found: The value that was given instead, which is shown on one line and cut after 200 characters; or
            a `Reason`.
        fix: What to do about it.

    Attributes:
        where: As given.
        rule: As given.
        found: As given.
        fix: As given.

    Example:
        >>> error = UserError("loss_weights", "must have one weight per task", "2 weights for 3 tasks")
        >>> print(error)
        loss_weights: must have one weight per task, got 2 weights for 3 tasks.
        >>> print(error.at("criterion.loss_weights", "Add one"))
        criterion.loss_weights: must have one weight per task, got 2 weights for 3 tasks. Add one.
    """


class RunError(_FieldsError, RuntimeError):
    """A run that cannot continue, for example because a loss is NaN; the command line exits with 1.

    The arguments and attributes are those of `UserError`.

    Example:
        >>> print(RunError("task 'a'", "the loss must be finite", "nan at step 12"))
        task 'a': the loss must be finite, got nan at step 12.
    """


def distinct(errors: Iterable[UserError]) -> list[UserError]:
    """The errors without those whose four fields are those of an earlier one.

    Args:
        errors: The errors.

    Example:
        >>> [error.found for error in distinct([UserError("a", "b", 1), UserError("a", "b", 2)] * 2)]
        [1, 2]
    """
    kept: dict[tuple[object, ...], UserError] = {}
    for error in errors:
        kept.setdefault((error.where, error.rule, str(error.found), error.fix), error)
    return list(kept.values())


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option that reads most like ``name``, or None if none is close.

    Example:
        >>> nearest("acuracy", ["Accuracy", "F1Score"])
        'Accuracy'
    """
    options = list(options)
    lowered = {option.lower(): option for option in options}
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def hint(name: str, options: Iterable[str], noun: str = "Known") -> str:
    """A fix as a sentence: the nearest name, or all names if none is close.

    Example:
        >>> hint("acuracy", ["Accuracy", "F1Score"])
        "Did you mean 'Accuracy'?"
        >>> hint("zzz", ["a", "b"])
        'Known: a, b'
    """
    options = list(options)
    close = nearest(name, options)
    if close is not None:
        return f"Did you mean '{close}'?"
    return f"{noun}: {', '.join(options)}" if options else f"{noun}: none"


def one_line(found: object) -> str:
    """A value as a string without line breaks, cut after 200 characters.

    Args:
        found: A string, or any object that has one.

    Example:
        >>> one_line(ValueError("first\\n  second"))
        'first second'
        >>> len(one_line("a" * 500))
        201
    """
    line = " ".join(str(found).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
