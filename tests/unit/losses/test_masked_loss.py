"""One task's loss: shapes that do not fit, losses of the user's own, and what is missing."""

import copy
import pickle
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from polytask import UserError
from polytask.batch import Labels, is_missing
from polytask.losses import MultiTaskLoss
from polytask.losses._masked_loss import MaskedLoss

NAN = float("nan")


def loss_of(loss, output, target, reduction="mean"):
    losses = MultiTaskLoss({"a": loss}, reduction=reduction).compute_task_losses({"a": output}, {"a": target})
    return losses["a"]


def message(loss, output, target):
    with pytest.raises(UserError) as caught:
        loss_of(loss, output, target)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (torch.tensor([1.0, NAN]), [False, True]),
        (torch.tensor([-100.0, float("inf")]), [False, False]),
        (torch.tensor([0, -100]), [False, True]),
        (torch.tensor([True, False]), [False, False]),
        (torch.tensor([156, 3], dtype=torch.uint8), [False, False]),
        (torch.tensor([-100, 3], dtype=torch.int8), [True, False]),
    ],
)
def test_what_is_missing(target, expected):
    assert is_missing(target).tolist() == expected


def test_an_ignore_index_outside_the_range_of_the_dtype_means_no_label():
    assert is_missing(torch.tensor([-1, 3], dtype=torch.int8), 255).tolist() == [False, False]
    assert is_missing(torch.tensor([255, 3], dtype=torch.uint8), 255).tolist() == [True, False]


@pytest.mark.parametrize(("loss", "outputs"), [(nn.CrossEntropyLoss(), (4, 200)), (nn.MSELoss(), (4,))])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_targets_of_a_byte_give_the_loss_of_wide_integers(loss, outputs, reduction):
    output, target = torch.randn(outputs), torch.tensor([156, 156, 156, 1])
    narrow = loss_of(loss, output, target.to(torch.uint8), reduction)
    assert narrow == loss_of(loss, output, target, reduction)


# Shapes


@pytest.mark.parametrize(
    "loss",
    [
        nn.MSELoss(),
        nn.L1Loss(),
        nn.SmoothL1Loss(),
        nn.HuberLoss(),
        nn.BCEWithLogitsLoss(),
        nn.PoissonNLLLoss(),
        nn.KLDivLoss(),
        nn.SoftMarginLoss(),
        nn.HingeEmbeddingLoss(),
        nn.MultiLabelSoftMarginLoss(),
    ],
    ids=lambda loss: type(loss).__name__,
)
@pytest.mark.parametrize(
    ("output", "target"),
    [
        ((4, 3), (4, 1)),
        ((4, 1), (4, 3)),
        ((4,), (4, 4)),
        ((4, 4), (4,)),
        ((4, 3, 1), (4, 1, 3)),
        ((4,), (1,)),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_shapes_that_torch_would_broadcast_are_errors(loss, output, target, missing):
    labels = torch.rand(target)
    if missing and len(labels) > 1:
        labels[0] = NAN
    found = message(loss, torch.rand(output), labels)
    assert found.startswith(f"task 'a': output and target must fit {type(loss).__name__}, got output")
    assert f"output {output} float32 and target {target} float32" in found


@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [
        (nn.CrossEntropyLoss(), torch.rand(4, 3), torch.tensor([0, 1])),
        (nn.CrossEntropyLoss(), torch.rand(4, 3, 5, 5), torch.zeros(4, 6, 5, dtype=torch.long)),
        (nn.CrossEntropyLoss(), torch.rand(4, 3), torch.zeros(4, 3, dtype=torch.long)),
        (nn.CrossEntropyLoss(), torch.rand(4, 3), torch.rand(4)),
        (nn.CrossEntropyLoss(), torch.rand(4, 3), torch.rand(4, 2)),
        (nn.MultiMarginLoss(), torch.rand(4, 3), torch.zeros(3, dtype=torch.long)),
        (nn.MultiLabelMarginLoss(), torch.rand(4, 3), torch.zeros(4, 2, dtype=torch.long)),
        (nn.MSELoss(), torch.rand(()), torch.rand(())),
        (nn.MSELoss(), torch.rand(4, 3), torch.rand(())),
        (nn.GaussianNLLLoss(), torch.rand(4), torch.rand(4)),
        (nn.BCELoss(), torch.rand(4) + 1, torch.rand(4)),
    ],
)
def test_what_does_not_fit_names_the_task_and_both_shapes(loss, output, target):
    found = message(loss, output, target)
    assert found.startswith("task 'a': ")
    assert f"output {tuple(output.shape)}" in found
    assert f"target {tuple(target.shape)}" in found


@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [
        (nn.CrossEntropyLoss(), (4, 3), [0, 3, 1, 2]),
        (nn.CrossEntropyLoss(torch.ones(3)), (4, 3), [0, 3, -100, 2]),
        (nn.CrossEntropyLoss(ignore_index=255), (4, 3), [0, 255, 3, 2]),
        (nn.CrossEntropyLoss(label_smoothing=0.1), (4, 3), [0, 1, 2, 3]),
        (nn.NLLLoss(), (4, 3), [3, 0, 0, 0]),
        (nn.MultiMarginLoss(), (4, 3), [0, 0, 0, 3]),
        (nn.CrossEntropyLoss(), (2, 3, 2), [[0, 1], [2, 3]]),
    ],
)
def test_a_class_out_of_range_is_named_with_the_range(loss, output, target):
    found = message(loss, torch.rand(output), torch.tensor(target))
    assert found.startswith("task 'a': class labels must be from 0 to 2 for 3 outputs, got class 3.")


