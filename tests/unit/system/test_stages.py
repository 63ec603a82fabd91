"""What is given once for all stages, or for each."""

import pytest
from torchmetrics import MeanSquaredError

from polytask import UserError
from polytask.system._stages import STAGES, adapters_by_stage, by_stage


@pytest.mark.parametrize(
    "given",
    [
        lambda metrics: metrics,
        lambda metrics: {"train": metrics, "val": metrics, "test": {"a": metrics["a"]}},
    ],
    ids=["once", "by-stage"],
)
def test_no_two_stages_share_an_object(given):
    metrics = {"a": MeanSquaredError()}
    chosen = by_stage(given(metrics), "metrics")
    found = [chosen[stage]["a"] for stage in STAGES[:3]]
    assert len({id(metric) for metric in [*found, metrics["a"]]}) == 4


def test_a_stage_without_anything_is_left_out_or_empty():
    assert by_stage(None, "metrics") == {}
    assert by_stage({"val": None}, "metrics") == {"val": None}


def test_stages_do_not_stand_beside_others():
    with pytest.raises(UserError, match=r"^metrics\.digit: cannot be combined with the stages val\."):
        by_stage({"val": {}, "digit": 1}, "metrics")


@pytest.mark.parametrize("given", ["x", 3, ["batch"]])
def test_adapters_of_a_stage_are_a_mapping(given):
    with pytest.raises(UserError, match=r"^adapters\.val: must map kinds to adapters, got"):
        adapters_by_stage({"val": given})
    with pytest.raises(UserError, match=r"^metrics\.val: must map tasks to metrics, got"):
        by_stage({"val": given}, "metrics")
