"""The table of all weightings, read from their classes and docstrings."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from polytask import weighting
from polytask.weighting import GramianWeighting, JacobianAggregator, LossWeighting, Weighting

_GIVEN: dict[type[Weighting], str] = {
    LossWeighting: "losses",
    GramianWeighting: "Gramian",
    JacobianAggregator: "Jacobian",
}
# A year ends a venue; the digits before a dot and digits are an arXiv number's.
_VENUE = re.compile(r".*?\b\d{4}\b(?!\.\d)")
_CODE = re.compile(r"`(?!`)([^`]+)`")


@dataclass(frozen=True)
class Method:
    """One weighting.

    Attributes:
        method: Its name in `polytask.weighting`.
        given: What it computes weights from: losses, the Gramian or the Jacobian.
        needs: What else it requires.
        cost: What a step costs in addition to a plain one.
        source: First author, venue and year.
        when: When to choose it.
    """

    method: str
    given: str
    needs: str
    cost: str
    source: str
    when: str


def methods() -> list[Method]:
    """All weightings: those based on losses, then on the Gramian, then on the Jacobian.

    Example:
        >>> next(method for method in methods() if method.method == "DWA").source
        'Liu et al., CVPR 2019'
    """
    public = [getattr(weighting, name) for name in sorted(weighting.__all__, key=str.casefold)]
    return [
        _method(found, given)
        for base, given in _GIVEN.items()
        for found in public
        if issubclass(found, base) and not inspect.isabstract(found)
    ]


def _method(found: type[Weighting], given: str) -> Method:
    when, reference = section(found, "When"), section(found, "Reference")
    return Method(found.__name__, given, _needs(found), _cost(found, given), _source(reference), when)


def section(documented: object, name: str) -> str:
    """The content of a docstring's section, in one line.

    Args:
        documented: The object with the docstring.
        name: The section's title.

    Example:
        >>> section(section, "Args")
        "documented: The object with the docstring. name: The section's title."
    """
    text = inspect.getdoc(documented) or ""
    found = re.search(rf"^{name}:\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def _needs(found: type[Weighting]) -> str:
    needs = []
    if found.gradients is not None:
        level = {"last_shared": "last shared layer"}.get(found.gradients, found.gradients)
        needs.append(f"gradients of the {level}")
    if getattr(found, "needs_losses", False):
        needs.append("losses")
    if found.remeasures:
        needs.append("the batch's losses after the step")
    if found.batches_per_step > 1:
        needs.append(f"{found.batches_per_step} batches a step")
    return ", ".join(needs) or "nothing"


def _cost(found: type[Weighting], given: str) -> str:
    if found.gradients is None:
        return "one more forward" if found.remeasures else "none"
    if found.gradients == "last_shared":
        return "one layer's gradients by task"
    cost = "gradients by task, all kept" if given == "Jacobian" else "gradients by task"
    return f"{cost}, {found.batches_per_step} times" if found.batches_per_step > 1 else cost


def _source(reference: str) -> str:
    """``A, B, C. Title. Venue 2019, equation 7.`` as ``A et al., Venue 2019``."""
    authors, _, rest = reference.partition(". ")
    _, _, rest = rest.partition(". ")
    venue = _VENUE.match(rest)
    if venue is None:
        return reference.rstrip(".")
    names = authors.split(", ")
    first = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
    return f"{first}, {venue[0]}"


def header() -> tuple[str, ...]:
    """Titles of the columns.

    Example:
        >>> header()[:2]
        ('method', 'given')
    """
    return tuple(field.name for field in fields(Method))


def words(method: Method) -> tuple[str, ...]:
    """A row of the table, as plain text.

    Args:
        method: The method.

    Example:
        >>> words(Method("X", "losses", "nothing", "none", "A, 2000", "As `Y`."))[-1]
        'As Y.'
    """
    return tuple(value.replace("`", "") for value in astuple(method))


def lines(found: Iterable[Method]) -> list[str]:
    r"""The table for other programs: a header and one line per method, separated by tabs.

    Args:
        found: The methods.

    Example:
        >>> lines(methods())[0].split("\t")
        ['method', 'given', 'needs', 'cost', 'source', 'when']
    """
    return ["\t".join(header()), *("\t".join(words(method)) for method in found)]


def page(found: Iterable[Method]) -> str:
    """The table for the documentation, in Markdown; names are links.

    Args:
        found: The methods.

    Example:
        >>> print(page(methods()).splitlines()[0])
        | method | given | needs | cost | source | when |
    """
    rows = ["| " + " | ".join(header()) + " |", "|" + "---|" * len(header())]
    for method in found:
        name, *others, when = astuple(method)
        when = _CODE.sub(lambda code: _link(code[1]), when)
        rows.append(" | ".join(["| " + _link(name), *others, when]) + " |")
    return "\n".join(rows) + "\n"


def _link(name: str) -> str:
    return f"[`{name}`](project:#polytask.weighting.{name})" if name in weighting.__all__ else f"`{name}`"
