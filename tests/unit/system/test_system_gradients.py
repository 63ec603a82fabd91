"""Weightings by gradients in a `System`: the engine's update, whatever Lightning does around it."""

import contextlib
import copy
import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader

from polytask import RunError, System, UserError
from polytask.callbacks import Freezer
from polytask.gradients import Engine
from polytask.losses import MultiTaskLoss
from polytask.models import MultiHead, Separate
from polytask.optim import OptimizerFactory
from polytask.weighting import (
    FAMO,
    MGDA,
    UW,
    Equal,
    GradDrop,
    GradNorm,
    MoCo,
    MoDo,
    PCGrad,
    UPGrad,
)
from tests.cases import AGGREGATORS, GRAMIAN_WEIGHTINGS, TASKS
from tests.regression import plain as trainer
from tests.regression import rows

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers",
    "ignore:You defined a `validation_step` but have no",
    "ignore:The number of training batches",
)
NAN = math.nan
MISSING = ((slice(None, None, 2), 0), (slice(8, 12), 1), slice(20, 24))
CASES = [*GRAMIAN_WEIGHTINGS, *AGGREGATORS]
every_method = pytest.mark.parametrize("case", CASES, ids=str)
ONE_BATCH = [case for case in CASES if case.build().batches_per_step == 1]


class Line(nn.Linear):
    """A layer whose weight is a parameter of its own."""


def net(backbone=None):
    torch.manual_seed(0)
    backbone = backbone or nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4))
    return MultiHead(backbone, {name: nn.Linear(4, 1) for name in TASKS}).double()


def loader(batch_size=4, number=24, missing=()):
    return DataLoader(rows(number, missing), batch_size=batch_size)


def system(weighting, model=None, kind=torch.optim.SGD, scheduler=None, **options):
    torch.manual_seed(3)
    criterion = MultiTaskLoss({name: nn.MSELoss() for name in TASKS}, weighting=weighting)
    optimizer = OptimizerFactory(partial(kind, lr=0.02), None)
    return System(model or net(), criterion, optimizer, scheduler, **options)


def built(case):
    torch.manual_seed(5)
    return case.build()


def fitted(case, data, options=None, **given):
    """A system trained by a case; its accumulation window is what the method needs."""
    trained = system(built(case), **given)
    steps = {"accumulate_grad_batches": trained.criterion.weighting.batches_per_step, **(options or {})}
    trainer(**steps).fit(trained, data)
    return trained


def same(one, other, **tolerance):
    tolerance = tolerance or {"rtol": 0, "atol": 1e-12}
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], **tolerance)


def loop(case, data, clip=1.0, gamma=0.5):
    """The same training, written by hand."""
    weighting, model = built(case), net()
    criterion = MultiTaskLoss({name: nn.MSELoss() for name in TASKS}, weighting=weighting)
    engine = Engine(model, weighting)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    for _ in range(2):
        for number, (points, targets) in enumerate(data):
            losses = criterion.measurement.measure(model(points), targets)
            engine.backward(losses)
            if (number + 1) % weighting.batches_per_step:
                continue
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            weighting.after_step(losses.means.detach(), losses.names)
        scheduler.step()
    return model


# ---- as by hand -------------------------------------------------------------------------------


@every_method
def test_it_trains_as_a_loop_of_ones_own_with_clipping_and_a_scheduler(case):
    scheduler = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    options = {"max_epochs": 2, "gradient_clip_val": 1.0}
    same(fitted(case, loader(), options, scheduler=scheduler).model, loop(case, loader()))


@every_method
def test_missing_labels_and_absent_tasks_train(case):
    trained = fitted(case, loader(missing=MISSING, number=36), {"max_epochs": 3})
    before, after = net().state_dict(), trained.model.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert all(not torch.equal(before[name], after[name]) for name in after)
    assert trained.skipped == 3