def test_a_negative_class_is_named_too():
    assert "got class -1." in message(nn.CrossEntropyLoss(), torch.rand(2, 3), torch.tensor([-1, 0]))


# Class weights


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("target", [[0, 0], [0, -100]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_labels_of_weight_zero_alone_are_a_loss_of_zero(smoothing, target, dtype):
    loss = nn.CrossEntropyLoss(torch.tensor([0.0, 1.0, 1.0], dtype=dtype), label_smoothing=smoothing)
    output = torch.randn(2, 3, dtype=dtype, requires_grad=True)
    value = loss_of(loss, output, torch.tensor(target)) * 100
    assert value == 0
    (gradient,) = torch.autograd.grad(value, output)
    assert gradient.count_nonzero() == 0


# Losses of the user's own


class Squares(nn.Module):
    """Honours its reduction; one value for each element."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, output, target):
        values = (output - target).square()
        return {"none": values, "mean": values.mean(), "sum": values.sum()}[self.reduction]


class RowSquares(Squares):
    """Honours its reduction; one value for each row."""

    def forward(self, output, target):
        values = (output - target).square().mean(dim=1)
        return values if self.reduction == "none" else values.mean()


class DeafSquares(Squares):
    """Has a reduction and takes the mean all the same."""

    def forward(self, output, target):
        return F.mse_loss(output, target)


class MeanOnly(nn.Module):
    def forward(self, output, target):
        return F.mse_loss(output, target)


class ByRow(nn.Module):
    def forward(self, output, target):
        return (output - target).square().mean(dim=1)


class ByElement(nn.Module):
    def forward(self, output, target):
        return (output - target).square()


class OfTorch(nn.MSELoss):
    """A subclass whose own forward takes the mean all the same."""

    def forward(self, output, target):
        return F.mse_loss(output, target)


OWN = [Squares, RowSquares, DeafSquares, MeanOnly, ByRow, ByElement, OfTorch]


@pytest.mark.parametrize("build", OWN)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 3], [2]])
def test_a_custom_loss_on_labelled_rows(build, reduction, rows):
    torch.manual_seed(0)
    output, target = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3)
    expected = F.mse_loss(output[rows], target[rows])
    if reduction == "sum":
        by_element = build in (Squares, ByElement)
        expected = expected * len(rows) * (3 if by_element else 1)
    (expected_gradient,) = torch.autograd.grad(expected, output)
    labels = torch.full_like(target, NAN)
    labels[rows] = target[rows]
    value = loss_of(build(), output, labels, reduction)
    (gradient,) = torch.autograd.grad(value, output)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("build", [Squares, ByElement])
def test_a_custom_loss_by_element_leaves_single_elements_out(build):
    output, target = torch.tensor([[1.0, 5.0], [2.0, 3.0]]), torch.tensor([[0.0, NAN], [0.0, 0.0]])
    output.requires_grad_()
    value = loss_of(build(), output, target)
    (gradient,) = torch.autograd.grad(value, output)
    assert value.item() == pytest.approx((1 + 4 + 9) / 3)
    torch.testing.assert_close(gradient, torch.tensor([[2.0, 0.0], [4.0, 6.0]]) / 3)


class ByPixel(nn.Module):
    def forward(self, output, target):
        return F.cross_entropy(output, target.clamp(min=0), reduction="none")


def test_a_custom_loss_by_pixel_leaves_missing_pixels_out():
    torch.manual_seed(0)
    output, target = torch.randn(3, 4, 2, 2), torch.randint(0, 4, (3, 2, 2))
    target[0] = target[1, 0] = -100
    torch.testing.assert_close(loss_of(ByPixel(), output, target), F.cross_entropy(output, target))


class OneForEachOutput(nn.Module):
    def forward(self, output, target):
        return (output - target.reshape(len(target), -1)[:, :1]).square()


def test_a_loss_with_a_value_for_each_output_is_averaged_over_these():
    output, target = torch.tensor([[1.0, 3.0], [9.0, 9.0]]), torch.tensor([1.0, NAN])
    assert loss_of(OneForEachOutput(), output, target).item() == 2


@pytest.mark.parametrize(
    ("output", "target"),
    [
        (torch.rand(2, 4), torch.tensor([[1, -100, 2], [1, 1, 1]])),
        (torch.rand(2, 4), torch.tensor([[1.0, NAN, 2.0], [1.0, 1.0, 1.0]])),
    ],
)
def test_values_that_are_not_the_targets_elements_do_not_go_with_missing_ones(output, target):
    found = message(OneForEachOutput(), output, target)
    assert "the loss has shape (2, 4)" in found
    assert "(2, 3)" in found


def test_a_custom_loss_by_element_that_broadcasts_is_an_error():
    assert "the loss has shape (3, 3)" in message(ByElement(), torch.rand(3, 1), torch.rand(3))


@pytest.mark.parametrize(
    ("present", "rows", "depth", "by_class"),
    [
        ([1, 0, 1], [0, 2], 1, True),
        ([[1, 1], [0, 0]], [0], 1, True),
        ([[1, 0], [0, 0]], [0], 2, False),
        ([[[1, 1], [0, 0]], [[0, 0], [0, 0]]], [0], 2, False),
        ([[[1, 0], [1, 0]], [[0, 0], [0, 0]]], [0], 3, True),
    ],
)
def test_where_labels_are(present, rows, depth, by_class):
    labels = Labels.of(torch.tensor(present, dtype=torch.bool))
    assert (labels.rows.tolist(), labels.depth, labels.by_class) == (rows, depth, by_class)


@pytest.mark.parametrize(
    "loss",
    [RowSquares(), DeafSquares(), MeanOnly(), ByRow(), nn.MultiLabelSoftMarginLoss(), nn.CrossEntropyLoss()],
    ids=lambda loss: type(loss).__name__,
)
def test_a_loss_of_rows_cannot_leave_out_single_elements(loss):
    target = torch.tensor([[0.3, NAN, 0.2], [0.1, 0.8, 0.1]])
    found = message(loss, torch.rand(2, 3), target)
    assert found.startswith("task 'a': ")
    assert "cannot leave out single elements" in found
    assert "(2, 3)" in found


@pytest.mark.parametrize("missing", [False, True])
def test_a_custom_loss_that_broadcasts_is_an_error(missing):
    target = torch.tensor([0.0, NAN if missing else 1.0, 2.0])
    assert "the loss has shape (3, 3)" in message(Squares(), torch.rand(3, 1), target)


def test_a_custom_loss_sees_shapes_and_integers_as_they_are():
    seen = []

    class Sees(nn.Module):
        def forward(self, output, target):
            seen.append((tuple(output.shape), tuple(target.shape), target.dtype))
            return output.sum()

    loss_of(Sees(), torch.rand(3, 1), torch.tensor([1, 2, 3]))
    assert seen == [((3, 1), (3,), torch.int64)]


@pytest.mark.parametrize("value", [3.0, None, (torch.zeros(()),)])
def test_a_loss_that_returns_no_tensor_is_an_error(value):
    class Returns(nn.Module):
        def forward(self, output, target):
            return value

    assert message(Returns(), torch.rand(2), torch.rand(2)).startswith(
        "task_losses.a: must return a tensor, got "
    )


def test_a_loss_that_returns_too_many_values_is_an_error():
    class Doubled(nn.Module):
        def forward(self, output, target):
            return torch.cat([output, output])

    assert "the loss has shape (6,)" in message(Doubled(), torch.rand(3), torch.rand(3))


def test_an_error_of_the_loss_itself_comes_through():
    class Refuses(nn.Module):
        def forward(self, output, target):
            raise UserError("mask", "must be binary")

    assert message(Refuses(), torch.rand(2), torch.rand(2)) == "mask: must be binary."


def test_an_error_without_words_is_named():
    class Silent(nn.Module):
        def forward(self, output, target):
            raise ValueError

    assert "(ValueError)" in message(Silent(), torch.rand(2), torch.rand(2))


def test_the_reduction_is_put_back_after_an_error():
    loss = nn.CrossEntropyLoss()
    message(loss, torch.rand(2, 3), torch.tensor([0, 7]))
    assert loss.reduction == "mean"


def test_what_happens_to_the_loss_later_is_heeded():
    loss = nn.CrossEntropyLoss()
    criterion = MultiTaskLoss({"a": loss})
    output, target = torch.rand(3, 4), torch.tensor([0, 1, 2])
    loss.label_smoothing = 0.5
    assert criterion({"a": output}, {"a": target}).item() == pytest.approx(loss(output, target).item())
    loss.weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert criterion({"a": output}, {"a": target}).item() == pytest.approx(loss(output, target).item())


def test_training_and_evaluation_reach_the_loss():
    class Mode(nn.Module):
        reduction = "mean"

        def forward(self, output, target):
            return output * float(self.training)

    criterion = MultiTaskLoss({"a": Mode()})
    arguments = {"a": torch.ones(3)}, {"a": torch.ones(3)}
    assert criterion(*arguments).item() == 1
    assert criterion.eval()(*arguments).item() == 0


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_has_a_loss_of_its_own(clone):
    criterion = MultiTaskLoss({"a": nn.CrossEntropyLoss(torch.ones(2))})
    other = clone(criterion)
    other.task_losses["a"].weight.mul_(torch.tensor([1.0, 9.0]))
    arguments = {"a": torch.tensor([[0.0, 1.0], [0.0, 1.0]])}, {"a": torch.tensor([0, 1])}
    assert other(*arguments) != criterion(*arguments)
    assert other(*arguments) == other.task_losses["a"](arguments[0]["a"], arguments[1]["a"])


def test_targets_that_are_no_tensors_go_to_the_loss_as_they_are():
    class Boxes(nn.Module):
        def forward(self, output, target):
            return sum(value * len(boxes) for value, boxes in zip(output, target, strict=True))

    output = [torch.tensor(1.0), torch.tensor(2.0)]
    assert loss_of(Boxes(), output, [["x"], ["y", "z"]]).item() == 5


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MSELoss(), nn.MultiMarginLoss()])
def test_texts_are_no_targets_of_torchs_losses(loss):
    found = message(loss, torch.rand(2, 3), ["cat", "dog"])
    assert found == (
        f"task 'a': targets of {type(loss).__name__} must be numbers, got 'cat'. "
        "Number the classes in the data set."
    )


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.NLLLoss(), nn.MultiMarginLoss()])
@pytest.mark.parametrize("target", [torch.rand(4), torch.tensor([0, 1, 1, 0]), torch.rand(4).double()])
def test_a_loss_of_classes_requires_an_output_for_each_class(loss, target):
    """Torch reads output and target of shape (rows,) as one row of so many classes."""
    found = message(loss, torch.rand(4), target)
    assert found.startswith(f"task 'a': output and target must fit {type(loss).__name__}, got output (4,)")
    assert "a row must have an output for each class" in found


def test_targets_of_another_kind_do_not_fit_a_loss_of_classes():
    found = message(nn.CrossEntropyLoss(), torch.rand(2, 3), [0, 1])
    assert found.startswith("task 'a': output and target must fit CrossEntropyLoss, got output")


NUMBERS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
PARTLY = torch.tensor([[1.0, NAN], [3.0, 4.0]])
BY_ROW = torch.tensor([[1.0, 2.0], [NAN, NAN]])
CLASSES = torch.tensor([1, -100])
SHARES = torch.tensor([[0.5, 0.5], [0.1, 0.9]])
CROSS_ENTROPY, SQUARES = nn.CrossEntropyLoss(), nn.MSELoss()


# One case for each line of the table in the docstring of `MaskedLoss`, and for the sentence below it.
@pytest.mark.parametrize(
    ("loss", "output", "target", "route"),
    [
        (ByRow(), [torch.ones(())], [torch.ones(())], "_called_once"),
        (CROSS_ENTROPY, NUMBERS, CLASSES, "_sum_over_classes"),
        (CROSS_ENTROPY, NUMBERS, SHARES, "_sum_over_classes"),
        (SQUARES, NUMBERS, NUMBERS, "_sum_over_elements"),
        (CROSS_ENTROPY, NUMBERS, torch.tensor([[0.5, 0.5], [NAN, NAN]]), "_sum_of_masked_values"),
        (SQUARES, NUMBERS, PARTLY, "_sum_of_masked_values"),
        (CROSS_ENTROPY, NUMBERS.half(), CLASSES, "_sum_of_masked_values"),
        (SQUARES, NUMBERS.half(), NUMBERS, "_sum_of_masked_values"),
        (nn.MultiMarginLoss(), NUMBERS, CLASSES, "_sum_of_masked_values"),
        (Squares(), NUMBERS, NUMBERS, "_sum_of_masked_values"),
        (RowSquares(), NUMBERS, BY_ROW, "_sum_of_masked_values"),
        (MeanOnly(), NUMBERS, BY_ROW, "_sum_over_labelled_rows"),
        (ByRow(), NUMBERS, NUMBERS, "_sum_over_labelled_rows"),
        (DeafSquares(), NUMBERS, BY_ROW, "_sum_of_masked_values _sum_over_labelled_rows"),
        (OfTorch(), NUMBERS, NUMBERS, "_sum_of_masked_values _sum_over_labelled_rows"),
    ],
)
def test_each_line_of_the_table_of_routes(loss, output, target, route, monkeypatch):
    taken = []

    def spy(name):
        original = getattr(MaskedLoss, name)

        def method(self, *args):
            taken.append(name)
            return original(self, *args)

        monkeypatch.setattr(MaskedLoss, name, method)

    routes = re.findall(r"``(_\w+)``", MaskedLoss.__doc__)
    assert len(set(routes)) == len(routes) == 5
    for name in routes:
        spy(name)
    if isinstance(output, list):
        loss = lambda output, target: output[0] - target[0]  # noqa: E731
        MaskedLoss("a", loss)(output, target, 1, None)
    else:
        missing = is_missing(target)
        labels = Labels.of(~missing) if missing.any() else None
        MaskedLoss("a", loss)(output, target, int((~missing).sum()), labels)
    assert taken == route.split()


def test_a_masked_loss_is_a_sum_and_its_divisor():
    loss = MaskedLoss("a", nn.MSELoss())
    assert loss(torch.tensor([3.0]), torch.tensor([1.0]), 1, None) == (torch.tensor(4.0), 1.0)
