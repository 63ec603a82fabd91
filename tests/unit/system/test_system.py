"""`System` in Python, with a plain Trainer."""

import copy
import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanSquaredError, R2Score
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from polytask import RunError, System, UserError
from polytask.adapters import BatchAdapter, CriterionAdapter, LoggingAdapter, MetricsAdapter
from polytask.losses import MultiTaskLoss
from polytask.models import MultiHead
from polytask.optim import OptimizerFactory, SchedulerFactory
from polytask.weighting import Fixed, GramianSolution, GramianWeighting, SolverWarning
from tests.regression import plain

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers",
    "ignore:You defined a `validation_step` but have no",
)
ROWS, BATCH = 12, 4
TASKS = ("shape", "height")


class Net(nn.Module):
    """Two heads on a layer; ``form`` is how the outputs are returned."""

    def __init__(self, form=dict) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(2, 4)
        self.heads = nn.ModuleDict({"shape": nn.Linear(4, 3), "height": nn.Linear(4, 1)})
        self.form = form

    def forward(self, x):
        hidden = self.backbone(x)
        outputs = {name: head(hidden) for name, head in self.heads.items()}
        return outputs if self.form is dict else self.form(outputs.values())


class Column(Net):
    """One number for each task."""

    def __init__(self, form=dict) -> None:
        super().__init__(form)
        self.heads["shape"] = nn.Linear(4, 1)


def columns():
    return [(x, {"shape": y["height"], "height": y["height"]}) for x, y in loader()]


class ByTask(nn.Module):
    """A list of heads that is called with a task's id."""

    task_names = ("first", "second", "third")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.ModuleList([nn.Linear(2, 1) for _ in self.task_names])
        self.calls: list[tuple[int, object]] = []

    def forward(self, x, task_id):
        self.calls.append((len(x), task_id))
        return self.heads[task_id](x)


class Recorded(Logger):
    """Keeps what is logged."""

    name = version = None

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_hyperparams(self, *args, **kwargs) -> None:
        pass

    def log_metrics(self, metrics, step=None) -> None:
        self.rows.append({**metrics, "step": step})

    def logged(self) -> set[str]:
        return {key for row in self.rows for key in row} - {"step", "epoch"}

    def last(self, key: str) -> float:
        return [row[key] for row in self.rows if key in row][-1]


def samples(rows=ROWS):
    angles = torch.arange(rows) * 2.4
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    return [
        (points[i], {"shape": torch.tensor(i % 3), "height": angles[i].sin()}) for i in range(rows)
    ]  # fmt: skip


def loader(rows=None, batch_size=BATCH):
    return DataLoader(samples() if rows is None else rows, batch_size=batch_size)


def criterion(**options):
    return MultiTaskLoss({"shape": nn.CrossEntropyLoss(), "height": nn.MSELoss()}, **options)


def sgd(lr=0.1):
    return partial(torch.optim.SGD, lr=lr)


def metrics():
    return {"shape": MulticlassAccuracy(3, average="micro"), "height": MeanSquaredError()}


def make(model=None, loss=None, optimizer=None, **options):
    return System(model or Net(), loss or criterion(), optimizer or sgd(), **options)


@pytest.fixture
def trainer(tmp_path):
    return partial(plain, default_root_dir=tmp_path)


def changed(before, after) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


# ---- what a model returns ---------------------------------------------------------------------


@pytest.mark.parametrize("form", [list, tuple])
def test_a_list_of_outputs_trains_like_a_dict(trainer, form):
    systems = [make(Net(form)), make(Net(dict))]
    for system in systems:
        trainer().fit(system, loader())
    one, other = (system.model.state_dict() for system in systems)
    assert not changed(one, other)
    assert changed(one, Net().state_dict())


def test_a_tensor_will_do_for_one_task():
    system = System(nn.Linear(2, 1), MultiTaskLoss({"height": nn.MSELoss()}), sgd())
    batch = system.adapt((torch.zeros(3, 2), torch.zeros(3)), "train")
    assert list(system.outputs(batch)) == ["height"]


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (torch.zeros(4, 3), "a tensor of shape (4, 3) float32"),
        ([torch.zeros(4)] * 3, "3 outputs"),
        (None, "NoneType"),
    ],
)
def test_outputs_that_cannot_be_told_apart_are_refused(output, found):
    class Odd(Net):
        def forward(self, x):
            return output

    with pytest.raises(UserError, match=r"shape, height") as raised:
        make(Odd()).outputs(make().adapt(next(iter(loader())), "train"))
    assert found in str(raised.value)


def test_a_model_that_fails_is_told_with_what_it_was_given():
    system = make()
    batch = system.adapt((torch.zeros(4, 7), {"height": torch.zeros(4)}), "train")
    with pytest.raises(UserError, match=r"Net failed on a tensor of shape \(4, 7\) float32"):
        system.outputs(batch)


