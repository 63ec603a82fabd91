"""MultiTaskLoss against torch's own losses: fully labelled, and on the labels picked out by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polytask.losses import MultiTaskLoss

pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss")

ROWS, CLASSES = 6, 4
NAN = float("nan")


@dataclass(frozen=True)
class Loss:
    """A loss, an output and a fully labelled target for it, and what one label of it is."""

    name: str
    build: Callable[[], nn.Module]
    output: Callable[[], Tensor]
    target: Callable[[], Tensor]
    by_row: bool = False

    def __str__(self) -> str:
        return self.name


def normal(*shape):
    return lambda: torch.randn(shape)


def uniform(*shape):
    return lambda: torch.rand(shape)


def indices(*shape, number=CLASSES):
    return lambda: torch.randint(0, number, shape)


def signs(*shape):
    return lambda: torch.randint(0, 2, shape) * 2.0 - 1.0


def distributions(*shape):
    return lambda: torch.randn(shape).softmax(dim=1)


def log_distributions(*shape):
    return lambda: torch.randn(shape).log_softmax(dim=1)


def class_sets():
    return torch.stack([torch.randperm(CLASSES) for _ in range(ROWS)]).where(torch.arange(CLASSES) < 2, -1)


WEIGHT = torch.tensor([0.2, 1.0, 3.0, 0.7])
DENSE = (ROWS, CLASSES, 3, 2)
TABLE = (ROWS, 3)

INDEXED = [
    Loss("cross_entropy", nn.CrossEntropyLoss, normal(ROWS, CLASSES), indices(ROWS)),
    Loss("cross_entropy-weight", lambda: nn.CrossEntropyLoss(WEIGHT), normal(ROWS, CLASSES), indices(ROWS)),
    Loss(
        "cross_entropy-smooth",
        lambda: nn.CrossEntropyLoss(label_smoothing=0.2),
        normal(ROWS, CLASSES),
        indices(ROWS),
    ),
    Loss(
        "cross_entropy-smooth-weight",
        lambda: nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.2),
        normal(ROWS, CLASSES),
        indices(ROWS),
    ),
    Loss("cross_entropy-dense", nn.CrossEntropyLoss, normal(*DENSE), indices(ROWS, 3, 2)),
    Loss(
        "cross_entropy-dense-weight", lambda: nn.CrossEntropyLoss(WEIGHT), normal(*DENSE), indices(ROWS, 3, 2)
    ),
    Loss("nll", nn.NLLLoss, log_distributions(ROWS, CLASSES), indices(ROWS)),
    Loss("nll-weight-dense", lambda: nn.NLLLoss(WEIGHT), log_distributions(*DENSE), indices(ROWS, 3, 2)),
    Loss("multi_margin", lambda: nn.MultiMarginLoss(p=2), normal(ROWS, CLASSES), indices(ROWS)),
    Loss(
        "multi_margin-weight",
        lambda: nn.MultiMarginLoss(weight=WEIGHT),
        normal(ROWS, CLASSES),
        indices(ROWS),
    ),
]
if hasattr(nn, "LinearCrossEntropyLoss"):
    INDEXED.append(
        Loss(
            "linear_cross_entropy",
            lambda: nn.LinearCrossEntropyLoss(5, CLASSES),
            normal(ROWS, 5),
            indices(ROWS),
        )
    )

ELEMENTWISE = [
    Loss("l1", nn.L1Loss, normal(*TABLE), normal(*TABLE)),
    Loss("mse", nn.MSELoss, normal(*TABLE), normal(*TABLE)),
    Loss("mse-one", nn.MSELoss, normal(ROWS), normal(ROWS)),
    Loss("mse-dense", nn.MSELoss, normal(ROWS, 1, 3, 2), normal(ROWS, 1, 3, 2)),
    Loss("huber", lambda: nn.HuberLoss(delta=0.3), normal(*TABLE), normal(*TABLE)),
    Loss("smooth_l1", lambda: nn.SmoothL1Loss(beta=0.3), normal(*TABLE), normal(*TABLE)),
    Loss("bce", nn.BCELoss, uniform(*TABLE), uniform(*TABLE)),
    Loss("bce_logits", nn.BCEWithLogitsLoss, normal(*TABLE), uniform(*TABLE)),
    Loss(
        "bce_logits-pos_weight",
        lambda: nn.BCEWithLogitsLoss(pos_weight=torch.tensor([0.5, 2.0, 7.0])),
        normal(*TABLE),
        uniform(*TABLE),
    ),
    Loss("poisson", nn.PoissonNLLLoss, normal(*TABLE), uniform(*TABLE)),
    Loss(
        "poisson-full",
        lambda: nn.PoissonNLLLoss(log_input=False, full=True),
        uniform(*TABLE),
        lambda: torch.randint(0, 9, TABLE).float(),
    ),
    Loss("kl", nn.KLDivLoss, log_distributions(*TABLE), distributions(*TABLE)),
    Loss(
        "kl-log", lambda: nn.KLDivLoss(log_target=True), log_distributions(*TABLE), log_distributions(*TABLE)
    ),
    Loss("soft_margin", nn.SoftMarginLoss, normal(*TABLE), signs(*TABLE)),
    Loss("hinge_embedding", nn.HingeEmbeddingLoss, normal(*TABLE), signs(*TABLE)),
]

BY_ROW = [
    Loss(
        "kl-batchmean",
        lambda: nn.KLDivLoss(reduction="batchmean"),
        log_distributions(*TABLE),
        distributions(*TABLE),
    ),
    Loss(
        "cross_entropy-probabilities",
        nn.CrossEntropyLoss,
        normal(ROWS, CLASSES),
        distributions(ROWS, CLASSES),
    ),
    Loss(
        "cross_entropy-probabilities-weight",
        lambda: nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1),
        normal(ROWS, CLASSES),
        distributions(ROWS, CLASSES),
    ),
    Loss("multilabel_soft_margin", nn.MultiLabelSoftMarginLoss, normal(*TABLE), uniform(*TABLE)),
    Loss("multilabel_margin", nn.MultiLabelMarginLoss, normal(ROWS, CLASSES), class_sets),
]
# Dense probabilities are given by pixel: a row of labels is one pixel's.
DENSE_PROBABILITIES = Loss(
    "cross_entropy-probabilities-dense", nn.CrossEntropyLoss, normal(*DENSE), distributions(*DENSE)
)
EVERY = [*INDEXED, *ELEMENTWISE, *BY_ROW, DENSE_PROBABILITIES]

cases = pytest.mark.parametrize("case", EVERY, ids=str)
indexed = pytest.mark.parametrize("case", INDEXED, ids=str)
elementwise = pytest.mark.parametrize("case", ELEMENTWISE, ids=str)
by_row = pytest.mark.parametrize("case", BY_ROW, ids=str)


def made(case: Loss) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return case.build(), case.output().requires_grad_(), case.target()


def mark(target: Tensor, where: Tensor, missing: int = -100) -> Tensor:
    return target.masked_fill(where, NAN if target.is_floating_point() else missing)


def flat(output: Tensor) -> Tensor:
    """Classes last, everything else in one dimension."""
    return output.movedim(1, -1).flatten(0, -2)


def alone(loss: nn.Module, output: Tensor, target: Tensor, reduction: str = "mean") -> tuple[Tensor, Tensor]:
    """The task's loss as MultiTaskLoss computes it, and its gradient by the output."""
    value = MultiTaskLoss({"a": loss}, reduction=reduction).compute_task_losses({"a": output}, {"a": target})[
        "a"
    ]
    (gradient,) = torch.autograd.grad(value, output)
    return value, gradient


