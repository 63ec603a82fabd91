"""Foreign messages and values, short enough for an error's one line."""

_LONGEST = 120


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