# ---- task ids ---------------------------------------------------------------------------------


def routed(**options):
    adapters = {"batch": BatchAdapter(0, 1, task_accessor=2)}
    return System(ByTask(), nn.MSELoss(), sgd(), adapters=adapters, **options)


def test_one_id_for_the_batch_calls_the_model_once_with_an_int(trainer):
    system = routed()
    rows = [(torch.ones(2), torch.tensor(1.0), torch.tensor(1)) for _ in range(4)]
    before = copy.deepcopy(system.model.state_dict())
    with pytest.raises(UserError, match=r"task 'first'.*must have a label"):
        trainer().fit(system, loader(rows))
    assert system.model.calls == [(4, 1)]
    assert type(system.model.calls[0][1]) is int
    assert changed(before, system.model.state_dict()) == {"heads.1.weight", "heads.1.bias"}


def test_rows_of_several_tasks_go_to_their_heads(trainer):
    system = routed()
    x, y = torch.randn(6, 2), torch.randn(6)
    ids = torch.tensor([2, 0, 2, 1, 0, 2])
    expected = sum(
        nn.functional.mse_loss(system.model.heads[i](x[ids == i]).squeeze(1), y[ids == i]) for i in range(3)
    )
    total = system._step((x, y, ids), "train")
    assert torch.allclose(total, expected)
    assert system.model.calls == [(2, 0), (1, 1), (3, 2)]


def test_predictions_of_mixed_rows_say_which_rows_they_are(trainer):
    system = routed()
    x, ids = torch.randn(6, 2), torch.tensor([2, 0, 2, 1, 0, 2])
    batches = trainer().predict(system, loader(list(zip(x, torch.zeros(6), ids, strict=True)), 6))
    outputs, rows = batches[0]["outputs"], batches[0]["rows"]
    back = torch.empty(6, 1)
    for name in outputs:
        back[rows[name]] = outputs[name]
    assert torch.allclose(back, torch.cat([system.model.heads[i](x[[j]]) for j, i in enumerate(ids)]))


def test_an_id_without_a_task_is_refused():
    with pytest.raises(UserError, match=r"ids must be 0 to 2 for first, second, third, got id 3"):
        routed().adapt((torch.zeros(1, 2), torch.zeros(1), torch.tensor([3])), "train")


# ---- criteria ---------------------------------------------------------------------------------


def test_one_loss_serves_all_tasks_of_the_model():
    model = MultiHead(nn.Linear(2, 4), {"left": nn.Linear(4, 1), "right": nn.Linear(4, 1)})
    assert make(model, nn.MSELoss()).names == ("left", "right")


@pytest.mark.parametrize("single", [nn.MSELoss, lambda: MultiTaskLoss(nn.MSELoss())], ids=["torch", "ours"])
@pytest.mark.parametrize("form", [dict, list])
def test_the_metrics_name_the_tasks_of_one_loss(trainer, single, form):
    """Its losses are then those of a criterion with a loss for each task."""
    measured = {"shape": MeanSquaredError(), "height": MeanSquaredError()}
    by_task = MultiTaskLoss({"shape": nn.MSELoss(), "height": nn.MSELoss()})
    logged = []
    for loss in (single(), by_task):
        torch.manual_seed(0)
        system = make(Column(form), loss, metrics=measured, dataloaders={"train": columns()})
        trainer(max_epochs=1).fit(system)
        assert system.names == ("shape", "height")
        logged.append(dict(system.latest))
    assert logged[0] == logged[1]
    for name in system.names:
        mean = pytest.approx(logged[0][f"train/{name}/MeanSquaredError/epoch"], rel=1e-6)
        assert logged[0][f"train/loss/{name}/epoch"] == mean


@pytest.mark.parametrize(
    ("form", "measured", "left_out"),
    [
        (dict, None, "'shape', 'height'"),
        (list, None, "'task_0', 'task_1'"),
        (dict, {"shape": MeanSquaredError()}, "'height'"),
    ],
)
def test_one_loss_leaves_no_task_out(trainer, form, measured, left_out):
    system = make(Column(form), nn.MSELoss(), metrics=measured, dataloaders={"train": columns()})
    with pytest.raises(UserError, match="criterion: must name every task") as error:
        trainer(max_epochs=1).fit(system)
    assert f"a MSELoss without {left_out}. " in str(error.value)


def test_one_loss_needs_a_model_that_names_its_tasks():
    with pytest.raises(UserError, match="a Net without task_names"):
        make(loss=MultiTaskLoss(nn.MSELoss()))


class Total(nn.Module):
    def forward(self, outputs, targets):
        return nn.functional.mse_loss(outputs["height"].squeeze(1), targets["height"])


class Parts(Total):
    def forward(self, outputs, targets):
        height = super().forward(outputs, targets)
        return {"height": height, "total": 2 * height}