def by_hand(value: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(value, output)
    return value, gradient


def check(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert found[1].isfinite().all()
    torch.testing.assert_close(found, expected)


def test_every_loss_of_torch_that_takes_output_and_target_is_here():
    others = {  # More than an output and a target, or no reduction.
        "AdaptiveLogSoftmaxWithLoss",
        "CTCLoss",
        "CosineEmbeddingLoss",
        "GaussianNLLLoss",
        "MarginRankingLoss",
        "TripletMarginLoss",
        "TripletMarginWithDistanceLoss",
    }
    known = {type(case.build()).__name__ for case in EVERY}
    assert {name for name in dir(nn) if name.endswith("Loss")} - others == known


@cases
def test_a_full_batch_equals_torch(case):
    loss, output, target = made(case)
    check(alone(loss, output, target), by_hand(loss(output, target), output))


@cases
def test_a_sum_over_a_full_batch_equals_torch(case):
    loss, output, target = made(case)
    found = alone(loss, output, target, "sum")
    loss.reduction = "sum"
    check(found, by_hand(loss(output, target), output))


@pytest.mark.parametrize("case", [case for case in EVERY if "batchmean" not in case.name], ids=str)
def test_a_loss_of_reduction_none_is_averaged_as_torch_would(case):
    loss, output, target = made(case)
    expected = by_hand(loss(output, target), output)
    loss.reduction = "none"
    check(alone(loss, output, target), expected)


@cases
def test_the_users_loss_keeps_its_reduction(case):
    loss, output, target = made(case)
    own = loss.reduction
    alone(loss, output, mark(target, torch.zeros_like(target, dtype=torch.bool)))
    assert loss.reduction == own


@pytest.mark.parametrize("case", [case for case in EVERY if list(case.build().parameters())], ids=str)
def test_the_gradient_of_the_losses_parameters_is_torchs(case):
    loss, output, target = made(case)
    parameters = list(loss.parameters())
    expected = torch.autograd.grad(loss(output, target), parameters)
    total = MultiTaskLoss({"a": loss})({"a": output}, {"a": target})
    torch.testing.assert_close(torch.autograd.grad(total, parameters), expected)


@indexed
def test_missing_classes_equal_the_labelled_ones_picked_out(case):
    loss, output, target = made(case)
    missing = torch.rand(target.shape) < 0.4
    assert missing.any()
    assert not missing.all()
    present = ~missing
    picked = flat(output)[present.flatten()]
    expected = by_hand(loss(picked, target[present]), output)
    check(alone(loss, output, mark(target, missing)), expected)


@pytest.mark.parametrize("ignore_index", [255, -1, 2])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_another_ignore_index_is_the_missing_label(ignore_index, weight):
    torch.manual_seed(0)
    loss = nn.CrossEntropyLoss(weight, ignore_index=ignore_index)
    output, target = torch.randn(DENSE, requires_grad=True), torch.randint(0, CLASSES, (ROWS, 3, 2))
    target[:2] = ignore_index
    check(alone(loss, output, target), by_hand(loss(output, target), output))


@elementwise
def test_missing_elements_equal_the_labelled_ones_picked_out(case):
    loss, output, target = made(case)
    missing = torch.rand(target.shape) < 0.4
    missing[0] = True
    present = ~missing
    if isinstance(loss, nn.BCEWithLogitsLoss) and loss.pos_weight is not None:
        picked = nn.BCEWithLogitsLoss(pos_weight=loss.pos_weight.expand(TABLE)[present])
    else:
        picked = loss
    expected = by_hand(picked(output[present], target[present]), output)
    check(alone(loss, output, mark(target, missing)), expected)


@by_row
def test_missing_rows_equal_the_labelled_ones_picked_out(case):
    loss, output, target = made(case)
    rows = torch.tensor([True, False, True, True, False, False])
    missing = (~rows)[:, None].expand_as(target)
    expected = by_hand(loss(output[rows], target[rows]), output)
    check(alone(loss, output, mark(target, missing)), expected)


def test_missing_pixels_of_probabilities_equal_the_labelled_ones_picked_out():
    loss, output, target = made(DENSE_PROBABILITIES)
    missing = torch.rand(ROWS, 3, 2) < 0.4
    present = ~missing.flatten()
    expected = by_hand(loss(flat(output)[present], flat(target)[present]), output)
    check(alone(loss, output, mark(target, missing[:, None].expand_as(target))), expected)


@cases
def test_a_task_without_any_label_is_absent(case):
    loss, output, target = made(case)
    everything = torch.ones_like(target, dtype=torch.bool)
    criterion = MultiTaskLoss({"a": loss})
    assert criterion.compute_task_losses({"a": output}, {"a": mark(target, everything)}) == {}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_integers_as_targets_of_bce_are_read_as_numbers(dtype):
    torch.manual_seed(0)
    loss, output, target = (
        nn.BCEWithLogitsLoss(),
        torch.randn(ROWS, requires_grad=True),
        torch.arange(ROWS) % 2,
    )
    check(alone(loss, output, target.to(dtype)), by_hand(loss(output, target.float()), output))


def test_a_missing_integer_target_of_bce_is_left_out():
    loss, output = nn.BCEWithLogitsLoss(), torch.randn(4, requires_grad=True)
    expected = by_hand(loss(output[[0, 3]], torch.tensor([1.0, 0.0])), output)
    check(alone(loss, output, torch.tensor([1, -100, -100, 0])), expected)


@pytest.mark.parametrize("shapes", [((5, 1), (5,)), ((5,), (5, 1)), ((5, 2, 1), (5, 2))])
@pytest.mark.parametrize("missing", [False, True])
def test_a_dimension_of_one_is_no_difference(shapes, missing):
    torch.manual_seed(0)
    output, target = torch.randn(shapes[0], requires_grad=True), torch.randn(shapes[1])
    if missing:
        target[1:3] = NAN
    present = ~target.flatten().isnan()
    expected = by_hand(nn.L1Loss()(output.flatten()[present], target.flatten()[present]), output)
    check(alone(nn.L1Loss(), output, target), expected)


def test_a_dimension_of_one_beside_classes_is_no_difference():
    output, target = torch.randn(5, 3, requires_grad=True), torch.tensor([0, 2, 1, -100, 0])
    expected = by_hand(nn.CrossEntropyLoss()(output, target), output)
    check(alone(nn.CrossEntropyLoss(), output, target[:, None]), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool])
def test_any_integers_are_class_indices(dtype):
    output, target = torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 1, 0])
    expected = by_hand(nn.CrossEntropyLoss()(output, target), output)
    check(alone(nn.CrossEntropyLoss(), output, target.to(dtype)), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("target_dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("missing", [False, True])
def test_outputs_and_targets_of_different_precision(dtype, target_dtype, missing):
    torch.manual_seed(0)
    output = torch.randn(ROWS, 3, dtype=dtype, requires_grad=True)
    target = torch.rand(ROWS, 3, dtype=target_dtype)
    if missing:
        target[0, 0] = NAN
    present = ~target.isnan()
    for loss in (nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.SmoothL1Loss()):
        value, gradient = alone(loss, output, target)
        expected = loss(output.double()[present], target.double()[present])
        torch.testing.assert_close(value.double(), expected, rtol=1e-2, atol=1e-2)
        assert gradient.dtype is dtype
        assert gradient.isfinite().all()


def test_half_precision_does_not_overflow_in_the_sum():
    output = torch.full((4, 2, 150, 150), 30.0, dtype=torch.float16).requires_grad_()
    with torch.no_grad():
        output[:, 0] = 0
    value, gradient = alone(nn.CrossEntropyLoss(), output, torch.zeros(4, 150, 150, dtype=torch.long))
    torch.testing.assert_close(value, torch.tensor(30.0))
    assert gradient.isfinite().all()


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from([nn.MSELoss, nn.BCEWithLogitsLoss, nn.PoissonNLLLoss]),
    st.sampled_from(["mean", "sum"]),
)
def test_any_pattern_of_nan_equals_the_elements_picked_out(pattern, build, reduction):
    missing = torch.tensor(pattern)
    generator = torch.Generator().manual_seed(missing.sum().item())
    output = torch.randn(missing.shape, generator=generator, requires_grad=True)
    target = torch.rand(missing.shape, generator=generator)
    criterion = MultiTaskLoss({"a": build()}, reduction=reduction)
    if missing.all():
        assert criterion.compute_task_losses({"a": output}, {"a": mark(target, missing)}) == {}
        return
    expected = by_hand(build(reduction=reduction)(output[~missing], target[~missing]), output)
    check(alone(build(), output, mark(target, missing), reduction), expected)


@settings(max_examples=60)
@given(
    st.lists(st.integers(-1, CLASSES - 1), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from([-1, -100, 255]),
)
def test_any_pattern_of_missing_classes_equals_the_rows_picked_out(classes, weighted, ignore_index):
    target = torch.tensor(classes)
    rows = target >= 0
    target[~rows] = ignore_index
    weight = WEIGHT if weighted else None
    output = torch.randn(len(target), CLASSES, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = nn.CrossEntropyLoss(weight, ignore_index=ignore_index)
    if not rows.any():
        assert MultiTaskLoss({"a": loss}).compute_task_losses({"a": output}, {"a": target}) == {}
        return
    expected = by_hand(nn.CrossEntropyLoss(weight)(output[rows], target[rows]), output)
    check(alone(loss, output, target), expected)
