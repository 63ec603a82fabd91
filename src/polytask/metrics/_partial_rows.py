"""Rows of which some labels are missing: how a metric is called with the labelled elements only."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MultilabelCoverageError, MultilabelRankingLoss

from polytask._checks import is_integer, is_number
from polytask._errors import UserError
from polytask._lightning._metrics import without_sync
from polytask.batch import IGNORE_INDEX, Labels

# What a metric, or a function of the user's, may raise on arguments that it was not made for.
FAILURES = (ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
# They count the elements of `ignore_index` as labels that are 0.
_IGNORE_NOTHING = (MultilabelCoverageError, MultilabelRankingLoss)
_PROBED_ROWS = 16
_PROBED_ELEMENTS = 2**20


@dataclass(frozen=True)
class Gaps:
    """Where the labels of a batch's rows are missing.

    Attributes:
        present: The elements that have a label, in the shape of the target.
        depth: The smallest number of leading dimensions whose entries each have all of their labels or none.
        by_class: Whether labels along dimension 1 are all present or all missing.

    Example:
        >>> target = torch.tensor([[1.0, torch.nan], [0.0, 2.0]])
        >>> Gaps.of(target, Labels.of(~target.isnan(), -100)).present
        tensor([[ True, False],
                [ True,  True]])
    """

    present: Tensor
    depth: int
    by_class: bool

    @classmethod
    def of(cls, target: Tensor, labels: Labels) -> "Gaps | None":
        """The gaps in rows that have a label; None if these have all of their labels.

        Args:
            target: The rows of the target that have a label.
            labels: The labels of the target.
        """
        if labels.whole(1):
            return None
        return cls(labels.present(target), labels.depth, labels.by_class)

    @property
    def kind(self) -> tuple[int, bool]:
        """What decides how the gaps can be left out."""
        return self.depth, self.by_class

    def shaped(self, shape: torch.Size) -> "Gaps | None":
        """The gaps of the target in another shape; None if that has other elements."""
        if self.present.shape == shape:
            return self
        squeezed = [size for size in shape if size != 1]
        if squeezed != [size for size in self.present.shape if size != 1]:
            return None
        return Gaps(self.present.reshape(shape), len(shape), False)


@dataclass(frozen=True)
class ElementView:
    """From values by row to values by element, or by vector.

    Attributes:
        depth: The leading dimensions that become one; None for all but dimension 1, the classes or channels.

    Example:
        >>> ElementView(2)(torch.zeros(4, 3, 5)).shape, ElementView(None)(torch.zeros(4, 3, 5)).shape
        (torch.Size([12, 5]), torch.Size([20, 3]))
    """

    depth: int | None

    def __call__(self, values: Tensor) -> Tensor:
        """The values by element, or by vector."""
        return (
            values.movedim(1, -1).flatten(0, -2) if self.depth is None else values.flatten(0, self.depth - 1)
        )

    def fits(self, gaps: Gaps) -> bool:
        """Whether each element, or vector, has all of its labels or none."""
        return gaps.by_class if self.depth is None else gaps.depth <= self.depth


class Form:
    """A metric's arguments without the elements that have no label.

    Args:
        view: Gives values by element; None if the metric is called with rows, and leaves out elements that
            are marked.
        mark: What marks an element without a label if the metric is called with rows: an integer, or NaN;
            None if there may be none.
    """

    def __init__(self, view: ElementView | None, mark: float | None = None) -> None:
        self.view = view
        self.mark = mark

    def fits(self, gaps: Gaps) -> bool:
        """Whether the elements without a label can be left out."""
        return self.mark is not None if self.view is None else self.view.fits(gaps)

    def __call__(self, output: Any, target: Tensor, gaps: Gaps | None) -> tuple[Any, Tensor]:
        """Output and target without the gaps.

        Args:
            output: The output.
            target: The target, NaN or ``ignore_index`` in its gaps.
            gaps: The gaps.
        """
        if gaps is None:
            return (output, target) if self.view is None else self.of_all(output, target)
        if self.view is None:
            assert self.mark is not None
            return output, _marked(target, gaps.present, self.mark)
        mask = _one_each(self.view(gaps.present))
        return self._elements(output, target)[mask], self.view(target)[mask]

    def of_all(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Output and target by element, if none is missing."""
        assert self.view is not None
        return self._elements(output, target), self.view(target)

    def of_column(self, column: Any, target: Tensor, gaps: Gaps | None) -> Any:
        """A column of the batch, one value for each element; unchanged if the metric is called with rows.

        Args:
            column: One value for each row, or for each element.
            target: The target.
            gaps: The gaps.
        """
        if self.view is None or not isinstance(column, Tensor) or not column.ndim:
            return column
        if column.shape != target.shape:
            column = column.reshape(len(column), *[1] * (target.ndim - 1)).expand(target.shape)
        values = self.view(column)
        first = values if values.ndim == 1 else values.flatten(1)[:, 0]
        return first if gaps is None else first[_one_each(self.view(gaps.present))]

    def _elements(self, output: Tensor, target: Tensor) -> Tensor:
        assert self.view is not None
        if output.ndim == target.ndim:
            return self.view(output)
        return output.movedim(1, -1).flatten(0, target.ndim - 1)