@pytest.mark.parametrize(("foreign", "losses"), [(Total(), {"total"}), (Parts(), {"height", "total"})])
def test_a_foreign_criterion_trains_and_its_losses_are_logged(trainer, foreign, losses):
    system, logger = make(loss=foreign), Recorded()
    before = copy.deepcopy(system.model.state_dict())
    trainer(logger=logger).fit(system, loader(), loader())
    assert "backbone.weight" in changed(before, system.model.state_dict())
    for stage, when in (("train", "step"), ("train", "epoch"), ("val", "epoch")):
        found = {key for key in logger.logged() if key.startswith(f"{stage}/loss/") and key.endswith(when)}
        assert found == {f"{stage}/loss/{name}/{when}" for name in losses}


def test_a_foreign_dict_is_minimised_by_its_total(trainer):
    systems = [make(loss=Parts(), optimizer=sgd(0.1)), make(loss=Total(), optimizer=sgd(0.2))]
    for system in systems:
        trainer().fit(system, loader())
    one, other = (system.model.state_dict() for system in systems)
    assert all(torch.allclose(one[name], other[name]) for name in one)


def test_a_foreign_criterion_has_metrics_by_the_names_given(trainer):
    system = make(loss=Total(), metrics={"height": MeanSquaredError()})
    runner = trainer()
    runner.fit(system, loader(), loader())
    assert "val/height/MeanSquaredError/epoch" in runner.callback_metrics


def test_a_criterion_is_called_as_its_adapter_says(trainer):
    class Named(nn.Module):
        def forward(self, *, truth, guess, x):
            return (guess["height"].mean() - truth["height"].mean()) ** 2 + 0 * x.sum()

    adapter = CriterionAdapter("guess", "truth", "x")
    runner = trainer()
    runner.fit(make(loss=Named(), adapters={"criterion": adapter}), loader())
    assert "train/loss/total/epoch" in runner.callback_metrics


# ---- log keys and accounting ------------------------------------------------------------------


def test_the_keys_that_are_logged_are_those_announced(trainer):
    system, logger = make(metrics=metrics()), Recorded()
    runner = trainer(logger=logger)
    runner.fit(system, loader(), loader())
    epoch = {
        f"{stage}/{key}/epoch"
        for stage in ("train", "val")
        for key in (
            "loss/shape", "loss/height", "loss/total", "shape/Accuracy", "height/MeanSquaredError"
        )
    }  # fmt: skip
    step = {key.replace("/epoch", "/step") for key in epoch if key.startswith("train")}
    assert set(runner.callback_metrics) == epoch
    assert set(system.log_keys(["train", "val"])) == epoch
    assert logger.logged() == epoch | step | {"weights/shape", "weights/height", "lr/rest"}


def test_test_values_are_logged_under_test(trainer):
    runner = trainer()
    runner.test(make(metrics=metrics()), loader(), verbose=False)
    assert "test/shape/Accuracy/epoch" in runner.callback_metrics
    assert all(key.startswith("test/") for key in runner.callback_metrics)


@pytest.mark.parametrize("stage", ["train", "val", "test"])
@pytest.mark.parametrize("batch_size", [1, 5, ROWS])
def test_epoch_losses_are_means_over_all_labels_and_add_up(trainer, stage, batch_size):
    rows = samples()
    for i in (0, 1, 2, 7):
        rows[i][1]["height"] = torch.tensor(math.nan)
    system = make(loss=criterion(loss_weights={"height": 0.5}), optimizer=sgd(0.0))
    runner = trainer()
    if stage == "test":
        runner.test(system, loader(rows, batch_size), verbose=False)
    else:
        runner.fit(system, loader(rows, batch_size), loader(rows, batch_size))
    logged = {
        name: float(runner.callback_metrics[f"{stage}/loss/{name}/epoch"]) for name in (*TASKS, "total")
    }

    whole = criterion()(*_whole(system, rows), return_dict=True)[1]
    assert logged["shape"] == pytest.approx(whole["shape"].item(), rel=1e-5)
    assert logged["height"] == pytest.approx(whole["height"].item(), rel=1e-5)
    if stage != "train":
        assert logged["total"] == pytest.approx(logged["shape"] + 0.5 * logged["height"], rel=1e-6)


def _whole(system, rows):
    x, targets = next(iter(loader(rows, len(rows))))
    with torch.no_grad():
        return system(x), targets


def test_the_training_total_is_the_mean_of_what_was_minimised(trainer):
    logger = Recorded()
    runner = trainer(logger=logger)
    runner.fit(make(), loader())
    steps = [row["train/loss/total/step"] for row in logger.rows if "train/loss/total/step" in row]
    assert len(steps) == 3
    assert logger.last("train/loss/total/epoch") == pytest.approx(sum(steps) / 3)


