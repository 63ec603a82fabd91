"""One string for one value, however a file writes it: ``3.0`` is ``3``, and ``True`` is ``true``."""

import ast
import datetime
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeVar

_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), "true"),
    **dict.fromkeys(("false", "False", "FALSE"), "false"),
}
# Not every number: "007" and "3.10" are also how codes and versions are written, and keep their digits.
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0*)?", re.ASCII)
_EXPONENT = re.compile(r"-?(?:[1-9](?:\.\d*)?[eE][+-]?\d{1,3}|0(?:\.0*)?[eE][+-]?0+)", re.ASCII)
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(?::(\d\d)(?:\.(\d*))?)? ?(Z|UTC|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_TIME = re.compile(r"(\d\d:\d\d:\d\d)\.(\d*)", re.ASCII)
_LONGEST = 2**64

Value = TypeVar("Value")


def text_form(text: str) -> str:
    """The string by which a value is known, for all strings that CSV and Parquet files have for it.

    These are the strings that pyarrow, pandas, polars and numpy write for whole numbers, floats, booleans,
    times, and bytes. Every other string is its own form.

    Args:
        text: What a file has.

    Example:
        >>> [text_form(text) for text in ("3.0", "1e+20", "True", "2020-07-28 00:00:00", "b'a'", "007")]
        ['3', '100000000000000000000', 'true', '2020-07-28', 'a', '007']
    """
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text.startswith(("b'", 'b"')):
        return _of_bytes(text)
    if not (text[:1].isdigit() or text.startswith("-")):
        return text
    if found := _WHOLE.fullmatch(text):
        return "0" if found[1] == "-0" else found[1]
    if _EXPONENT.fullmatch(text):
        return _positional(text)
    if found := _DATE.fullmatch(text):
        return _moment(text, found)
    if found := _TIME.fullmatch(text):
        return found[1] + _fraction(found[2])
    return text


def by_text(known: Iterable[tuple[str, Value]], strings: Iterable[str]) -> list[Value | None]:
    """What is known of each of these strings, or of its form; None if nothing is.

    Args:
        known: Strings with their values; of strings with one form, the first counts for others of this form.
        strings: What a file has.

    Example:
        >>> by_text([("low", 0), ("1.0", 1)], ["low", "1", "high"])
        [0, 1, None]
    """
    exact = dict(known)
    forms: dict[str, Value] = {}
    for text, value in exact.items():
        forms.setdefault(text_form(text), value)
    return [exact[text] if text in exact else forms.get(text_form(text)) for text in strings]


def decoded(value: bytes) -> str:
    """Bytes as a string: their characters in UTF-8, else as Python writes them.

    Example:
        >>> decoded(b"a"), decoded(bytes([255]))
        ('a', "b'\\\\xff'")
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        return repr(value)


def _of_bytes(text: str) -> str:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return decoded(value).strip() if isinstance(value, bytes) else text


def _positional(text: str) -> str:
    number = float(text)
    if number.is_integer() and abs(number) < _LONGEST:
        return str(int(number))
    digits = format(Decimal(text), "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _moment(text: str, found: re.Match[str]) -> str:
    date, minutes, seconds, fraction, zone = found.groups()
    clock, rest = f"{minutes or '00:00'}:{seconds or '00'}", _fraction(fraction or "")
    if zone is None:
        return date if clock == "00:00:00" and not rest else f"{date} {clock}{rest}"
    offset = "+00:00" if zone in ("Z", "UTC") else zone
    try:
        local = datetime.datetime.fromisoformat(f"{date}T{clock}{offset}")
        utc = local.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return text
    return f"{utc.replace(tzinfo=None).isoformat(' ')}{rest}Z"


def _fraction(digits: str) -> str:
    digits = digits.rstrip("0")
    return f".{digits}" if digits else ""
