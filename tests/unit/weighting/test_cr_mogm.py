"""CR-MOGM around other methods."""

import pytest
import torch

from polytask import UserError
from polytask.weighting import CRMOGM, IMTLG, MGDA, UW, GradNorm, MoDo, NashMTL, SolverWarning


def test_it_needs_what_the_method_within_needs():
    for method in (MGDA("loss"), GradNorm(), MoDo(), NashMTL()):
        outer = CRMOGM(method)
        for attribute in ("gradients", "batches_per_step", "scale_heads", "needs_losses", "solves_on_host"):
            assert getattr(outer, attribute) == getattr(method, attribute)


def test_a_task_that_comes_later_begins_with_its_first_weight():
    weighting = CRMOGM(MGDA(), decay=0.9)
    weighting.setup(["a", "b"])
    assert weighting(torch.eye(1), ["a"]).tolist() == [1.0]
    weights = weighting(torch.diag(torch.tensor([1.0, 4.0])))
    torch.testing.assert_close(weights, torch.tensor([0.9 + 0.08, 0.2]))


def test_a_step_without_weights_within_is_said_and_left_out_of_the_average():
    weighting = CRMOGM(NashMTL(), decay=0.5)
    weighting(torch.eye(2))
    before = weighting.smoothed.clone()
    with pytest.warns(SolverWarning, match="CRMOGM: no update helps"):
        weights = weighting(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert weights.tolist() == [0, 0]
    assert torch.equal(weighting.smoothed, before)


def test_the_method_within_has_its_state_saved():
    keys = CRMOGM(GradNorm())
    keys.setup(["a", "b"])
    assert {"smoothed", "weighting.value", "weighting.adam.first"} <= set(keys.state_dict())


@pytest.mark.parametrize("within", [None, UW(), "MGDA"])
def test_only_gramian_weightings_fit_within(within):
    with pytest.raises(UserError, match=r"CRMOGM\.weighting"):
        CRMOGM(within)


@pytest.mark.parametrize("decay", [-0.1, 1.1, "0.9"])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(UserError, match=r"CRMOGM\.decay"):
        CRMOGM(IMTLG(), decay)