def test_the_values_of_a_window_are_means_over_its_steps(trainer):
    every, one = Recorded(), Recorded()
    for logger, n in ((every, 3), (one, 1)):
        trainer(logger=logger, log_every_n_steps=n).fit(make(), loader())
    steps = [row["train/loss/shape/step"] for row in one.rows if "train/loss/shape/step" in row]
    assert every.last("train/loss/shape/step") == pytest.approx(sum(steps) / 3)


def test_weights_that_act_are_logged(trainer):
    logger = Recorded()
    loss = criterion(loss_weights={"height": 0.5}, weighting=Fixed({"shape": 3.0, "height": 1.0}))
    trainer(logger=logger).fit(make(loss=loss), loader())
    ratio = logger.last("weights/shape") / logger.last("weights/height")
    assert ratio == pytest.approx(6.0)


# ---- metrics and adapters by stage ------------------------------------------------------------


def test_metrics_given_once_are_cloned_for_each_stage(trainer):
    given = metrics()
    system = make(metrics=given)
    own = [
        metric
        for stage in ("train", "val", "test")
        for metric in system.record.of(stage).modules()
        if isinstance(metric, MulticlassAccuracy)
    ]
    assert len({id(metric) for metric in [*own, given["shape"]]}) == 4


def test_metrics_by_stage_are_logged_in_theirs_only(trainer):
    given = {
        "train": {"shape": MulticlassAccuracy(3)},
        "val": {
            "shape": [MulticlassAccuracy(3), MulticlassF1Score(3)],
            "height": {"error": MeanSquaredError()},
        },
    }
    system = make(metrics=given)
    assert [key for key in system.log_keys() if "loss" not in key] == [
        "train/shape/Accuracy/epoch",
        "val/shape/Accuracy/epoch",
        "val/shape/F1Score/epoch",
        "val/height/error/epoch",
    ]
    assert system.main_metrics("val") == ["shape/Accuracy", "height/error"]


def test_a_metric_equals_the_one_on_all_rows_and_sees_labelled_rows_only(trainer):
    rows = samples()
    for i in (0, 1, 2, 3, 9):
        rows[i][1]["shape"] = torch.tensor(-100)
    system, runner = make(metrics=metrics()), trainer()
    runner.test(system, loader(rows), verbose=False)
    outputs, targets = _whole(system, rows)
    kept = targets["shape"] != -100
    right = (outputs["shape"].argmax(1) == targets["shape"])[kept].float().mean()
    assert float(runner.callback_metrics["test/shape/Accuracy/epoch"]) == pytest.approx(right.item())


def test_a_stage_and_a_task_side_by_side_are_refused():
    with pytest.raises(UserError, match=r"metrics\.shape: cannot be combined with the stages val"):
        make(metrics={"val": metrics(), "shape": MeanSquaredError()})


def test_metrics_of_an_unknown_task_are_refused():
    with pytest.raises(UserError, match=r"no task is called 'hieght'.*'height'"):
        make(metrics={"hieght": MeanSquaredError()})


def test_adapters_may_differ_by_stage(trainer):
    flipped = [{"y": targets, "x": x} for x, targets in samples()]
    system = make(adapters={"val": {"batch": BatchAdapter("x", "y")}})
    runner = trainer()
    runner.fit(system, loader(), loader(flipped))
    one = runner.callback_metrics["val/loss/total/epoch"]
    runner.validate(make(system.model), loader(), verbose=False)
    assert runner.callback_metrics["val/loss/total/epoch"] == one


def test_adapters_transform_for_metrics_and_predictions(trainer):
    class ClassError(MeanSquaredError):
        def update(self, preds, target):
            assert preds.max() <= 2
            super().update(preds.float(), target.float())

    adapters = {
        "metrics": MetricsAdapter(pred_transforms={"shape": lambda scores: scores.argmax(1)}),
        "logging": LoggingAdapter(pred_transforms={"shape": lambda scores: scores.argmax(1)}),
    }
    system, runner = make(metrics={"shape": ClassError()}, adapters=adapters), trainer()
    runner.test(system, loader(), verbose=False)
    outputs, targets = _whole(system, samples())
    expected = nn.functional.mse_loss(outputs["shape"].argmax(1).float(), targets["shape"].float())
    assert float(runner.callback_metrics["test/shape/ClassError/epoch"]) == pytest.approx(expected.item())
    assert runner.predict(system, loader())[0]["outputs"]["shape"].shape == (BATCH,)


# ---- optimizers, schedulers and what Trainer adds ---------------------------------------------


def test_the_optimizer_is_any_callable_from_parameters(trainer):
    system = make(optimizer=lambda parameters: torch.optim.Adagrad(parameters, lr=0.5))
    runner = trainer()
    runner.fit(system, loader())
    assert isinstance(runner.optimizers[0], torch.optim.Adagrad)


