"""Recorders in a training: what they write, what they cost the training, how they resume."""

import copy
import functools
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from polytask import UserError
from polytask.diagnostics import (
    Affinity,
    GradientRecorder,
    LossRecorder,
    WeightRecorder,
    read_affinity,
    read_gradients,
    read_losses,
    read_weights,
)
from polytask.diagnostics._store import AFFINITY, GRADIENTS, LOSSES, WEIGHTS
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, HardParameterSharing, MultiHead, TaskHead
from polytask.system import System
from polytask.weighting import DWA, MGDA, UW, GradNorm, MoDo, PCGrad, UPGrad
from tests.training import quiet_trainer

TASKS = ("a", "b", "c")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*smaller than the logging interval.*",
    "ignore:.*Checkpoint directory.*",
)


def batches(count=8, missing=()):
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(count):
        targets = {task: torch.randn(6, 1, generator=generator) for task in TASKS}
        if number in missing:
            targets["b"] = torch.full((6, 1), torch.nan)
        made.append((torch.randn(6, 5, generator=generator), targets))
    return made


def net(dropout=0.0):
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(dropout), nn.Linear(7, 4)
    )
    return MultiHead(backbone, {task: nn.Linear(4, 1) for task in TASKS})


def system(weighting=None, model=None, data=None, lr=0.1, loss_weights=None, **options):
    losses = {task: nn.MSELoss() for task in TASKS}
    criterion = MultiTaskLoss(losses, loss_weights, weighting=weighting)
    return System(
        model or net(),
        criterion,
        functools.partial(torch.optim.SGD, lr=lr),
        dataloaders={"train": DataLoader(data or batches(), batch_size=None)},
        **options,
    )


def fit(folder, made, *callbacks, checkpoint=None, **options):
    given = {"max_epochs": 1, "log_every_n_steps": 3, **options}
    trainer = quiet_trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        **given,
    )
    trainer.fit(made, ckpt_path=checkpoint, weights_only=True)
    return trainer


def by_hand(model, batch, over):
    """The tasks' gradients by some parameters, one row each."""
    rows = []
    for task in TASKS:
        loss = nn.functional.mse_loss(model(batch[0])[task], batch[1][task])
        gradients = torch.autograd.grad(loss, over)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


def backbone_gramian(model, batch):
    rows = by_hand(model, batch, list(model.backbone.parameters()))
    return (rows @ rows.mT).numpy()


