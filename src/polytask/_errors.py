"""The two errors that polytask raises on purpose, and the nearest-name hint."""

import difflib
from collections.abc import Iterable

# Characters of a value in a message.
_LONGEST = 120


class UserError(ValueError):
    """Something the user gave cannot be used; the command line exits with 2.

    The message is one line: ``<where>: <rule>. Found <value>. <fix>.``

    Args:
        where: The key, argument or task at fault.
        rule: What must hold there, without a final stop.
        found: What was given instead.
        fix: What to do about it.

    Example:
        >>> print(UserError("loss_weights", "needs one weight per task", "2 weights for 3 tasks"))
        loss_weights: needs one weight per task. Found 2 weights for 3 tasks.
    """

    def __init__(self, where: str, rule: str, found: object = None, fix: str | None = None) -> None:
        super().__init__(where, rule, found, fix)

    def __str__(self) -> str:
        return _sentence(*self.args)


class RunError(RuntimeError):
    """A run that cannot go on (a loss became NaN, say); the command line exits with 1.

    The arguments are those of `UserError`.

    Example:
        >>> print(RunError("task 'a'", "the loss must be finite", "nan at step 12"))
        task 'a': the loss must be finite. Found nan at step 12.
    """

    def __init__(self, where: str, rule: str, found: object = None, fix: str | None = None) -> None:
        super().__init__(where, rule, found, fix)

    def __str__(self) -> str:
        return _sentence(*self.args)


def _sentence(where: str, rule: str, found: object, fix: str | None) -> str:
    parts = [f"{where}: {rule}"]
    if found is not None:
        parts.append(f"Found {found}")
    if fix is not None:
        parts.append(fix)
    return " ".join(part if part.endswith(("?", "!")) else part.rstrip(".") + "." for part in parts)


def nearest(name: str, options: Iterable[str]) -> str | None:
    """The option that reads most like ``name``, or None where none is close.

    Example:
        >>> nearest("acuracy", ["Accuracy", "F1Score"])
        'Accuracy'
    """
    options = list(options)
    lowered = {option.lower(): option for option in options}
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def hint(name: str, options: Iterable[str], noun: str = "Known") -> str:
    """A fix in words: the nearest name, or all names where none is close.

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
    """A text without line breaks, cut where it is long.

    Args:
        found: A text, or what has one.

    Example:
        >>> one_line(ValueError("first\\n  second"))
        'first second'
        >>> len(one_line("a" * 500))
        121
    """
    words = " ".join(str(found).split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