def test_groups_take_their_own_options(trainer):
    factory = OptimizerFactory(sgd(0.1), {"backbone": {"lr": 0.0}, "heads.height": {"lr": 0.2}})
    system, logger = make(optimizer=factory), Recorded()
    before = copy.deepcopy(system.model.state_dict())
    trainer(logger=logger).fit(system, loader())
    assert not {n for n in changed(before, system.model.state_dict()) if n.startswith("backbone")}
    assert [logger.last(f"lr/{name}") for name in ("rest", "backbone", "heads.height")] == [0.1, 0.0, 0.2]


@pytest.mark.parametrize(("interval", "rate"), [("epoch", 0.1 * 0.5**2), ("step", 0.1 * 0.5**6)])
def test_a_scheduler_steps_by_epoch_or_by_step(trainer, interval, rate):
    factory = SchedulerFactory(partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5), interval=interval)
    runner = trainer(max_epochs=2)
    runner.fit(make(scheduler=factory), loader())
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)


def test_a_scheduler_may_be_a_plain_callable(trainer):
    runner = trainer(max_epochs=2)
    runner.fit(make(scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)), loader())
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize("monitor", ["val/loss/total/epoch", "train/loss/shape/epoch"])
def test_a_plateau_scheduler_steps_when_its_key_is_logged(trainer, monitor):
    plateau = partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau,
        patience=0,
        threshold=1e9,
        threshold_mode="abs",
        factor=0.5,
    )
    runner = trainer(max_epochs=3)
    runner.fit(make(scheduler=SchedulerFactory(plateau, monitor=monitor)), loader(), loader())
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**2)


def test_accumulated_batches_equal_the_larger_batch(trainer):
    systems = [make(), make()]
    trainer(accumulate_grad_batches=3).fit(systems[0], loader(batch_size=2))
    trainer().fit(systems[1], loader(batch_size=6))
    one, other = (system.model.state_dict() for system in systems)
    assert changed(one, Net().state_dict())
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_gradients_are_clipped(trainer):
    system = make(optimizer=sgd(1.0))
    before = copy.deepcopy(system.model.state_dict())
    trainer(gradient_clip_val=1e-3, max_steps=1).fit(system, loader())
    after = system.model.state_dict()
    moved = math.sqrt(sum(float((after[name] - before[name]).square().sum()) for name in before))
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_mixed_precision_trains_and_logs_finite_values(trainer):
    system, runner = make(metrics=metrics()), trainer(precision="bf16-mixed")
    before = copy.deepcopy(system.model.state_dict())
    runner.fit(system, loader(), loader())
    assert "heads.shape.weight" in changed(before, system.model.state_dict())
    assert all(math.isfinite(value) for value in runner.callback_metrics.values())


def test_a_callback_stops_by_a_key_of_a_metric(trainer):
    early = EarlyStopping("val/height/MeanSquaredError/epoch", patience=1, min_delta=1e9)
    runner = trainer(max_epochs=9, callbacks=[early])
    runner.fit(make(metrics=metrics()), loader(), loader())
    assert runner.current_epoch == 2


@pytest.mark.parametrize(
    ("monitor", "near"),
    [
        ("val/shape/acc", "val/shape/Accuracy/epoch"),
        ("val_loss", "val/loss/"),
        ("test/loss/total/epoch", "/loss/total/epoch"),
    ],
)
def test_a_monitor_that_nothing_logs_is_refused_before_training(trainer, monitor, near):
    system = make(metrics=metrics())
    before = copy.deepcopy(system.model.state_dict())
    with pytest.raises(UserError, match=r"EarlyStopping\.monitor") as raised:
        trainer(callbacks=[EarlyStopping(monitor)]).fit(system, loader(), loader())
    assert near in str(raised.value)
    assert not changed(before, system.model.state_dict())


def test_an_optimizer_that_is_made_already_is_refused():
    with pytest.raises(UserError, match=r"functools\.partial\(torch\.optim\.Adam, lr"):
        make(optimizer=torch.optim.Adam(nn.Linear(1, 1).parameters()))


def test_training_needs_an_optimizer(trainer):
    with pytest.raises(UserError, match="optimizer: is required for training"):
        trainer().fit(System(Net(), criterion()), loader())


def test_a_system_without_an_optimizer_can_be_tested(trainer):
    runner = trainer()
    runner.test(System(Net(), criterion()), loader(), verbose=False)
    assert "test/loss/total/epoch" in runner.callback_metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, "model: must be a torch.nn.Module"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite: must be 'stop' or 'skip'"),
        ({"dataloaders": {"trian": []}}, "dataloaders: keys must be stages, got 'trian'.*'train'"),
        ({"metrics": [1]}, "metrics: must be a mapping"),
        ({"adapters": {"bach": None}}, "adapters: keys must be kinds of adapters, got 'bach'.*'batch'"),
        ({"adapters": {"batch": MetricsAdapter()}}, "must be a polytask.adapters.BatchAdapter"),
    ],
)
def test_parts_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def test_transforms_of_an_unknown_task_are_a_problem():
    system = make(adapters={"metrics": MetricsAdapter(pred_transforms={"shap": abs})})
    assert "'shape'" in str(system.problems(["train"])[0])


