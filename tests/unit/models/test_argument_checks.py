"""numpy's numbers count as numbers in the arguments of models, truth values do not."""

import numpy as np
import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import MLP, LoRA, MMoE, MultiHead, MultiLabelHead, RegressionHead, SoftParameterSharing
from polytask.models._argument_checks import (
    check_count,
    check_dropout,
    check_share,
    check_size,
    check_strength,
)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_size, np.int64(2)),
        (check_count, np.uint8(0)),
        (check_dropout, np.float32(0.5)),
        (check_share, np.int32(1)),
        (check_strength, np.float64(3)),
    ],
)
def test_numbers_of_numpy_become_those_of_python(check, value):
    checked = check(value, "x")
    assert checked == value
    assert type(checked) in (int, float)


@pytest.mark.parametrize("check", [check_size, check_count, check_dropout, check_share, check_strength])
@pytest.mark.parametrize("value", [True, np.bool_(True), "1", None, float("nan")])
def test_what_is_no_number(check, value):
    with pytest.raises(UserError, match=r"^x: must be "):
        check(value, "x")


@pytest.mark.parametrize(
    "build",
    [
        lambda: MLP(np.int64(3), [np.int32(4)], np.int64(2), dropout=np.float32(0.25)),
        lambda: MultiLabelHead(3, 2, prior=np.float32(0.25)),
        lambda: RegressionHead(3, 2, low=np.float32(0), high=np.int64(1)),
        lambda: MMoE(lambda: MLP(3, [], 2), {"a": nn.Linear(2, 2)}, np.int64(3), np.int64(2)),
        lambda: SoftParameterSharing({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)}, np.float32(0.25)),
        lambda: LoRA(MLP(3, [4], 2), {"a": nn.Linear(2, 2)}, np.int64(1), ["linear1"], alpha=np.float32(2)),
    ],
)
def test_models_take_numbers_of_numpy(build):
    outputs = build()(torch.ones(5, 3))
    for output in outputs.values() if isinstance(outputs, dict) else [outputs]:
        assert output.shape == (5, 2)


def test_a_task_is_chosen_by_an_integer_of_numpy():
    model = MultiHead(nn.Linear(3, 3), {"a": nn.Linear(3, 1), "b": nn.Linear(3, 2)})
    assert torch.equal(model(torch.ones(5, 3), np.int64(1)), model(torch.ones(5, 3), 1))
    with pytest.raises(UserError, match="got 2"):
        model(torch.ones(5, 3), np.int64(2))