def form_of(
    metric: Metric, output: Any, target: Any, gaps: Gaps | None, call: Callable[..., Any], where: str
) -> Form:
    """How a metric can be called with the labelled elements only.

    A metric with an ``ignore_index`` leaves out what has it. Any other metric is called with the labelled
    elements, or vectors, if on rows without a gap that gives the same value as the rows themselves; or with
    NaN for what is missing if it leaves these elements out itself.

    Args:
        metric: The metric.
        output: An output.
        target: Its target.
        gaps: The gaps; None for a form that would fit any.
        call: Updates a metric with an output and a target, and passes everything else that it takes.
        where: The metric's key, for the message.

    Raises:
        UserError: If there are gaps, and the metric cannot leave out single elements.
    """
    given = _ignore_index(metric)
    if given is not None:
        return Form(None, given)
    if isinstance(output, Tensor) and _corresponding(output, target):
        # The metric's own draws must not change those of the training.
        with torch.random.fork_rng(devices=[]):
            form = _probed(metric, output, target, gaps, call)
            if form is not None:
                return form
    if gaps is None:
        return Form(None)
    raise UserError(
        where,
        f"{type(metric).__name__} needs whole rows and cannot leave out single elements",
        f"rows with some labels missing in a target of shape {tuple(target.shape)}",
        f"Use a metric of single elements, such as {_substitute(metric, target)}, or mark the whole row as "
        "missing",
    )


def _probed(
    metric: Metric, output: Tensor, target: Tensor, gaps: Gaps | None, call: Callable[..., Any]
) -> Form | None:
    """The form that gives the same value as rows, found with rows without a gap."""
    rows = _whole_rows(output, target, gaps)
    expected = _value(metric, call, *rows)
    if expected is None:
        return None
    for view in _views(output, target):
        form = Form(view)
        if (gaps is None or view.fits(gaps)) and _equal(_value(metric, call, *form.of_all(*rows)), expected):
            return form
    if gaps is not None and target.is_floating_point() and _leaves_out_nan(metric, call, *rows):
        return Form(None, torch.nan)
    return None


def honour_ignore_index(metric: Metric) -> None:
    """Let a metric that can leave out an ``ignore_index``, and has none, leave out -100.

    Set when the metric is made, since in every process it has to be the same.

    Args:
        metric: The metric.

    Example:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> metric = MulticlassAccuracy(3)
        >>> honour_ignore_index(metric)
        >>> metric.ignore_index
        -100
    """
    for part in innermost(metric):
        if getattr(part, "ignore_index", 0) is None and not isinstance(part, _IGNORE_NOTHING):
            part.ignore_index = IGNORE_INDEX


def innermost(metric: Metric) -> list[Metric]:
    """The metric, or the metrics that it wraps.

    Example:
        >>> from torchmetrics import MeanSquaredError
        >>> innermost(MeanSquaredError() + 1)
        [MeanSquaredError()]
    """
    parts = [part for part in metric.modules() if isinstance(part, Metric)]
    return [part for part in parts if sum(isinstance(inner, Metric) for inner in part.modules()) == 1]


def of_classification(metric: Metric) -> bool:
    """Whether the metric, or what it wraps, is torchmetrics' own for classification.

    Example:
        >>> from torchmetrics.classification import BinaryAccuracy
        >>> of_classification(BinaryAccuracy())
        True
    """
    return all(type(part).__module__.startswith("torchmetrics.classification.") for part in innermost(metric))