# ---- loaders ----------------------------------------------------------------------------------


def test_loaders_may_belong_to_the_system(trainer):
    stages = ("train", "val", "test", "predict")
    system, runner = make(dataloaders={stage: loader() for stage in stages}), trainer()
    runner.fit(system)
    runner.test(system, verbose=False)
    assert "test/loss/total/epoch" in runner.callback_metrics
    assert len(runner.predict(system)) == 3


def test_a_stage_without_a_loader_is_refused(trainer):
    with pytest.raises(UserError, match=r"dataloaders\.test: is required, got none"):
        trainer().test(make(dataloaders={"train": loader()}), verbose=False)


def test_a_loader_without_batches_is_refused(trainer):
    with pytest.raises(UserError, match=r"dataloaders\.train: must yield at least one batch"):
        trainer().fit(make(dataloaders={"train": DataLoader(samples(3), batch_size=4, drop_last=True)}))


def test_inputs_alone_can_be_predicted(trainer):
    outputs = trainer().predict(make(), loader([x for x, _ in samples()]))[0]["outputs"]
    assert outputs["shape"].shape == (BATCH, 3)


# ---- missing labels and absent tasks ----------------------------------------------------------


def unlabelled(*rows, task="height"):
    data = samples()
    for i in rows:
        data[i][1][task] = torch.tensor(math.nan if task == "height" else -100)
    return data


def test_an_absent_task_has_no_loss_no_step_and_no_metric_update(trainer):
    system, logger = make(metrics=metrics()), Recorded()
    before = copy.deepcopy(system.model.state_dict())
    trainer(logger=logger, max_steps=1).fit(system, loader(unlabelled(0, 1, 2, 3)))
    step = next(row for row in logger.rows if "train/loss/total/step" in row)
    assert "train/loss/height/step" not in step
    assert "train/height/MeanSquaredError/step" not in step
    assert step["train/loss/total/step"] == step["train/loss/shape/step"]
    assert not {n for n in changed(before, system.model.state_dict()) if n.startswith("heads.height")}


def test_a_task_whose_key_is_not_in_a_batch_is_absent_there(trainer):
    data = samples()
    for _, targets in data[:BATCH]:
        del targets["height"]
    system, runner = make(metrics=metrics()), trainer()
    runner.fit(system, loader(data))
    assert "train/loss/height/epoch" in runner.callback_metrics


def test_a_missing_label_leaves_no_trace_in_the_gradient(trainer):
    systems = [make(), make()]
    data = unlabelled(0, 1)
    trainer(max_steps=1).fit(systems[0], loader(data))
    x, targets = next(iter(loader(samples())))
    outputs = systems[1](x)
    loss = nn.functional.cross_entropy(outputs["shape"], targets["shape"])
    loss = loss + nn.functional.mse_loss(outputs["height"][2:, 0], targets["height"][2:])
    loss.backward()
    for one, other in zip(systems[0].model.parameters(), systems[1].model.parameters(), strict=True):
        assert torch.allclose(one, other - 0.1 * other.grad, atol=1e-6)


def test_a_step_without_any_label_is_skipped_and_counted(trainer):
    data = unlabelled(4, 5, 6, 7)
    for i in range(4, 8):
        data[i][1]["shape"] = torch.tensor(-100)
    systems, runner = [make(), make()], trainer()
    runner.fit(systems[0], loader(data))
    trainer().fit(systems[1], loader(data[:4] + data[8:]))
    assert systems[0].skipped == 1
    assert float(runner.callback_metrics["train/skipped/epoch"]) == 1
    assert not changed(systems[0].model.state_dict(), systems[1].model.state_dict())


def test_a_batch_without_any_label_is_passed_over_in_evaluation(trainer):
    data = unlabelled(4, 5, 6, 7)
    for i in range(4, 8):
        data[i][1]["shape"] = torch.tensor(-100)
    found = []
    for rows in (data, data[:4] + data[8:]):
        runner = trainer()
        runner.test(make(metrics=metrics()), loader(rows), verbose=False)
        found.append({key: float(value) for key, value in runner.callback_metrics.items()})
    assert found[0] == found[1]


def test_a_task_that_never_has_a_label_in_training_is_refused(trainer):
    with pytest.raises(UserError, match="task 'height': must have a label in training"):
        trainer().fit(make(), loader(unlabelled(*range(ROWS))), loader())


# ---- losses that are not finite ---------------------------------------------------------------


