"""Arguments of Gramian weightings that cannot be used."""

import pytest
import torch

from polytask import UserError
from polytask.weighting import MGDA, AlignedMTL, CAGrad, FairGrad, MoDo, NashMTL, SDMGrad, SolverWarning


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MGDA("l2"), r"MGDA\.normalization: must be one of none, norm, loss, loss_norm, got 'l2'"),
        (lambda: MGDA("lossnorm"), "Did you mean 'loss_norm'"),
        (lambda: AlignedMTL("rmse"), r"AlignedMTL\.scale: must be one of min, median, mean"),
        (lambda: CAGrad(c=0), r"CAGrad\.c: must be a finite number above 0, got 0"),
        (lambda: CAGrad(c="0.4"), r"CAGrad\.c"),
        (lambda: NashMTL(max_norm=0), r"NashMTL\.max_norm"),
        (lambda: FairGrad(alpha=0), r"FairGrad\.alpha"),
        (lambda: FairGrad(alpha=float("inf")), r"FairGrad\.alpha"),
        (lambda: MoDo(step_size=0), r"MoDo\.step_size"),
        (lambda: MoDo(regularization=-1), r"MoDo\.regularization"),
        (lambda: SDMGrad(strength=-1), r"SDMGrad\.strength"),
        (lambda: SDMGrad(lr=0), r"SDMGrad\.lr"),
        (lambda: SDMGrad(momentum=1.5), r"SDMGrad\.momentum"),
        (lambda: SDMGrad(iterations=0), r"SDMGrad\.iterations"),
        (lambda: SDMGrad(iterations=2.5), r"SDMGrad\.iterations"),
    ],
)
def test_the_argument_and_its_range_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize("normalization", ["loss", "loss_norm"])
@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_a_loss_that_cannot_scale_a_gradient_is_said(normalization, loss):
    with pytest.warns(SolverWarning, match=r"a loss that scales a gradient is not above 0"):
        weights = MGDA(normalization)(torch.eye(2), losses=torch.tensor([1.0, loss]))
    assert weights.tolist() == [0, 0]
