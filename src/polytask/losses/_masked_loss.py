"""One task's loss as a sum over its labelled elements and what to divide it by."""

from typing import Any

import torch
from torch import Tensor, nn

from polytask._errors import UserError
from polytask.batch import HALF, IGNORE_INDEX, Labels, check_labels, is_missing

# Newer torch only; without it the entry is a class without instances.
_LINEAR_CROSS_ENTROPY = getattr(nn, "LinearCrossEntropyLoss", type("_Absent", (), {}))
SumAndDivisor = tuple[Tensor, float | Tensor]
_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, _LINEAR_CROSS_ENTROPY)
_ELEMENTS = (
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.HingeEmbeddingLoss,
    nn.HuberLoss,
    nn.KLDivLoss,
    nn.L1Loss,
    nn.MSELoss,
    nn.PoissonNLLLoss,
    nn.SmoothL1Loss,
    nn.SoftMarginLoss,
)


class MaskedLoss:
    """One task's loss as a sum over its labelled elements and what to divide it by.

    How missing labels are left out depends on the loss and the target. The first line that fits is taken:

    ========================================  ===================================  ========================
    Loss                                      Output and target                    Route
    ========================================  ===================================  ========================
    any                                       one of them is no tensor             ``_called_once``
    of classes, of torch (cross-entropy, …)   classes; or probabilities, all       ``_sum_over_classes``
                                              labelled
    of elements, of torch (squared error, …)  all labelled                         ``_sum_over_elements``
    with a ``reduction``                      any                                  ``_sum_of_masked_values``
    other; or one value despite ``"none"``    any                                  ``_sum_over_labelled_rows``
    ========================================  ===================================  ========================

    Outputs of half precision skip the second and the third line, since a sum over a large target overflows
    when the mean would not. "Of torch" means that the ``forward`` is torch's, not a subclass's.

    Args:
        name: The task.
        loss: The user's loss module. Its ``reduction`` is replaced during a call, and restored after it.

    Example:
        >>> loss = MaskedLoss("height", nn.MSELoss())
        >>> loss(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0]), 2, None)
        (tensor(4.), 2.0)
    """

    def __init__(self, name: str, loss: nn.Module) -> None:
        self.name = name
        self.loss = loss
        ignore_index = getattr(loss, "ignore_index", None)
        self.ignore_index = IGNORE_INDEX if ignore_index is None else int(ignore_index)
        reduction = getattr(loss, "reduction", None)
        self.reduction = reduction if isinstance(reduction, str) else None
        self.indexed = isinstance(loss, (*_CLASSES, nn.MultiMarginLoss))
        self.same_shape = isinstance(loss, (*_ELEMENTS, nn.MultiLabelSoftMarginLoss))
        self.classes = isinstance(loss, _CLASSES) and _is_torchs_own(loss)
        self.elements = isinstance(loss, _ELEMENTS) and _is_torchs_own(loss)

    def __call__(self, output: Any, target: Any, count: int, labels: Labels | None) -> SumAndDivisor:
        """The sum and its divisor.

        Args:
            output: The model's output for the task.
            target: The task's target.
            count: The number of labelled elements of the target.
            labels: Which these are; None if all are.

        Raises:
            UserError: If the shapes do not fit, or a class index is out of range.
        """
        if not isinstance(output, Tensor) or not isinstance(target, Tensor):
            return self._called_once(output, target)
        output, target = self._aligned(output, target)
        full = labels is None
        if output.dtype not in HALF:
            if self.classes and (full or not target.is_floating_point()):
                return self._sum_over_classes(output, target, count, full)
            if self.elements and full:
                return self._sum_over_elements(output, target, count)
        if self.reduction is not None:
            return self._sum_of_masked_values(output, target, count, labels)
        return self._sum_over_labelled_rows(output, target, count, labels)

    # ---- the routes -----------------------------------------------------------------------------

    def _called_once(self, output: Any, target: Any) -> SumAndDivisor:
        """The loss as it is: without tensors there is nothing to mask."""
        self._check_no_strings(target)
        return self._row_sum(self._call(output, target), output, target, 1)

    def _sum_over_classes(self, output: Tensor, target: Tensor, count: int, full: bool) -> SumAndDivisor:
        """Torch's own sum, which leaves out ``ignore_index``."""
        return self._by_class_weight(self._reduced("sum", output, target), target, count, full)

    def _sum_over_elements(self, output: Tensor, target: Tensor, count: int) -> SumAndDivisor:
        """Torch's own sum, since no element is missing."""
        divisor = len(target) if self.reduction == "batchmean" else count
        return self._reduced("sum", output, target), float(divisor)

    def _sum_of_masked_values(
        self, output: Tensor, target: Tensor, count: int, labels: Labels | None
    ) -> SumAndDivisor:
        """The sum of the values by element, or by row if the loss has one value for each row."""
        present = None if labels is None else ~is_missing(target, self.ignore_index)
        # NaN has to go before the loss: masking its result would leave NaN in the gradient.
        known = target if present is None else torch.where(present, target, 0)
        values = self._reduced("none", output, known)
        if not isinstance(values, Tensor) or values.ndim == 0:
            return self._sum_over_labelled_rows(output, target, count, labels)
        total = self._labelled_sum(values, present, labels, output, target)
        if self.classes:
            return self._by_class_weight(total, target, count, labels is None)
        if self.reduction == "batchmean":
            return total, float(len(target) if labels is None else len(labels.rows))
        return total, count * values.numel() / target.numel()

    def _sum_over_labelled_rows(
        self, output: Tensor, target: Tensor, count: int, labels: Labels | None
    ) -> SumAndDivisor:
        """The loss, called on the rows that have a label."""
        present = None
        if labels is not None:
            # The host found the rows: a mask here would make it wait for the device.
            rows = labels.rows.to(output.device)
            output, target = output.index_select(0, rows), target.index_select(0, rows)
            present = ~is_missing(target, self.ignore_index)
        numbers = target.is_floating_point()
        known = target if present is None or not numbers else torch.where(present, target, 0)
        values = self._call(output, known)
        if isinstance(values, Tensor) and values.ndim > 1 and values.numel() > len(target):
            if values.shape == output.shape and (labels is None or labels.whole(1)):
                return self._row_sum(values, output, target, len(target))
            total = self._labelled_sum(values, present, labels, output, target)
            return total, count * values.numel() / target.numel()
        if labels is not None and numbers and not labels.whole(1):
            raise self._no_single_elements(target, values)
        return self._row_sum(values, output, target, len(target))

    # ---- sums and divisors ----------------------------------------------------------------------

    def _by_class_weight(self, total: Tensor, target: Tensor, count: int, full: bool) -> SumAndDivisor:
        """The sum and the labels' total weight; a loss of 0 if only classes of weight 0 are labelled."""
        divisor = self._class_weight(target, count, full)
        if isinstance(divisor, Tensor):
            empty = divisor == 0
            # The smallest number instead of 0, so that divisors of several batches still add up.
            divisor = torch.where(empty, torch.finfo(divisor.dtype).tiny, divisor)
            total = torch.where(empty, 0, total)
        return total, divisor

    def _class_weight(self, target: Tensor, count: int, full: bool) -> float | Tensor:
        """What torch divides a mean over classes by: the labels' total weight."""
        if target.is_floating_point():
            return count / target.shape[min(1, target.ndim - 1)]
        weight = self.loss.weight
        if not isinstance(weight, Tensor):
            return float(count)
        if full:
            return weight[target].sum()
        present = target != self.ignore_index
        return torch.where(present, weight[torch.where(present, target, 0)], 0).sum()

    def _labelled_sum(
        self, values: Tensor, present: Tensor | None, labels: Labels | None, output: Tensor, target: Tensor
    ) -> Tensor:
        """The sum of the loss's values that are for a label."""
        by_class = target.ndim > 1 and values.shape == (len(target), *target.shape[2:])
        if not by_class and values.shape != target.shape[: values.ndim]:
            raise self._misfit(output, target, f"; the loss has shape {tuple(values.shape)}")
        if labels is not None and present is not None:
            if values.shape != target.shape:
                if not (labels.by_class if by_class else labels.whole(values.ndim)):
                    raise self._no_single_elements(target, values)
                present = present.any(dim=1) if by_class else present.flatten(values.ndim).any(dim=-1)
            values = torch.where(present, values, 0)
        return values.sum(dtype=torch.float32) if values.dtype in HALF else values.sum()

    def _row_sum(self, value: Any, output: Any, target: Any, rows: int) -> SumAndDivisor:
        """One value for each row, or one for all of them, as a sum over the rows."""
        if not isinstance(value, Tensor):
            raise UserError(f"task_losses.{self.name}", "must return a tensor", type(value).__name__)
        if value.numel() == 1:
            return value.reshape(()) * (1 if self.reduction == "sum" else rows), float(rows)
        if value.ndim == 0 or len(value) != rows:
            raise self._misfit(output, target, f"; the loss has shape {tuple(value.shape)}")
        return value.sum(), float(value.numel())

    def _no_single_elements(self, target: Tensor, values: Any) -> UserError:
        shape = f"; the loss has shape {tuple(values.shape)}" if isinstance(values, Tensor) else ""
        return UserError(
            f"task '{self.name}'",
            f"{type(self.loss).__name__} has one value for a row and cannot leave out single elements",
            f"rows with some labels missing in a target of shape {tuple(target.shape)}{shape}",
            "Mark the whole row as missing, or use a loss with one value for each element",
        )

    # ---- the call -------------------------------------------------------------------------------

    def _check_no_strings(self, target: Any) -> None:
        """A loss of the user's own may take strings; torch's compute with numbers."""
        of_torch = type(self.loss).__module__.startswith("torch.nn.")
        strings = isinstance(target, str) or (
            isinstance(target, (list, tuple)) and any(isinstance(entry, str) for entry in target)
        )
        if of_torch and strings:
            raise UserError(
                f"task '{self.name}'",
                f"targets of {type(self.loss).__name__} must be numbers",
                repr(target if isinstance(target, str) else target[0]),
                "Number the classes in the data set",
            )

    def _aligned(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The target in the shape and dtype that torch's loss requires, if there is one way to read it."""
        if output.ndim == 0 or target.ndim == 0 or output.shape[0] != target.shape[0]:
            raise self._misfit(output, target)
        if self.indexed and output.ndim == 1 and _is_torchs_own(self.loss):
            # Torch reads it as the classes of a single row.
            raise self._misfit(output, target, " (a row must have an output for each class)")
        if not target.is_floating_point():
            if self.indexed:
                if output.ndim == target.ndim > 1 and target.shape[1] == 1:
                    target = target.squeeze(1)
                return output, target if target.dtype is torch.int64 else target.long()
            if self.same_shape:
                target = self._as_float(target, output)
        elif target.dtype != output.dtype and output.dtype not in HALF and output.is_floating_point():
            target = target.to(output.dtype)
        elif target.dtype == torch.float64 and output.dtype in HALF:
            target = target.float()
        return output, self._reshaped(output, target) if self.same_shape else target

    def _reshaped(self, output: Tensor, target: Tensor) -> Tensor:
        if output.shape == target.shape:
            return target
        if output.shape == (*target.shape, 1):
            return target.unsqueeze(-1)
        if target.shape == (*output.shape, 1):
            return target.squeeze(-1)
        raise self._misfit(output, target)

    def _as_float(self, target: Tensor, output: Tensor) -> Tensor:
        # bfloat16 cannot represent integers above 256.
        values = target.to(torch.float32 if output.dtype in HALF else output.dtype)
        if target.dtype == torch.bool:
            return values
        return values.masked_fill(is_missing(target, self.ignore_index), torch.nan)

    def _reduced(self, reduction: str, output: Tensor, target: Tensor) -> Any:
        """The loss with another reduction."""
        # Set for the call and not on a copy: a copy would miss what happens to the module later.
        attributes = self.loss.__dict__
        attributes["reduction"] = reduction
        try:
            return self._call(output, target)
        finally:
            attributes["reduction"] = self.reduction

    def _call(self, output: Any, target: Any) -> Any:
        try:
            return self.loss(output, target)
        except (UserError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            self._check_classes(output, target)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise self._misfit(output, target, f" ({reason})") from error

    def _check_classes(self, output: Any, target: Any) -> None:
        if not (self.indexed and isinstance(output, Tensor) and isinstance(target, Tensor)):
            return
        if target.is_floating_point() or output.ndim < 2 or output.is_cuda:
            return
        check_labels(
            target,
            f"task '{self.name}'",
            getattr(self.loss, "num_classes", output.shape[1]),
            ignore_index=self.ignore_index,
            noun="outputs",
            fix="Widen the head, or number the classes from 0",
        )

    def _misfit(self, output: Any, target: Any, detail: str = "") -> UserError:
        given = f"output {_describe(output)} and target {_describe(target)}{detail}"
        return UserError(
            f"task '{self.name}'", f"output and target must fit {type(self.loss).__name__}", given
        )


def _is_torchs_own(loss: nn.Module) -> bool:
    """Whether the forward is torch's: a subclass's own forward may reduce as it likes."""
    return type(loss).forward.__module__ == nn.modules.loss.__name__


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__