def infinite(row=5):
    data = samples()
    data[row][1]["height"] = torch.tensor(math.inf)
    return data


def test_an_infinite_loss_stops_the_run_and_names_task_and_step(trainer):
    with pytest.raises(RunError, match=r"task 'height': the loss must be finite, got inf at step 1"):
        trainer().fit(make(), loader(infinite()))


def test_an_infinite_loss_is_found_at_the_end_of_an_epoch_at_the_latest(trainer):
    with pytest.raises(RunError, match="inf at step 1"):
        trainer(log_every_n_steps=50).fit(make(), loader(infinite()), loader())


def test_an_infinite_loss_may_be_skipped_and_is_counted(trainer):
    data = infinite()
    systems, runner = [make(on_nonfinite="skip"), make()], trainer()
    said = r"task 'height': the loss must be finite, got inf at step 1 in epoch 0 \(row 1 of the batch\)"
    with pytest.warns(UserWarning, match=said):
        runner.fit(systems[0], loader(data))
    trainer().fit(systems[1], loader(data[:4] + data[8:]))
    assert systems[0].skipped == 1
    assert not changed(systems[0].model.state_dict(), systems[1].model.state_dict())
    assert all(math.isfinite(value) for value in runner.callback_metrics.values())


def test_task_ids_need_heads_in_the_criterions_order():
    heads = {"b": nn.Linear(2, 1), "a": nn.Linear(2, 1)}
    criterion = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()})
    with pytest.raises(UserError, match="criterion's order a, b"):
        System(MultiHead(nn.Identity(), heads), criterion, adapters={"batch": BatchAdapter(0, 1, 2)})


class NeverSolved(GramianWeighting):
    def solve(self, step):
        return GramianSolution(torch.ones(len(step.gramian)), torch.tensor(False))


def test_steps_without_weights_are_said_once_and_counted_at_the_end(trainer):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SolverWarning)
        system = make(loss=criterion(weighting=NeverSolved()))
        trainer(max_epochs=3, log_every_n_steps=1).fit(system, loader())
    said = [str(one.message) for one in caught if issubclass(one.category, SolverWarning)]
    assert len(said) == 2
    assert "in step 0; 1 such step. " in said[0]
    assert said[1].endswith("the weights were 0: 9 such steps so far.")


# ---- what a checkpoint holds ------------------------------------------------------------------


def test_the_keys_of_a_checkpoint_are_those_of_earlier_versions(trainer, tmp_path):
    """A key that changes here breaks checkpoints that users have."""
    loss = criterion(weighting=Fixed({"shape": 3.0, "height": 1.0}))
    metric, runner = MeanSquaredError(), trainer()
    metric.persistent(True)
    runner.fit(make(loss=loss, metrics={"height": {"error": metric}}), loader(), loader())
    runner.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert {name for name in saved["state_dict"] if not name.startswith("model.")} == {
        f"record.metrics.stage_{stage}.by_task.task_height.metric_error.{state}"
        for stage in ("train", "val", "test")
        for state in ("sum_squared_error", "total")
    }
    epoch = saved["polytask_epoch"]
    assert epoch.keys() == {"record", "skipped", "labelled", "logged_step", "balance"}
    assert epoch["record"]["losses"].keys() == {"window", "recent", "sums", "counts"}
    assert epoch["record"]["metrics"].keys() == {"rows", "states", "seen"}
    assert epoch["record"]["metrics"]["states"].keys() == {"height/error"}
    assert epoch["record"]["metrics"]["states"]["height/error"][""].keys() == {"count", "state"}
    assert epoch["balance"].keys() == {"weights", "engine"}
    assert epoch["balance"]["engine"].keys() == {"shared", "weights", "steps"}


# ---- values that are undefined, and of several loaders ----------------------------------------


def bent(shape, height):
    """Rows with these labels in every one of them."""
    return [(x, {"shape": torch.tensor(shape), "height": torch.tensor(height)}) for x, _ in samples()]


def test_an_undefined_value_is_named_with_task_and_stage(trainer):
    system = make(metrics={"height": [R2Score(), MeanSquaredError()]})
    with pytest.warns(UserWarning, match="^val/height/R2Score/epoch is NaN: the labels do not vary$") as said:
        (values,) = trainer().validate(system, loader(bent(1, 0.5)), verbose=False)
    assert len([one for one in said if "epoch is" in str(one.message)]) == 1
    assert math.isnan(values["val/height/R2Score/epoch"])
    assert values["val/height/MeanSquaredError/epoch"] > 0