@pytest.mark.parametrize("case", ONE_BATCH, ids=str)
def test_windows_make_the_larger_batch(case):
    one = fitted(case, loader(2), {"accumulate_grad_batches": 4, "max_epochs": 2})
    same(one.model, fitted(case, loader(8), {"max_epochs": 2}).model, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", ONE_BATCH, ids=str)
def test_windows_with_labels_in_unequal_numbers_make_the_larger_batch_too(case):
    one = fitted(case, loader(2, missing=MISSING), {"accumulate_grad_batches": 4})
    same(one.model, fitted(case, loader(8, missing=MISSING)).model, rtol=1e-8, atol=1e-8)


def test_a_window_whose_last_batch_has_no_label_makes_its_step():
    data = rows(8)
    for _, targets in data[6:]:
        for name in TASKS:
            targets[name] = torch.full_like(targets[name], NAN)
    one = system(UPGrad())
    trainer(accumulate_grad_batches=4).fit(one, DataLoader(data, batch_size=2))
    other = system(UPGrad())
    trainer().fit(other, DataLoader(data, batch_size=8))
    same(one.model, other.model)
    assert one.skipped == 1


def test_what_a_method_of_several_batches_has_too_few_of_makes_no_step():
    one = system(MoDo())
    trainer(accumulate_grad_batches=3).fit(one, DataLoader(rows(8), batch_size=2))
    other = system(MoDo())
    trainer(accumulate_grad_batches=3).fit(other, DataLoader(rows(8)[:6], batch_size=2))
    same(one.model, other.model)


# ---- precision --------------------------------------------------------------------------------


class Scaled(MixedPrecision):
    """A loss scaler without autocast, so that what it changes can be told from rounding."""

    def __init__(self, scale):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))

    def autocast_context_manager(self):
        return contextlib.nullcontext()


@pytest.mark.parametrize("scale", [1.0, 128.0, 2.0**16])
@every_method
def test_a_loss_scale_changes_nothing(case, scale):
    scaled = fitted(case, loader(), {"plugins": [Scaled(scale)]})
    same(scaled.model, fitted(case, loader()).model, rtol=1e-9, atol=1e-9)


def test_a_loss_scale_that_is_too_large_skips_the_step_and_shrinks():
    trained = system(UPGrad(), net().float())
    data = [(x.float(), {n: y.float() for n, y in targets.items()}) for x, targets in rows(24)]
    plugin = Scaled(1e38)
    before = copy.deepcopy(trained.model)
    trainer(plugins=[plugin], max_steps=1).fit(trained, DataLoader(data, batch_size=4))
    same(before, trained.model)
    assert plugin.scaler.get_scale() == pytest.approx(5e37)


@every_method
def test_bfloat16_runs(case):
    trained = system(built(case), net().float())
    data = [(x.float(), {n: y.float() for n, y in targets.items()}) for x, targets in rows(24)]
    batches = trained.criterion.weighting.batches_per_step
    trainer(precision="bf16-mixed", accumulate_grad_batches=batches).fit(
        trained, DataLoader(data, batch_size=4)
    )
    before = net().float().state_dict()
    for name, tensor in trained.model.state_dict().items():
        assert tensor.isfinite().all()
        assert not torch.equal(tensor, before[name])


# ---- resume -----------------------------------------------------------------------------------


@every_method
def test_what_is_resumed_goes_on_as_if_it_had_never_stopped(case, tmp_path):
    options = {"accumulate_grad_batches": built(case).batches_per_step}
    trained = system(built(case), kind=torch.optim.Adam)
    runner = trainer(max_epochs=1, **options)
    runner.fit(trained, loader())
    runner.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(99)
    resumed = system(case.build(), kind=torch.optim.Adam)
    trainer(max_epochs=3, **options).fit(
        resumed, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=False
    )
    whole = system(built(case), kind=torch.optim.Adam)
    trainer(max_epochs=3, **options).fit(whole, loader())
    same(resumed, whole, rtol=0, atol=0)


def test_kept_weights_and_what_is_shared_are_resumed(tmp_path):
    def build():
        return system(UPGrad(), refresh_every=4)

    runner, trained = trainer(max_epochs=1), build()
    runner.fit(trained, loader())
    runner.save_checkpoint(tmp_path / "half.ckpt")
    resumed, whole = build(), build()
    trainer(max_epochs=2).fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    trainer(max_epochs=2).fit(whole, loader())
    same(resumed.model, whole.model, rtol=0, atol=0)
    assert resumed.task_backward.engine.state_dict() == whole.task_backward.engine.state_dict()


# ---- weights and options ----------------------------------------------------------------------


class Seen(pl.Callback):
    """The weights of every step, as its optimizer saw them."""

    def __init__(self):
        self.weights = []

    def on_before_optimizer_step(self, trainer, system, optimizer):
        self.weights.append(system.criterion.get_task_weights())


