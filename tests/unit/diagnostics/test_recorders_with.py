"""Recorders beside every weighting, and beside what makes steps unusual."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from polytask.adapters import BatchAdapter
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
from polytask.losses import MultiTaskLoss
from polytask.models import MultiHead
from polytask.system import System
from polytask.weighting import UW, Equal, UPGrad
from tests.cases import TASKS, WEIGHTINGS
from tests.training import quiet_trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*smaller than the logging interval.*",
    "ignore::polytask.weighting.SolverWarning",
)


def recorders():
    return [GradientRecorder(every=1), Affinity(every=2), WeightRecorder(every=1), LossRecorder(every=1)]


def batches(count=6):
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(6, 4, generator=generator),
            {task: torch.randn(6, 1, generator=generator) for task in TASKS},
        )
        for _ in range(count)
    ]


def net():
    torch.manual_seed(0)
    return MultiHead(nn.Sequential(nn.Linear(4, 6), nn.Tanh()), {task: nn.Linear(6, 1) for task in TASKS})


def train(folder, weighting, callbacks, data=None, adapters=None, **options):
    made = System(
        net(),
        MultiTaskLoss({task: nn.MSELoss() for task in TASKS}, weighting=weighting),
        functools.partial(torch.optim.SGD, lr=0.05),
        adapters=adapters,
        dataloaders={"train": DataLoader(data or batches(), batch_size=None)},
    )
    trainer = quiet_trainer(
        default_root_dir=folder,
        callbacks=callbacks,
        log_every_n_steps=2,
        **options,
    )
    torch.manual_seed(0)
    trainer.fit(made)
    return made


def built(case):
    """A method that draws begins with the same draws every time."""
    torch.manual_seed(0)
    return case.build()


@pytest.mark.parametrize("case", WEIGHTINGS, ids=str)
def test_every_weighting_is_recorded_and_not_disturbed(tmp_path, case):
    together = case.build().batches_per_step
    options = {"accumulate_grad_batches": together} if together > 1 else {}
    plain = train(tmp_path / "plain", built(case), [], **options)
    made = train(tmp_path / "run", built(case), recorders(), **options)
    torch.testing.assert_close(made.state_dict(), plain.state_dict(), rtol=0, atol=0, equal_nan=True)
    steps = list(range(6 // together))
    found = read_gradients(tmp_path / "run")
    assert found.steps.tolist() == steps
    assert np.isfinite(found.values).all()
    assert read_weights(tmp_path / "run").steps.tolist() == steps
    assert np.isfinite(read_losses(tmp_path / "run").values).all()
    assert np.isfinite(read_affinity(tmp_path / "run").values).all()


@pytest.mark.parametrize("weighting", [Equal, UPGrad])
def test_mixed_precision(tmp_path, weighting):
    train(tmp_path, weighting(), recorders(), precision="bf16-mixed")
    assert np.isfinite(read_gradients(tmp_path).values).all()
    ahead, first = (read_affinity(tmp_path, form).values for form in ("lookahead", "first_order"))
    assert np.isfinite(ahead).all()
    assert np.sign(np.diagonal(ahead)).tolist() == np.sign(np.diagonal(first)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("weighting", [Equal, UPGrad])
def test_rows_of_a_task_each(tmp_path, weighting):
    """Where the batch carries task ids, the tasks' graphs meet in the parameters alone."""

    def routed(batch):
        x, targets = batch
        ids = torch.arange(6) % 3
        return x, torch.stack([targets[TASKS[i]][row] for row, i in enumerate(ids.tolist())]), ids

    adapters = {"batch": BatchAdapter(input_accessor=0, target_accessor=1, task_accessor=2)}
    data = [routed(batch) for batch in batches()]
    train(tmp_path, weighting(), recorders(), data=data, adapters=adapters)
    found = read_gradients(tmp_path)
    model, (x, y, ids) = net(), data[0]
    rows = []
    for place, task in enumerate(TASKS):
        loss = nn.functional.mse_loss(model(x[ids == place])[task], y[ids == place])
        gradients = torch.autograd.grad(loss, list(model.backbone.parameters()))
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    jacobian = torch.stack(rows)
    np.testing.assert_allclose(found.values[0], (jacobian @ jacobian.mT).numpy(), rtol=1e-4, atol=1e-7)
    assert np.isfinite(read_affinity(tmp_path).values).all()


def test_skipped_steps_leave_no_rows(tmp_path):
    data = batches()
    data[3] = (data[3][0], {task: torch.full((6, 1), torch.nan) for task in TASKS})
    train(tmp_path, UW(), recorders(), data=data)
    for found in (read_losses(tmp_path), read_gradients(tmp_path)):
        assert found.steps.tolist() == [0, 1, 2, 4, 5]


def test_recorders_can_be_copied_and_pickled():
    for recorder in recorders():
        again = pickle.loads(pickle.dumps(copy.deepcopy(recorder)))
        assert (again.every, again.folder, again.file) == (recorder.every, None, recorder.file)