# ---- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", [None, UW, UPGrad, PCGrad, MoDo])
def test_the_gramian_is_that_of_the_shared_parameters(tmp_path, weighting):
    expected = backbone_gramian(net().train(), batches()[0])
    made = system(None if weighting is None else weighting())
    together = made.criterion.weighting.batches_per_step
    recorder = GradientRecorder(every=2, level="parameters")
    fit(tmp_path, made, recorder, accumulate_grad_batches=together)
    found = read_gradients(tmp_path)
    assert (found.group, found.tasks) == ("shared", TASKS)
    assert found.steps.tolist() == list(range(0, -(-8 // together), 2))
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-4, atol=1e-7)


def test_the_representation_is_where_the_graphs_part(tmp_path):
    model, batch = net().train(), batches()[0]
    representation = model.backbone(batch[0]).detach().requires_grad_()
    rows = torch.stack(
        [
            torch.autograd.grad(
                nn.functional.mse_loss(model.heads[task](representation), batch[1][task]), representation
            )[0].flatten()
            for task in TASKS
        ]
    )
    fit(tmp_path, system(), GradientRecorder())
    found = read_gradients(tmp_path)
    assert found.group == "representation"
    np.testing.assert_allclose(found.values[0], (rows @ rows.mT).numpy(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("weighting", "level", "group"),
    [
        (UPGrad, None, "shared"),
        (GradNorm, None, "last_shared"),
        (UPGrad, "representation", "representation"),
        (UPGrad, "last_shared", "last_shared"),
    ],
)
def test_no_backward_is_added_if_the_weighting_measures_the_gramian(
    tmp_path, weighting, level, group, monkeypatch
):
    calls, grad = [], torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *args, **named: calls.append(1) or grad(*args, **named)
    )
    fit(tmp_path / "without", system(weighting(), level=level))
    without = len(calls)
    fit(tmp_path / "with", system(weighting(), level=level), GradientRecorder(every=1))
    assert len(calls) == 2 * without
    assert read_gradients(tmp_path / "with").group == group


def test_kept_weights_are_recorded_with_gradients_beside_the_step(tmp_path):
    model = net().train()
    fit(tmp_path, system(UPGrad(), refresh_every=4, lr=0.0, model=model), GradientRecorder(every=1))
    found = read_gradients(tmp_path)
    assert found.steps.tolist() == list(range(8))
    np.testing.assert_allclose(
        found.values[5], backbone_gramian(net().train(), batches()[5]), rtol=1e-3, atol=1e-7
    )


@pytest.mark.parametrize("weighting", [None, UPGrad])
def test_accumulated_batches_have_the_gramian_of_their_mean(tmp_path, weighting):
    model = net().train()
    over = list(model.backbone.parameters())
    rows = sum(by_hand(model, batch, over) for batch in batches()[:4]) / 4
    made = system(None if weighting is None else weighting())
    fit(tmp_path, made, GradientRecorder(every=1), accumulate_grad_batches=4)
    found = read_gradients(tmp_path)
    assert found.steps.tolist() == [0, 1]
    np.testing.assert_allclose(found.values[0], (rows @ rows.mT).numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("weighting", [None, UPGrad])
def test_groups_are_parts_of_the_whole(tmp_path, weighting):
    model = net().train()
    made = system(None if weighting is None else weighting())
    fit(
        tmp_path,
        made,
        GradientRecorder(every=1, groups={"stem": ["backbone.0", "backbone.1"], "top": "backbone.4"}),
    )
    whole, stem, top = (read_gradients(tmp_path, group).values for group in ("shared", "stem", "top"))
    np.testing.assert_allclose(stem + top, whole, rtol=1e-4, atol=1e-7)
    rows = by_hand(model, batches()[0], list(model.backbone[4].parameters()))
    np.testing.assert_allclose(top[0], (rows @ rows.mT).numpy(), rtol=1e-4, atol=1e-7)


def test_layers_are_groups_by_their_path(tmp_path):
    fit(tmp_path, system(), GradientRecorder(groups="layers"))
    groups = pq.read_table(tmp_path / "records" / "gradients.parquet")["group"].unique().to_pylist()
    assert groups == ["shared", "backbone.0", "backbone.1", "backbone.4"]


def test_layers_without_rows_have_groups_too(tmp_path):
    """Wide layers and small batches, where no weight's gradient is taken."""
    torch.manual_seed(0)
    model = MultiHead(MLP(5, [64, 64], 64), {task: nn.Linear(64, 1) for task in TASKS})
    before = copy.deepcopy(model)
    fit(tmp_path, system(UPGrad(), model=model), GradientRecorder(groups="layers"))
    names = [
        name
        for name, module in before.named_modules()
        if isinstance(module, nn.Linear) and "head" not in name
    ]
    for name in names:
        rows = by_hand(before, batches()[0], list(before.get_submodule(name).parameters()))
        found = read_gradients(tmp_path, name).values[0]
        np.testing.assert_allclose(found, (rows @ rows.mT).numpy(), rtol=1e-3, atol=1e-6)


def test_an_absent_task_has_no_rows(tmp_path):
    fit(tmp_path, system(data=batches(missing=(2,))), GradientRecorder(every=1), LossRecorder(every=1))
    assert np.isnan(read_gradients(tmp_path).norms[2]).tolist() == [False, True, False]
    assert np.isnan(read_losses(tmp_path).values[2]).tolist() == [False, True, False]


def test_derived_numbers(tmp_path):
    fit(tmp_path, system(), GradientRecorder(every=1, level="parameters"))
    found = read_gradients(tmp_path)
    gramian = found.values[3]
    eigenvalues = np.linalg.eigvalsh(gramian)
    assert found.condition[3] == pytest.approx(eigenvalues[-1] / eigenvalues[0])
    assert found.cosines[3, 0, 1] == pytest.approx(gramian[0, 1] / np.sqrt(gramian[0, 0] * gramian[1, 1]))
    negative = (gramian[np.triu_indices(3, 1)] < 0).mean()
    assert found.conflict_rate[3] == pytest.approx(negative)


def test_tasks_that_share_nothing_are_said_to(tmp_path):
    heads = nn.ModuleDict({task: nn.Linear(5, 1) for task in TASKS})

    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.nets = heads

        def forward(self, x):
            return {task: layer(x) for task, layer in self.nets.items()}

    with pytest.warns(UserWarning, match="recorded nothing"):
        fit(tmp_path, system(model=Apart()), GradientRecorder())
    with pytest.raises(UserError, match="the records do not exist"):
        read_gradients(tmp_path)


# ---- losses and weights -----------------------------------------------------------------------


def test_losses_are_those_before_the_step(tmp_path):
    model = net().train()
    with torch.no_grad():
        outputs = [(model(x), y) for x, y in batches()]
    expected = [[float(nn.functional.mse_loss(out[task], y[task])) for task in TASKS] for out, y in outputs]
    fit(tmp_path, system(lr=0.0), LossRecorder(every=1))
    found = read_losses(tmp_path)
    assert (found.tasks, found.epochs.tolist()) == (TASKS, [0] * 8)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    fit(tmp_path / "together", system(lr=0.0), LossRecorder(every=1), accumulate_grad_batches=4)
    together = read_losses(tmp_path / "together").values
    np.testing.assert_allclose(together, np.array(expected).reshape(2, 4, 3).mean(1), rtol=1e-5)


def test_weights_are_those_of_the_step(tmp_path):
    fit(tmp_path, system(DWA(), lr=0.0), WeightRecorder(every=1))
    np.testing.assert_allclose(read_weights(tmp_path).values, 1.0, rtol=1e-5)
    made = system(UPGrad())
    recorder = WeightRecorder(every=1)
    fit(tmp_path / "gradients", made, recorder)
    last = [float(made.task_backward.engine.weights[task]) for task in TASKS]
    np.testing.assert_allclose(read_weights(tmp_path / "gradients").values[-1], last)


FACTORS = {"a": 0.5, "b": 4.0}


def test_own_weights_are_those_before_the_loss_weights(tmp_path):
    """UW's own weight is 1 / (2 e) where the log variance is 1, and 1/2 where it is 0."""
    made = system(UW(init_log_vars={"b": 1.0}), lr=0.0, loss_weights=FACTORS, data=batches(missing=(1,)))
    fit(tmp_path, made, WeightRecorder(every=1))
    own, effective = (read_weights(tmp_path, kind) for kind in ("own", "effective"))
    np.testing.assert_allclose(own.values[0], [0.5, 0.18393972, 0.5], rtol=1e-6)
    np.testing.assert_allclose(effective.values[0], [0.25, 0.73575888, 0.5], rtol=1e-6)
    assert np.isnan(own.values[1]).tolist() == np.isnan(effective.values[1]).tolist() == [False, True, False]
    np.testing.assert_array_equal(read_weights(tmp_path).values, effective.values)


def test_own_weights_of_gradients_are_those_that_the_step_used(tmp_path):
    made = system(MGDA(), loss_weights=FACTORS)
    fit(tmp_path, made, WeightRecorder(every=1))
    own, effective = (read_weights(tmp_path, kind).values for kind in ("own", "effective"))
    np.testing.assert_allclose(own.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(own[-1], [float(made.task_backward.engine.weights[task]) for task in TASKS])
    np.testing.assert_allclose(effective, own * [0.5, 4.0, 1.0], rtol=1e-6)


def test_effective_weights_of_gradients_make_the_step(tmp_path):
    model, before = net(), net().train()
    over = list(before.backbone.parameters())
    rows = by_hand(before, batches()[0], over)
    made = system(UPGrad(), model=model, loss_weights=FACTORS, data=batches(1))
    fit(tmp_path, made, WeightRecorder(every=1))
    after = torch.cat([parameter.flatten() for parameter in model.backbone.parameters()]).detach()
    step = after - torch.cat([parameter.flatten() for parameter in over]).detach()
    weights = torch.tensor(read_weights(tmp_path).values[0], dtype=torch.float32)
    torch.testing.assert_close(step, -0.1 * weights @ rows, rtol=1e-3, atol=1e-5)


def test_the_weights_of_a_resumed_run_are_both_those_of_one_that_never_stopped(tmp_path):
    def recorded(folder, *others, checkpoint=None):
        made = system(UW(), loss_weights=FACTORS)
        fit(folder, made, WeightRecorder(every=1), *others, checkpoint=checkpoint)

    recorded(tmp_path / "whole")
    with pytest.raises(KeyError):
        recorded(tmp_path / "parts", Save(tmp_path / "last.ckpt", 4, 6))
    recorded(tmp_path / "parts", checkpoint=tmp_path / "last.ckpt")
    file = "records/weights.parquet"
    whole = pq.read_table(tmp_path / "whole" / file)
    assert whole.equals(pq.read_table(tmp_path / "parts" / file))
    assert whole.column_names == ["step", "epoch", "task", "weight", "effective_weight"]
    assert not whole["weight"].equals(whole["effective_weight"])


# ---- affinity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", [None, UPGrad])
def test_affinity_is_what_steps_by_hand_do(tmp_path, weighting):
    model, (x, y) = net().train(), batches()[0]
    over = list(model.backbone.parameters())
    rows = by_hand(model, (x, y), over)

    def losses(moved):
        with torch.no_grad():
            return np.array([float(nn.functional.mse_loss(moved(x)[task], y[task])) for task in TASKS])

    expected, base = [], losses(model)
    for row in rows:
        moved = copy.deepcopy(model)
        for parameter, step in zip(
            moved.backbone.parameters(), torch.split(row, [p.numel() for p in over]), strict=True
        ):
            parameter.data -= 0.1 * step.view_as(parameter)
        expected.append(1 - losses(moved) / base)
    made = system(None if weighting is None else weighting(), data=batches(1))
    fit(tmp_path, made, Affinity(every=1))
    found = read_affinity(tmp_path)
    assert (found.form, found.tasks, found.records) == ("lookahead", TASKS, 1)
    np.testing.assert_allclose(found.values, np.array(expected), rtol=1e-3, atol=1e-6)
    first = read_affinity(tmp_path, "first_order").values
    np.testing.assert_allclose(first, 0.1 * (rows @ rows.mT).numpy() / base, rtol=1e-3, atol=1e-7)
    assert (found.shared_parameters, found.task_parameters) == (
        sum(p.numel() for p in over),
        dict.fromkeys(TASKS, 5),
    )


def test_a_small_step_makes_both_forms_equal(tmp_path):
    fit(tmp_path, system(model=net().double(), data=as_double()), Affinity(every=2, learning_rate=1e-6))
    ahead, first = (read_affinity(tmp_path, form).values for form in ("lookahead", "first_order"))
    np.testing.assert_allclose(ahead, first, rtol=1e-4, atol=1e-12)


def as_double():
    return [(x.double(), {task: y.double() for task, y in targets.items()}) for x, targets in batches()]


class Shifted(nn.Module):
    """A mean squared error, so far below 0."""

    def forward(self, outputs, targets):
        return nn.functional.mse_loss(outputs, targets) - 100.0


def test_affinity_has_the_sign_of_the_gain_where_losses_are_below_0(tmp_path):
    found = []
    for name, loss in (("above", nn.MSELoss), ("below", Shifted)):
        made = System(
            net().double(),
            MultiTaskLoss({task: loss() for task in TASKS}),
            functools.partial(torch.optim.SGD, lr=0.1),
            dataloaders={"train": DataLoader(as_double()[:1], batch_size=None)},
        )
        fit(tmp_path / name, made, Affinity(every=1), LossRecorder(every=1))
        losses = read_losses(tmp_path / name).values[0]
        forms = [read_affinity(tmp_path / name, form).values for form in ("lookahead", "first_order")]
        found.append([form * np.abs(losses) for form in forms])
        assert (np.diagonal(forms, axis1=1, axis2=2) > 0).all()
    # A constant moves no loss.
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-12)


# ---- what a training must not notice ----------------------------------------------------------


def all_recorders():
    return (
        GradientRecorder(every=2),
        Affinity(every=3),
        WeightRecorder(every=1),
        LossRecorder(every=1),
    )


@pytest.mark.parametrize("weighting", [None, UW, UPGrad])
def test_a_training_is_not_changed_by_a_bit(tmp_path, weighting):
    """Dropout and batch statistics too."""
    states = []
    for callbacks in ((), all_recorders()):
        made = system(None if weighting is None else weighting(), model=net(dropout=0.5))
        torch.manual_seed(1)
        fit(tmp_path / str(len(callbacks)), made, *callbacks, max_epochs=2)
        states.append(made.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


class Unseen(nn.Module):
    """Its forward changes what torch does not know of."""

    def __init__(self):
        super().__init__()
        self.noise, self.calls = torch.Generator().manual_seed(3), 0

    def forward(self, x):
        self.calls += 1
        return x + torch.randn(x.shape, generator=self.noise) / self.calls


@pytest.mark.parametrize("lookahead", [True, False])
def test_the_lookahead_alone_is_seen_by_what_a_forward_changes_by_itself(tmp_path, lookahead):
    states = []
    for callbacks in (
        (),
        (GradientRecorder(every=2), Affinity(every=3, lookahead=lookahead), LossRecorder()),
    ):
        model = net()
        model.backbone.insert(0, Unseen())
        fit(tmp_path / str(len(callbacks)), system(UPGrad(), model=model), *callbacks)
        states.append(model.state_dict())
    same = all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert same != lookahead


def test_nothing_is_read_on_the_host_in_a_step(tmp_path, monkeypatch):
    """The copy of all that was gathered comes at the logging interval."""
    reads = []
    monkeypatch.setattr("polytask.diagnostics._recorder.torch.cat", spy(reads, torch.cat))
    fit(tmp_path, system(), WeightRecorder(every=1), log_every_n_steps=4)
    assert [len(values) for values in reads] == [4, 4]


def spy(reads, function):
    def spied(values, *args, **named):
        if isinstance(values, list) and values and values[0].shape == (3, 2):
            reads.append(values)
        return function(values, *args, **named)

    return spied


def test_nobody_looks_on_after_a_fit(tmp_path):
    made, recorder = system(), GradientRecorder(every=1)
    fit(tmp_path, made, recorder)
    assert made.task_backward.engine.observers == ()
    fit(tmp_path, made, recorder)
    assert read_gradients(tmp_path).steps.tolist() == list(range(8))


# ---- files ------------------------------------------------------------------------------------


def test_files_have_the_documented_columns(tmp_path):
    fit(tmp_path, system(), *all_recorders())
    for name, schema in (
        ("gradients", GRADIENTS),
        ("affinity", AFFINITY),
        ("weights", WEIGHTS),
        ("losses", LOSSES),
    ):
        table = pq.read_table(tmp_path / "records" / f"{name}.parquet")
        assert table.schema.remove_metadata().equals(schema)
        assert not list((tmp_path / "records").glob("*.part"))


class Save(pl.Callback):
    """A checkpoint after a step, and a crash later."""

    def __init__(self, path, save, crash):
        self.path, self.save, self.crash = path, save, crash

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.save:
            trainer.save_checkpoint(self.path)
        if trainer.global_step == self.crash:
            raise KeyError("crash")


@pytest.mark.parametrize("crash", [10, 13, 15])
def test_a_resumed_run_has_the_rows_of_one_that_never_stopped(tmp_path, crash):
    fit(tmp_path / "whole", system(UPGrad()), *all_recorders(), max_epochs=2)
    path = tmp_path / "last.ckpt"
    with pytest.raises(KeyError):
        fit(tmp_path / "parts", system(UPGrad()), *all_recorders(), Save(path, 8, crash), max_epochs=2)
    fit(tmp_path / "parts", system(UPGrad()), *all_recorders(), checkpoint=path, max_epochs=2)
    for file in sorted((tmp_path / "whole" / "records").iterdir()):
        assert pq.read_table(file).equals(pq.read_table(tmp_path / "parts" / "records" / file.name)), (
            file.name
        )


class Killed(LossRecorder):
    """Writes nothing at the end, as where the process is killed."""

    def on_exception(self, trainer, pl_module, exception):
        return


def test_a_run_that_was_killed_resumes_from_its_checkpoint(tmp_path):
    path, folder = tmp_path / "last.ckpt", tmp_path / "parts"
    fit(tmp_path / "whole", system(), LossRecorder(every=1))
    with pytest.raises(KeyError):
        fit(folder, system(), Killed(every=1), Save(path, 5, 7))
    assert read_losses(folder).steps.tolist() == [0, 1, 2, 3, 4]
    fit(folder, system(), LossRecorder(every=1), checkpoint=path)
    np.testing.assert_array_equal(read_losses(folder).steps, range(8))
    np.testing.assert_array_equal(read_losses(folder).values, read_losses(tmp_path / "whole").values)


def test_a_new_fit_in_the_folder_begins_anew(tmp_path):
    fit(tmp_path, system(), LossRecorder(every=1), max_epochs=2)
    fit(tmp_path, system(), LossRecorder(every=1), max_epochs=1)
    assert read_losses(tmp_path).steps.tolist() == list(range(8))


def test_a_dry_run_writes_nothing(tmp_path):
    fit(tmp_path, system(), LossRecorder(every=1), fast_dev_run=True, max_epochs=None)
    assert not (tmp_path / "records").exists()


def test_recorders_write_where_they_are_told(tmp_path):
    fit(tmp_path / "run", system(), LossRecorder(folder=tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "losses.parquet").exists()


# ---- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
@pytest.mark.parametrize("recorder", [GradientRecorder, WeightRecorder, LossRecorder, Affinity])
def test_every_is_a_number_of_steps(recorder, every):
    with pytest.raises(UserError, match="every: must be an integer"):
        recorder(every=every)


@pytest.mark.parametrize(
    "groups", ["layer", {}, {"a": []}, {"a": [1]}, {"shared": "backbone"}, 3, ["backbone"]]
)
def test_groups_are_paths_by_name(groups):
    with pytest.raises(UserError, match=r"GradientRecorder\.groups"):
        GradientRecorder(groups=groups)


def test_a_level_is_one_of_two():
    with pytest.raises(UserError, match="level"):
        GradientRecorder(level="last_shared")
    with pytest.raises(UserError, match="groups: must not be given with the representation"):
        GradientRecorder(level="representation", groups="layers")


@pytest.mark.parametrize("rate", [0, -1.0, "0.1"])
def test_a_learning_rate_is_above_zero(rate):
    with pytest.raises(UserError, match="learning_rate"):
        Affinity(learning_rate=rate)


def test_a_group_names_modules(tmp_path):
    with pytest.raises(UserError, match=r"Did you mean 'backbone\.0'"):
        fit(tmp_path, system(), GradientRecorder(groups={"stem": "backbon.0"}))


def test_two_recorders_of_one_file_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"must have one recorder that writes losses\.parquet"):
        fit(tmp_path, system(), LossRecorder(), LossRecorder(every=2))


def test_the_representation_is_not_added_up(tmp_path):
    with pytest.raises(UserError, match="level: must be 'parameters'"):
        fit(tmp_path, system(), GradientRecorder(level="representation"), accumulate_grad_batches=2)


def test_a_criterion_without_losses_by_task_is_refused(tmp_path):
    class Own(nn.Module):
        def forward(self, outputs, targets):
            return sum((outputs[task] - targets[task]).square().mean() for task in TASKS)

    made = System(
        net(),
        Own(),
        functools.partial(torch.optim.SGD, lr=0.1),
        dataloaders={"train": DataLoader(batches(), batch_size=None)},
    )
    with pytest.raises(UserError, match="requires the losses by task"):
        fit(tmp_path, made, WeightRecorder())


def test_another_module_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"requires a polytask\.System"):
        LossRecorder().on_fit_start(pl.Trainer(logger=False, accelerator="cpu"), pl.LightningModule())


READERS = {
    "gradients": read_gradients,
    "weights": read_weights,
    "losses": read_losses,
    "affinity": read_affinity,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the records do not exist"),
        (b"", "an empty file"),
        (b"PAR1 not really", "damaged"),
        ("rows", "must have records"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, said):
    folder = tmp_path / "records"
    folder.mkdir()
    file = folder / f"{name}.parquet"
    if content == "rows":
        schema = {"gradients": GRADIENTS, "weights": WEIGHTS, "losses": LOSSES, "affinity": AFFINITY}[name]
        pq.write_table(schema.empty_table(), file)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        READERS[name](tmp_path)
    assert f"{name}.parquet" in str(caught.value)


def test_other_columns_are_named(tmp_path):
    (tmp_path / "records").mkdir()
    pq.write_table(
        LOSSES.empty_table().rename_columns(["step", "epoch", "task", "value"]),
        tmp_path / "records" / "losses.parquet",
    )
    with pytest.raises(UserError, match="must have the columns step, epoch, task, loss"):
        read_losses(tmp_path)


def test_weights_of_one_kind_alone_are_refused(tmp_path):
    (tmp_path / "records").mkdir()
    columns = {"step": [0], "epoch": [0], "task": ["a"], "weight": [1.0]}
    pq.write_table(pa.table(columns), tmp_path / "records" / "weights.parquet")
    said = "must have the columns step, epoch, task, weight, effective_weight"
    with pytest.raises(UserError, match=said):
        read_weights(tmp_path)
    with pytest.raises(UserError, match=said):
        fit(tmp_path, system(), WeightRecorder())


@pytest.mark.parametrize("kind", ["Own", None, True, 1])
def test_weights_are_of_two_kinds(tmp_path, kind):
    with pytest.raises(UserError, match=r"read_weights\.kind: must be effective or own"):
        read_weights(tmp_path, kind)


def test_a_resumed_run_does_not_go_on_in_a_damaged_file(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "losses.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        fit(tmp_path, system(), LossRecorder())


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_losses(tmp_path / "none")


def test_unknown_groups_and_forms_are_answered_with_known_ones(tmp_path):
    fit(tmp_path, system(), GradientRecorder(groups={"stem": "backbone.0"}), Affinity(lookahead=False))
    with pytest.raises(UserError, match="Did you mean 'stem'"):
        read_gradients(tmp_path, "sten")
    with pytest.raises(UserError, match="first_order"):
        read_affinity(tmp_path, "lookahead")


def test_one_task_alone(tmp_path):
    heads = {"a": TaskHead(4, 1)}
    made = System(
        HardParameterSharing(MLP(5, [6], 4), heads),
        MultiTaskLoss({"a": nn.MSELoss()}),
        functools.partial(torch.optim.SGD, lr=0.1),
        dataloaders={"train": DataLoader([(x, {"a": y["a"]}) for x, y in batches()], batch_size=None)},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*workers.*")
        fit(tmp_path, made, *all_recorders())
    found = read_gradients(tmp_path)
    assert found.values.shape == (4, 1, 1)
    assert np.isnan(found.conflict_rate).all()
