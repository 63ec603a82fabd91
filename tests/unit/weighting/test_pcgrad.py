"""PCGrad's orders and sums."""

import pytest
import torch

from polytask import UserError
from polytask.weighting import PCGrad
from polytask.weighting._surgery import random_order
from tests.gramians import gramian


def test_without_conflict_the_losses_are_summed():
    assert torch.equal(PCGrad()(gramian("similar", 4)), torch.ones(4).double())


def test_orders_differ_by_task_and_by_step():
    generator = torch.Generator().manual_seed(0)
    order = random_order(20, generator, torch.device("cpu"))
    assert [sorted(row) for row in order.tolist()] == [[j for j in range(20) if j != i] for i in range(20)]
    assert not torch.equal(order, random_order(20, generator, torch.device("cpu")))
    assert len({tuple(i < j for j in row) for i, row in enumerate(order.tolist())}) > 10


def test_steps_of_one_weighting_differ_and_seeds_repeat_them():
    given = gramian("conflicting", 8)
    weighting, again = PCGrad(seed=1), PCGrad(seed=1)
    first = weighting(given)
    assert not torch.equal(weighting(given), first)
    assert torch.equal(again(given), first)
    assert not torch.equal(PCGrad(seed=2)(given), first)


def test_a_seed_that_is_not_whole_is_refused():
    with pytest.raises(UserError, match="seed"):
        PCGrad(seed=1.5)
