"""What a `System` tells its weighting, and what becomes of the weights."""

import copy
import math
from functools import partial

import pytest
import torch
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader

from polytask import RunError, System, UserError
from polytask.losses import MultiTaskLoss, UncertaintyWeighting
from polytask.models import MultiHead
from polytask.optim import OptimizerFactory
from polytask.weighting import FAMO, GLS, UW, Equal, LossWeighting
from tests import regression
from tests.cases import LOSS_WEIGHTINGS, TASKS
from tests.regression import plain

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers",
    "ignore:You defined a `validation_step` but have no",
)
NAN = math.nan
rows = partial(regression.rows, 12)
MISSING = ((slice(None, None, 2), 0), (slice(4, 8), 1), slice(8, 10))
everything = pytest.mark.parametrize("case", LOSS_WEIGHTINGS, ids=str)


class Told(LossWeighting):
    """Keeps what it is told."""

    def __init__(self, remeasures=False):
        super().__init__()
        self.remeasures = remeasures
        self.seen, self.after, self.epochs, self.checks = [], [], [], 0

    def observe(self, losses, columns):
        self.seen.append(losses.tolist())

    def scalar(self, losses, columns):
        return losses.sum()

    def after_step(self, losses, names=None):
        self.after.append((tuple(names), losses.tolist()))

    def on_epoch_end(self, losses, names=None):
        self.epochs.append((tuple(names), losses.tolist()))

    def check(self):
        self.checks += 1


class Recorded(Logger):
    name = version = "recorded"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append(metrics)

    def weights(self):
        rows = [{key: row[key] for key in row if key.startswith("weights/")} for row in self.rows]
        return [row for row in rows if row]


def net(dropout=0.0):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.BatchNorm1d(4) if dropout else nn.Identity())
    backbone.append(nn.Dropout(dropout))
    return MultiHead(backbone, {name: nn.Linear(4, 1) for name in TASKS}).double()


def loader(batch_size=4, missing=()):
    return DataLoader(rows(missing=missing), batch_size=batch_size)


def system(weighting, dropout=0.0, lr=0.05, groups=None, **options):
    criterion = MultiTaskLoss({name: nn.MSELoss() for name in TASKS}, weighting=weighting, **options)
    return System(net(dropout), criterion, OptimizerFactory(partial(torch.optim.SGD, lr=lr), groups))


@pytest.fixture
def trainer(tmp_path):
    return partial(plain, default_root_dir=tmp_path)


def losses_by_hand(model, batch):
    points, targets = batch
    outputs = model(points)
    return torch.stack([(outputs[name] - targets[name]).square().mean() for name in TASKS])


# ---- what it is told --------------------------------------------------------------------------


def test_after_a_step_it_is_told_the_losses_that_it_saw(trainer):
    told = Told()
    trainer().fit(system(told, loss_weights={"b": 3.0}), loader())
    assert len(told.seen) == 3
    assert told.after == [(TASKS, losses) for losses in told.seen]


