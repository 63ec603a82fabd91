"""numpy's numbers count as numbers in the arguments of weightings, truth values do not."""

import numpy as np
import pytest

from polytask import UserError
from polytask.weighting import DWA, RLW, STCH, UW, CAGrad, Fixed, SDMGrad


@pytest.mark.parametrize(
    "build",
    [
        lambda number, integer: DWA(number(2), integer(3)),
        lambda number, integer: STCH(warmup_epochs=integer(2)),
        lambda number, integer: SDMGrad(iterations=integer(4)),
        lambda number, integer: RLW(seed=integer(5)),
        lambda number, integer: CAGrad(c=number(0.5)),
        lambda number, integer: Fixed({"a": number(0.5), "b": integer(1)}),
        lambda number, integer: UW(init_log_vars={"a": number(0.5)}),
    ],
)
@pytest.mark.parametrize(("number", "integer"), [(np.float32, np.int64), (np.float64, np.uint8)])
def test_numbers_of_numpy_are_those_of_python(build, number, integer):
    plain, ours = build(float, int), build(number, integer)
    for weighting in (plain, ours):
        weighting.setup(["a", "b"])
    assert repr(ours) == repr(plain)
    assert str(ours.state_dict()) == str(plain.state_dict())


@pytest.mark.parametrize("value", [True, np.bool_(True), "2", 2.5])
def test_what_is_no_integer(value):
    for build in (
        lambda: DWA(window_size=value),
        lambda: STCH(warmup_epochs=value),
        lambda: SDMGrad(iterations=value),
        lambda: RLW(seed=value),
    ):
        with pytest.raises(UserError, match="must be an integer"):
            build()


@pytest.mark.parametrize("value", [True, np.bool_(False), "2", float("nan"), float("inf")])
def test_what_is_no_number(value):
    for build in (lambda: CAGrad(c=value), lambda: Fixed({"a": value, "b": 1}), lambda: DWA(value)):
        with pytest.raises(UserError, match="must be a finite number"):
            build()