def test_options_reach_the_engine():
    for options in ({"level": "representation"}, {"level": "last_shared"}, {"refresh_every": 2}):
        one = system(MGDA(), **options)
        trainer().fit(one, loader())
        model, weighting = net(), MGDA()
        engine = Engine(model, weighting, **options)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        for points, targets in loader():
            outputs = model(points)
            engine.backward({n: (outputs[n] - targets[n]).square().mean() for n in TASKS})
            optimizer.step()
            optimizer.zero_grad()
        same(one.model, model)


def test_weights_are_kept_between_measurements():
    seen = Seen()
    trainer(callbacks=[seen]).fit(system(MGDA(), refresh_every=3), loader())
    assert seen.weights[0] == seen.weights[1] == seen.weights[2] != seen.weights[3]


def test_loss_weights_scale_the_gradients():
    criterion = MultiTaskLoss({n: nn.MSELoss() for n in TASKS}, {"b": 5.0}, weighting=PCGrad(seed=0))
    one = System(net(), criterion, OptimizerFactory(partial(torch.optim.SGD, lr=0.02), None))
    trainer(max_steps=1).fit(one, loader())
    model, weighting = net(), PCGrad(seed=0)
    points, targets = next(iter(loader()))
    engine, outputs = Engine(model, weighting), model(points)
    factors = {"a": 1.0, "b": 5.0, "c": 1.0}
    engine.backward({n: factors[n] * (outputs[n] - targets[n]).square().mean() for n in TASKS})
    torch.optim.SGD(model.parameters(), lr=0.02).step()
    same(one.model, model)


class Penalised(MultiTaskLoss):
    """A criterion with an entry that is no task's."""

    def forward(self, outputs, targets, return_dict=False):
        total, losses = super().forward(outputs, targets, return_dict=True)
        penalty = 0.1 * self.tied.square().sum()
        losses = {**losses, "penalty": penalty}
        return (total + penalty, losses) if return_dict else total + penalty


