"""Heads for kinds of labels: what they take, and that their losses take them."""

from functools import partial

import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.losses import MultiTaskLoss
from polytask.models import (
    MLP,
    ClassificationHead,
    DenseHead,
    HardParameterSharing,
    MultiLabelHead,
    OrdinalHead,
    RegressionHead,
    TokenHead,
)

POOLED = {
    "classification": partial(ClassificationHead, 4, 3),
    "multi_label": partial(MultiLabelHead, 4, 3),
    "ordinal": partial(OrdinalHead, 4, 3),
    "regression": partial(RegressionHead, 4, 3),
}


@pytest.mark.parametrize("kind", POOLED)
def test_maps_are_averaged_over_their_positions(kind):
    head, maps = POOLED[kind](), torch.randn(5, 4, 6, 7)
    torch.testing.assert_close(head(maps), head(maps.mean((2, 3))))
    torch.testing.assert_close(head(maps[..., 0]), head(maps[..., 0].mean(2)))


@pytest.mark.parametrize("kind", POOLED)
@pytest.mark.parametrize(
    ("representation", "message"),
    [
        (
            torch.zeros(5, 6, 4),
            "representation: must be a tensor of shape (N, 4) or (N, 4, ...) for this head, got shape "
            "(5, 6, 4).",
        ),
        (
            torch.zeros(5, 3),
            "representation: must be a tensor of shape (..., 4) for this head, got shape (5, 3).",
        ),
        (
            (torch.zeros(5, 4),),
            "representation: must be a tensor of shape (..., 4) for this head, got a tuple.",
        ),
    ],
)
def test_another_representation_is_an_error(kind, representation, message):
    with pytest.raises(UserError) as caught:
        POOLED[kind]()(representation)
    assert str(caught.value) == message


CLASSES = torch.tensor([0, 2, 1, -100])
LABELS = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, torch.nan]])
TRAINED = {
    "class": (partial(ClassificationHead, 4, 3), nn.CrossEntropyLoss(), CLASSES),
    "labels": (partial(MultiLabelHead, 4, 3), nn.BCEWithLogitsLoss(), LABELS),
    "level": (partial(OrdinalHead, 4, 3), nn.CrossEntropyLoss(), CLASSES),
    "height": (partial(RegressionHead, 4), nn.MSELoss(), torch.tensor([0.1, 2.0, torch.nan, 1.0])),
    "share": (
        partial(RegressionHead, 4, low=0.0, high=1.0),
        nn.L1Loss(),
        torch.tensor([[0.1], [0.2], [0.3], [0.4]]),
    ),
}


def test_every_head_trains_with_its_loss_and_missing_labels():
    torch.manual_seed(0)
    heads = {task: make() for task, (make, _, _) in TRAINED.items()}
    model = HardParameterSharing(MLP(2, [16], 4, activation=nn.Tanh, activate_output=True), heads)
    criterion = MultiTaskLoss({task: loss for task, (_, loss, _) in TRAINED.items()})
    targets = {task: target for task, (_, _, target) in TRAINED.items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    x, totals = torch.randn(4, 2), []
    for _ in range(100):
        optimizer.zero_grad()
        total = criterion(model(x), targets)
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.2 * totals[0]


def test_dense_labels_train_at_the_size_of_the_target():
    head = DenseHead(4, 3, size=(6, 8))
    target = torch.randint(3, (2, 6, 8))
    target[0, :3] = -100
    loss = MultiTaskLoss({"pixels": nn.CrossEntropyLoss()})(
        {"pixels": head(torch.randn(2, 4, 3, 4))}, {"pixels": target}
    )
    loss.backward()
    assert all(parameter.grad.any() for parameter in head.parameters())


def test_tokens_train_with_labels_that_are_left_out():
    head, tokens = TokenHead(4, 3), torch.randn(2, 5, 4)
    target = torch.tensor([[0, 1, 2, -100, -100], [2, 2, 1, 0, 1]])
    criterion = MultiTaskLoss({"words": nn.CrossEntropyLoss()})
    found = criterion({"words": head(tokens)}, {"words": target})
    expected = nn.functional.cross_entropy(head(tokens).movedim(1, -1).flatten(0, 1), target.flatten())
    torch.testing.assert_close(found, expected)


def test_upsampling_keeps_the_corners_order():
    head = DenseHead(1, 1, scale=4, mode="nearest")
    nn.init.ones_(head.layers.output.weight)
    nn.init.zeros_(head.layers.output.bias)
    maps = torch.arange(4.0).view(1, 1, 2, 2)
    assert torch.equal(head(maps), maps.repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_without_size_and_scale_the_maps_keep_theirs():
    assert DenseHead(4, 3)(torch.randn(2, 4, 5, 7)).shape == (2, 3, 5, 7)


def test_hidden_convolutions_see_their_neighbours():
    head = DenseHead(1, 1, [2])
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.fill_(1.0)
        changed = head(x) != head(torch.zeros_like(x))
    assert int(changed.sum()) == 9


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OrdinalHead(4, 1), "num_levels: must be an integer of at least 2, got 1."),
        (lambda: OrdinalHead(4, True), "num_levels: must be an integer of at least 2, got True."),
        (
            lambda: MultiLabelHead(4, 3, prior=1.0),
            "prior: must be a finite number above 0 and below 1, got 1.0.",
        ),
        (lambda: MultiLabelHead(4, 3, prior=0), "prior: must be a finite number above 0 and below 1, got 0."),
        (
            lambda: RegressionHead(4, low=0.0),
            "low, high: must be two numbers with low below high, or both None, got 0.0 and None.",
        ),
        (
            lambda: RegressionHead(4, low=2.0, high=2.0),
            "low, high: must be two numbers with low below high, or both None, got 2.0 and 2.0.",
        ),
        (lambda: ClassificationHead(4, 0), "output_dim: must be an integer of at least 1, got 0."),
        (
            lambda: DenseHead(4, 3, size=8, scale=2),
            "scale: must not be given together with size, got size 8 and scale 2. Remove one.",
        ),
        (
            lambda: DenseHead(4, 3, size=(8, 8, 8)),
            "size: must be one number, or height and width, got (8, 8, 8).",
        ),
        (lambda: DenseHead(4, 3, size=(8, 0)), "size: must be an integer of at least 1, got 0."),
        (lambda: DenseHead(4, 3, mode="cubic"), "mode: must be 'bilinear' or 'nearest', got 'cubic'."),
        (
            lambda: DenseHead(4, 3)(torch.zeros(2, 3, 4, 4)),
            "representation: must be feature maps of shape (N, 4, height, width) for this head, got "
            "shape (2, 3, 4, 4).",
        ),
        (
            lambda: DenseHead(4, 3)([torch.zeros(2, 4, 4, 4)]),
            "representation: must be feature maps of shape (N, 4, height, width) for this head, got a list.",
        ),
        (
            lambda: TokenHead(4, 3)(torch.zeros(2, 4)),
            "representation: must be tokens of shape (N, tokens, 4) for this head, got shape (2, 4).",
        ),
        (
            lambda: TokenHead(4, 3)(torch.zeros(2, 5, 6)),
            "representation: must be a tensor of shape (..., 4) for this head, got shape (2, 5, 6).",
        ),
        (
            lambda: HardParameterSharing(MLP(2, [], 4), {"a": ClassificationHead(5, 2)}),
            "task_heads.a: input_dim must be 4, the features of the representation, got 5.",
        ),
    ],
)
def test_what_cannot_be_used_is_an_error(build, message):
    with pytest.raises(UserError) as caught:
        build()
    assert str(caught.value) == message