def test_a_task_without_a_label_has_values_that_are_undefined(trainer):
    system = make(metrics=metrics())
    text = "^val/loss/height/epoch is NaN, as are the task's metrics: no label$"
    with pytest.warns(UserWarning, match=text):
        (values,) = trainer().validate(system, loader(bent(1, math.nan)), verbose=False)
    assert set(values) == set(system.log_keys(["val"]))
    assert {key for key, value in values.items() if math.isnan(value)} == {
        "val/loss/height/epoch",
        "val/height/MeanSquaredError/epoch",
    }
    assert values["val/loss/total/epoch"] == pytest.approx(values["val/loss/shape/epoch"])


def test_a_monitor_of_a_task_without_a_label_ends_nothing(trainer):
    stop = EarlyStopping("val/height/MeanSquaredError/epoch", check_finite=False)
    fit = trainer(max_epochs=2, callbacks=[stop])
    with pytest.warns(UserWarning, match="no label"):
        fit.fit(make(metrics=metrics()), loader(), loader(bent(1, math.nan)))
    assert fit.current_epoch == 2


def test_a_sanity_check_says_nothing_of_undefined_values(trainer):
    system = make(metrics={"height": R2Score()})
    data = [*bent(1, 0.5)[:BATCH], *samples()]
    trainer(max_epochs=1, num_sanity_val_steps=1).fit(system, loader(), loader(data))
    assert not math.isnan(system.latest["val/height/R2Score/epoch"])


@pytest.mark.parametrize("form", [list, dict])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_each_of_several_loaders_has_keys_of_its_own(trainer, stage, form):
    parts = {"clean": samples()[:5], "noisy": bent(2, 1.5)}
    loaders = {name: loader(rows) for name, rows in parts.items()}
    names = list(parts) if form is dict else ["0", "1"]
    given = loaders if form is dict else list(loaders.values())
    system = make(metrics=metrics(), dataloaders={stage: given})

    def evaluated(data=None):
        run = trainer().validate if stage == "val" else trainer().test
        return run(system, data, verbose=False)[0]

    values = evaluated()
    assert set(values) == set(system.log_keys([stage]))
    whole = evaluated(loader([*parts["clean"], *parts["noisy"]]))
    assert {key: values[key] for key in whole} == pytest.approx(whole)
    for name, rows in zip(names, parts.values(), strict=True):
        alone = evaluated(loader(rows))
        own = {f"{stage}/{name}/{key.removeprefix(f'{stage}/')}": value for key, value in alone.items()}
        assert {key: values[key] for key in own} == pytest.approx(own)
    assert len(values) == 3 * len(whole)


def test_a_key_of_one_of_several_loaders_can_be_monitored(trainer):
    loaders = {"train": loader(), "val": {"clean": loader(), "noisy": loader(bent(2, 1.5))}}
    system = make(metrics=metrics(), dataloaders=loaders)
    best = ModelCheckpoint(monitor="val/noisy/height/MeanSquaredError/epoch")
    trainer(max_epochs=1, callbacks=[best], enable_checkpointing=True).fit(system)
    assert best.best_model_score == pytest.approx(system.latest[best.monitor])
    assert "val/noisy" not in " ".join(system.state_dict())
    bad = EarlyStopping("val/dirty/height/MeanSquaredError/epoch")
    with pytest.raises(UserError, match=r"EarlyStopping\.monitor: must be a key that is logged"):
        trainer(max_epochs=1, callbacks=[bad]).fit(system)


@pytest.mark.parametrize("name", ["height", "loss", "a/b"])
def test_a_name_of_a_loader_that_keys_cannot_have(trainer, name):
    loaders = {"train": loader(), "val": {"clean": loader(), name: loader()}}
    with pytest.raises(UserError, match=r"^dataloaders\.val"):
        trainer(max_epochs=1).fit(make(dataloaders=loaders))


def test_a_part_of_the_batch_is_an_argument_of_a_metric(trainer):
    def weighted(predictions, targets, weight):
        return np.average((predictions - targets) ** 2, weights=weight)

    rows = [(x, targets, float(i)) for i, (x, targets) in enumerate(samples())]
    adapters = {"metrics": MetricsAdapter(batch_arguments={"weight": 2})}
    system = make(metrics={"height": weighted, "shape": metrics()["shape"]}, adapters=adapters)
    (values,) = trainer().validate(system, loader(rows), verbose=False)
    with torch.no_grad():
        output = system.model(torch.stack([x for x, *_ in rows]))["height"].flatten().numpy()
    errors = (output - np.array([targets["height"] for _, targets, _ in rows])) ** 2
    right = np.average(errors, weights=np.arange(len(rows)))
    assert values["val/height/weighted/epoch"] == pytest.approx(right, rel=1e-5)


def test_an_argument_that_no_metric_has_is_found_before_training(trainer):
    adapters = {"metrics": MetricsAdapter(batch_arguments={"weight": 2})}
    with pytest.raises(UserError, match=r"batch_arguments\.weight: must be an argument of a metric"):
        trainer(max_epochs=1).fit(make(metrics=metrics(), adapters=adapters), loader())