@pytest.mark.parametrize("window", [1, 2])
def test_an_entry_beside_the_tasks_is_added_as_it_is(window):
    model = net()
    criterion = Penalised({n: nn.MSELoss() for n in TASKS}, weighting=UPGrad())
    tied = model.backbone[0].weight
    object.__setattr__(criterion, "tied", tied)
    one = System(model, criterion, OptimizerFactory(partial(torch.optim.SGD, lr=0.02), None))
    trainer(max_steps=1, accumulate_grad_batches=window).fit(one, loader(8 // window))
    other, start = system(UPGrad()), tied.detach().clone()
    start = net().backbone[0].weight.detach()
    trainer(max_steps=1).fit(other, loader(8))
    expected = other.model.backbone[0].weight - 0.02 * 0.2 * start
    torch.testing.assert_close(model.backbone[0].weight, expected)


# ---- refusals ---------------------------------------------------------------------------------


def refused(message, weighting, options=None, **given):
    with pytest.raises(UserError, match=message):
        trainer(**(options or {})).fit(system(weighting, **given), loader())


def test_a_window_that_a_method_cannot_use_is_refused():
    refused(r"accumulate_grad_batches: must be 3 with MoDo.*got 1\. Set it to 3", MoDo())
    refused(
        "must be 1 with gradients of the",
        MGDA(),
        {"accumulate_grad_batches": 2},
        level="representation",
    )


@pytest.mark.parametrize("weighting", [Equal(), UW(), FAMO()])
def test_options_of_gradients_are_refused_with_losses(weighting):
    with pytest.raises(UserError, match="level: requires a gradient-based weighting"):
        system(weighting, level="representation")


def test_options_of_gradients_are_refused_with_a_foreign_criterion():
    class Own(nn.Module):
        pass

    with pytest.raises(UserError, match="require a MultiTaskLoss"):
        System(net(), Own(), partial(torch.optim.SGD, lr=0.1), refresh_every=3)


@pytest.mark.parametrize("weighting", [MGDA(), GradDrop(), GradNorm()])
def test_no_shared_parameter_is_said(weighting):
    refused("must have parameters that the tasks a, b, c share", weighting, model=separate())


def separate():
    return Separate({name: nn.Linear(3, 1) for name in TASKS}).double()


class Beside(nn.Module):
    """A model whose last task has a way around its head."""

    def __init__(self):
        super().__init__()
        inner = net()
        self.backbone, self.heads = inner.backbone, inner.heads

    def forward(self, points):
        shared = self.backbone(points)
        outputs = {name: head(shared) for name, head in self.heads.items()}
        return {**outputs, "c": shared[:, :1] + 0 * outputs["c"]}


def test_a_loss_around_the_representation_is_said():
    refused(
        "tasks reach the backbone through their heads only", MGDA(), model=Beside(), level="representation"
    )


@pytest.mark.parametrize("weighting", [MGDA(), GradDrop(), MoCo()])
def test_gradients_that_are_not_finite_are_said_with_their_task(weighting):
    class Root(nn.Module):
        def forward(self, output, target):
            # Finite, with an infinite slope.
            return (output - output.detach()).abs().sqrt().sum() + target.sum()

    losses = {"a": nn.MSELoss(), "b": Root(), "c": nn.MSELoss()}
    criterion = MultiTaskLoss(losses, weighting=weighting)
    broken = System(net(), criterion, OptimizerFactory(partial(torch.optim.SGD, lr=0.02), None))
    with pytest.raises(RunError, match=r"task 'b': the gradients must be finite, got NaN .* at step 0"):
        trainer().fit(broken, loader())


@every_method
def test_one_task_trains(case):
    if case.method == "Fixed":
        return
    criterion = MultiTaskLoss({"a": nn.MSELoss()}, weighting=built(case))
    batches = criterion.weighting.batches_per_step
    model = MultiHead(nn.Linear(3, 4), {"a": nn.Linear(4, 1)}).double()
    before = copy.deepcopy(model)
    alone = System(model, criterion, OptimizerFactory(partial(torch.optim.SGD, lr=0.02), None))
    data = [(x, {"a": y["a"]}) for x, y in rows(24)]
    trainer(accumulate_grad_batches=batches).fit(alone, DataLoader(data, batch_size=4))
    assert not torch.equal(before.backbone.weight, model.backbone.weight)


# ---- windows that end early -------------------------------------------------------------------


def test_a_new_fit_begins_a_new_window():
    one, other = system(UPGrad()), system(UPGrad())
    # Stopped in the middle of a window of four batches.
    with pytest.raises(RuntimeError, match="stop"):
        trainer(accumulate_grad_batches=4, callbacks=[Interrupts()]).fit(one, loader())
    trainer().fit(one, loader())
    trainer().fit(other, loader())
    same(one.model, other.model)


class Interrupts(pl.Callback):
    """Gives up after the second batch."""

    def on_train_batch_end(self, trainer, system, outputs, batch, batch_idx):
        if batch_idx == 1:
            raise RuntimeError("stop")


def test_a_window_is_held_or_measured_as_a_whole():
    data = rows(16)
    for _, targets in data[:14]:
        targets["c"] = torch.full_like(targets["c"], NAN)
    one = system(UPGrad(), refresh_every=2)
    trainer(accumulate_grad_batches=4).fit(one, DataLoader(data, batch_size=2))
    other = system(UPGrad())
    trainer().fit(other, DataLoader(data, batch_size=8))
    same(one.model, other.model)


@pytest.mark.filterwarnings("ignore:When using `Trainer.accumulate_grad_batches")
def test_windows_that_grow_are_checked_in_each_epoch():
    growing = pl.callbacks.GradientAccumulationScheduler({0: 1, 1: 2})
    with pytest.raises(UserError, match="accumulate_grad_batches: must be 1 with"):
        trainer(max_epochs=2, callbacks=[growing]).fit(system(MGDA(), level="representation"), loader())


@pytest.mark.parametrize("weighting", [MGDA(), GradDrop(), GradNorm()])
def test_a_backbone_may_be_frozen_for_a_while(weighting):
    one = system(weighting)
    before = copy.deepcopy(one.model)
    trainer(callbacks=[Freezer(["backbone"], until_epoch=1)]).fit(one, loader())
    same(one.model.backbone, before.backbone)
    plain = system(Equal())
    trainer(callbacks=[Freezer(["backbone"], until_epoch=1)]).fit(plain, loader())
    same(one.model, plain.model)
    trainer(callbacks=[Freezer(["backbone"], until_epoch=1)], max_epochs=2).fit(one, loader())
    assert not torch.equal(one.model.backbone[0].weight, before.backbone[0].weight)