def test_losses_may_be_measured_again_after_the_step(trainer):
    told = Told(remeasures=True)
    trainer().fit(system(told, loss_weights={"b": 3.0}), loader())
    model, factors = net(), torch.tensor([1.0, 3.0, 1.0], dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for batch, seen, (_, after) in zip(loader(), told.seen, told.after, strict=True):
        losses = factors * losses_by_hand(model, batch)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        assert seen == pytest.approx(losses.tolist())
        assert after == pytest.approx((factors * losses_by_hand(model, batch)).tolist())


def test_measuring_again_is_in_training_mode_and_changes_no_gradient_and_no_log(trainer):
    runs = []
    for remeasures in (False, True):
        trained, logger = system(Told(remeasures), lr=0.0), Recorded()
        trainer(logger=logger).fit(trained, loader())
        runs.append([row["train/loss/a/step"] for row in logger.rows if "train/loss/a/step" in row])
        assert trained.criterion.weighting.training
    assert runs[0] == runs[1]
    normed = system(Told(remeasures=True), dropout=1e-9)
    trainer(max_steps=1).fit(normed, loader())
    assert normed.model.backbone[2].num_batches_tracked == 2


def test_measuring_again_keeps_the_precision_of_the_step(trainer):
    told = Told(remeasures=True)
    trained = system(told, lr=0.0)
    trained.model.float()
    points = [(x.float(), {n: y.float() for n, y in targets.items()}) for x, targets in rows()]
    trainer(precision="bf16-mixed").fit(trained, DataLoader(points, batch_size=4))
    assert [losses for _, losses in told.after] == told.seen


def test_in_a_window_it_is_told_of_the_last_batch(trainer):
    told = Told()
    trainer(accumulate_grad_batches=3).fit(system(told), loader(batch_size=2))
    assert [losses for _, losses in told.after] == told.seen[2::3]


@pytest.mark.parametrize("remeasures", [False, True])
def test_of_a_skipped_batch_it_is_told_nothing(trainer, remeasures):
    told = Told(remeasures)
    skipping = system(told)
    trainer().fit(skipping, loader(batch_size=2, missing=MISSING))
    assert skipping.skipped == 1
    assert [names for names, _ in told.after] == [TASKS, TASKS, ("a", "c"), ("a", "c"), TASKS]


def test_at_the_end_of_an_epoch_it_is_told_the_means_times_the_factors(trainer):
    told = Told()
    trainer(max_epochs=2).fit(system(told, lr=0.0, loss_weights={"b": 3.0}), loader(batch_size=5))
    means = losses_by_hand(net(), next(iter(loader(batch_size=12)))).tolist()
    expected = [means[0], 3 * means[1], means[2]]
    assert [names for names, _ in told.epochs] == [TASKS, TASKS]
    for _, losses in told.epochs:
        assert losses == pytest.approx(expected)


def test_it_is_checked_when_values_are_logged_and_not_in_a_step(trainer):
    told = Told()
    trainer(log_every_n_steps=2).fit(system(told), loader(batch_size=1))
    assert told.deferred
    assert told.checks == 6 + 1


@pytest.mark.parametrize("every", [1, 100])
def test_a_bound_is_named_before_the_loss_that_is_not_finite(trainer, every):
    weighting = FAMO(lower_bounds={"b": 1e3})
    with pytest.raises(UserError, match=r"FAMO: the losses of task 'b' must stay above 1000, got"):
        trainer(log_every_n_steps=every).fit(system(weighting), loader())


def test_a_loss_that_is_not_finite_is_still_named(trainer):
    broken = system(GLS())
    nn.init.constant_(broken.model.heads["b"].bias, math.inf)
    with pytest.raises(RunError, match="task 'b': the loss must be finite"):
        trainer().fit(broken, loader())


# ---- weights ----------------------------------------------------------------------------------


def test_learned_weights_train_in_a_group_of_their_own(trainer):
    criterion = UncertaintyWeighting({name: nn.MSELoss() for name in TASKS}, {"a": "classification"})
    optimizer = OptimizerFactory(partial(torch.optim.SGD, lr=0.0), {"weighting": {"lr": 0.5}})
    logger = Recorded()
    runner = trainer(max_steps=2, logger=logger)
    runner.fit(System(net(), criterion, optimizer), loader())
    assert [group["name"] for group in runner.optimizers[0].param_groups] == ["rest", "weighting"]
    first, second, _ = (losses_by_hand(net(), batch).tolist() for batch in loader())
    factors, log_vars = [1.0, 0.5, 0.5], [0.0, 0.0, 0.0]
    weights = []
    for losses in (first, second):
        weights.append([f * math.exp(-s) for f, s in zip(factors, log_vars, strict=True)])
        slopes = [0.5 - w * loss for w, loss in zip(weights[-1], losses, strict=True)]
        log_vars = [s - 0.5 * slope for s, slope in zip(log_vars, slopes, strict=True)]
    sigmas = [math.exp(0.5 * s) for s in log_vars]
    assert list(criterion.get_uncertainties().values()) == pytest.approx(sigmas, rel=1e-5)
    # What is logged is what the step used, not what it made of it.
    logged = [[row[f"weights/{name}"] for name in TASKS] for row in logger.weights()]
    assert logged == [pytest.approx(expected, rel=1e-5) for expected in weights]


@everything
def test_logged_weights_are_those_of_the_step(trainer, case):
    class Kept(System):
        steps: list

        def on_before_optimizer_step(self, optimizer):
            super().on_before_optimizer_step(optimizer)
            self.steps.append(copy.deepcopy(self.criterion).get_task_weights())

    built, logger = system(case.build(), loss_weights={"c": 0.5}), Recorded()
    kept = Kept(built.model, built.criterion, built.optimizer_factory)
    kept.steps = []
    trainer(logger=logger, max_epochs=3).fit(kept, loader())
    assert logger.weights() == [
        {f"weights/{name}": weight for name, weight in weights.items()} for weights in kept.steps
    ]
    assert len(kept.steps) == 9


@everything
def test_missing_labels_and_absent_tasks_train(trainer, case):
    trained = system(case.build())
    before = copy.deepcopy(trained.model.state_dict())
    trainer(max_epochs=3).fit(trained, loader(batch_size=2, missing=MISSING))
    after = trained.model.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert all(not torch.equal(before[name], after[name]) for name in after)
    assert trained.skipped == 3


@everything
def test_a_task_that_is_absent_gets_no_gradient(trainer, case):
    trained = system(case.build())
    before = copy.deepcopy(trained.model.state_dict())
    data = [(x, {"a": t["a"], "c": t["c"]}) for x, t in rows()]
    trainer(max_steps=2).fit(trained, DataLoader(data, batch_size=4))
    after = trained.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in changed if "task_b" in name} == set()
    assert {"heads.task_a.weight", "heads.task_c.weight"} <= changed


# ---- accumulation -----------------------------------------------------------------------------


def stepped(trainer, case, window):
    """One epoch of two steps, each from four rows with labels in equal numbers."""
    trained = system(case.build())
    trainer(accumulate_grad_batches=window).fit(trained, loader(batch_size=6 // window))
    return trained.model.state_dict()


@pytest.mark.parametrize("case", [case for case in LOSS_WEIGHTINGS if case.steady], ids=str)
def test_steady_weights_accumulate_to_the_larger_batch(trainer, case):
    one, other = stepped(trainer, case, 3), stepped(trainer, case, 1)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("case", [case for case in LOSS_WEIGHTINGS if not case.steady], ids=str)
def test_weights_that_follow_each_batch_accumulate_to_something_near(trainer, case):
    """As the docs say: each batch of the window has weights of its own."""
    one, other = stepped(trainer, case, 3), stepped(trainer, case, 1)
    distance = max((one[name] - other[name]).abs().max().item() for name in one)
    assert 1e-6 < distance < 0.2


def test_the_weighting_costs_no_state_where_it_has_none():
    assert not system(Equal()).criterion.state_dict()
    assert [name for name in system(UW()).state_dict() if "weighting" in name] == [
        f"criterion.weighting.log_vars.task_{name}" for name in TASKS
    ]