def _ignore_index(metric: Metric) -> int | None:
    """What the metric leaves out; None if nothing, or if its parts differ."""
    parts = innermost(metric)
    given = {getattr(part, "ignore_index", None) for part in parts}
    if len(given) > 1 or any(isinstance(part, _IGNORE_NOTHING) for part in parts):
        return None
    (index,) = given
    return index if is_integer(index) else None


def _marked(target: Tensor, present: Tensor, mark: float) -> Tensor:
    if mark != mark:
        return target.masked_fill(~present, mark)
    known = torch.where(present, target, 0)
    whole = known.long()
    # Labels that are no whole numbers are for the metric to refuse.
    return (whole if torch.equal(whole.to(known.dtype), known) else known).masked_fill(~present, mark)


def _corresponding(output: Tensor, target: Tensor) -> bool:
    by_class = (len(target), *target.shape[1:]) == (len(output), *output.shape[2:])
    return output.shape == target.shape or (output.ndim == target.ndim + 1 and by_class)


def _views(output: Tensor, target: Tensor) -> Iterator[ElementView]:
    yield ElementView(target.ndim)
    if output.ndim == target.ndim:
        yield from (ElementView(depth) for depth in range(target.ndim - 1, 1, -1))
        if target.ndim > 2:
            yield ElementView(None)


def _one_each(mask: Tensor) -> Tensor:
    return mask if mask.ndim == 1 else mask.flatten(1).any(dim=1)


def _whole_rows(output: Tensor, target: Tensor, gaps: Gaps | None) -> tuple[Tensor, Tensor]:
    """Rows without a gap, made of the labelled elements."""
    classes = output.ndim > target.ndim
    present = torch.ones_like(target, dtype=torch.bool) if gaps is None else gaps.present
    outputs = (output.movedim(1, -1) if classes else output)[present]
    targets = target[present]
    generator = torch.Generator().manual_seed(0)
    count = min(_PROBED_ROWS, max(3, _PROBED_ELEMENTS * len(output) // output.numel()))
    shape = (count, *target.shape[1:])
    chosen = torch.randint(len(targets), shape, generator=generator).to(targets.device)
    rows = outputs[chosen]
    if rows.is_floating_point():
        # Elements that are all alike would hide a difference. Signs, and a range from 0 to 1, are kept.
        rows = rows * (0.5 + torch.rand(rows.shape, generator=generator) / 2).to(rows)
    return rows.movedim(-1, 1) if classes else rows, targets[chosen]


def _leaves_out_nan(metric: Metric, call: Callable[..., Any], output: Tensor, target: Tensor) -> bool:
    """Whether elements, and rows, whose target is NaN have no effect on the value."""
    gaps = (torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.3).to(target.device)
    holed = target.masked_fill(gaps, torch.nan)
    value = _value(metric, call, output, holed)
    if value is None or output.shape != target.shape:
        return False
    other = _value(metric, call, torch.where(gaps, output.roll(1, 0), output), holed)
    more = _value(
        metric,
        call,
        torch.cat([output, output[:2]]),
        torch.cat([holed, torch.full_like(holed[:2], torch.nan)]),
    )
    return _equal(other, value) and _equal(more, value)


def _value(metric: Metric, call: Callable[..., Any], output: Tensor, target: Tensor) -> Any:
    """What a metric computes from these rows alone; None if it fails, or if nothing of it is finite."""
    fresh = without_sync(copy.deepcopy(metric))
    fresh.reset()
    try:
        call(fresh, output, target)
        numbers = list(_numbers(fresh.compute()))
    except FAILURES:
        return None
    return numbers if any(bool(number.isfinite().any()) for number in numbers) else None


def _numbers(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, Tensor) or is_number(value):
        yield torch.as_tensor(value).double()


def _equal(found: Any, expected: Any) -> bool:
    return (
        found is not None
        and len(found) == len(expected)
        and all(
            one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)
            for one, other in zip(found, expected, strict=True)
        )
    )


def _substitute(metric: Metric, target: Tensor) -> str:
    if target.is_floating_point() and not of_classification(metric):
        return "torchmetrics.MeanAbsoluteError, or torchmetrics.MultioutputWrapper for one by column"
    return "torchmetrics.JaccardIndex or torchmetrics.F1Score"
