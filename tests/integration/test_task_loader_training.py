"""Tasks with data sets of their own: one step sums their losses, and a stopped run goes on exactly."""

import functools
import itertools
import json
import textwrap

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

from polytask import System, UserError
from polytask.callbacks import ExactResume
from polytask.data import (
    ArrayDataset,
    Proportional,
    RoundRobin,
    TaskLoader,
    Uniform,
    create_multitask_dataloader,
)
from polytask.gradients import Engine
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, MultiHead, MultiInput
from polytask.weighting import UW, UPGrad
from tests.training import quiet_trainer as trainer

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*number of training batches",
    "ignore:Checkpoint directory .* exists and is not empty",
)


def arrays(rows, seed):
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))
    return x, x.sum(1, keepdim=True), (x[:, 0] > 0).long()


def loaders(shuffle=True):
    x, height, _ = arrays(24, 1)
    other, _, kind = arrays(16, 2)
    return {
        "height": create_multitask_dataloader(x, {"height": height}, 6, shuffle, seed=5),
        "kind": DataLoader(TensorDataset(other, kind), 4, shuffle=shuffle),
    }


def model():
    torch.manual_seed(0)
    return MultiHead(
        nn.Sequential(MLP(4, [8], 8), nn.Dropout(0.2)), {"kind": nn.Linear(8, 2), "height": nn.Linear(8, 1)}
    )


def criterion(**options):
    return MultiTaskLoss({"kind": nn.CrossEntropyLoss(), "height": nn.MSELoss()}, **options)


def system(train, val=None, **options):
    return System(
        model(),
        criterion(**options),
        functools.partial(torch.optim.SGD, lr=0.05),
        metrics={"kind": MulticlassAccuracy(2, average="micro"), "height": MeanSquaredError()},
        dataloaders={"train": train} | ({} if val is None else {"val": val}),
    )


def parameters(run):
    return [parameter.detach().clone() for parameter in run.model.parameters()]


def test_a_step_sums_the_losses_of_its_tasks_own_batches():
    run = system(TaskLoader(loaders(), RoundRobin(), tasks_per_step=2, seed=0))
    torch.manual_seed(3)
    trainer().fit(run)

    by_hand = model()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05)
    losses = {"kind": nn.CrossEntropyLoss(), "height": nn.MSELoss()}
    torch.manual_seed(3)
    steps = 0
    for step in TaskLoader(loaders(), RoundRobin(), tasks_per_step=2, seed=0):
        total = 0.0
        for name, (x, target) in step.items():
            target = target[name] if isinstance(target, dict) else target
            total = total + losses[name](by_hand(x, name), target)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        steps += 1
    assert steps == run.trainer.global_step == 4
    for found, expected in zip(run.model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_an_epoch_of_evaluation_measures_every_row_once():
    run = system(None, TaskLoader(loaders(shuffle=False)))
    trainer().validate(run, verbose=False)
    x, height, _ = arrays(24, 1)
    other, _, kind = arrays(16, 2)
    with torch.no_grad():
        error = nn.functional.mse_loss(run.model.eval()(x, "height"), height)
        scores = run.model(other, "kind")
    found = run.latest
    assert found["val/height/MeanSquaredError/epoch"] == pytest.approx(float(error))
    assert found["val/loss/height/epoch"] == pytest.approx(float(error))
    assert found["val/kind/Accuracy/epoch"] == pytest.approx(float((scores.argmax(1) == kind).float().mean()))
    assert found["val/loss/kind/epoch"] == pytest.approx(float(nn.functional.cross_entropy(scores, kind)))


class Stop(pl.Callback):
    """Saves and ends after so many steps."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True
            trainer.limit_train_batches = trainer.fit_loop.max_batches = batch_idx + 1


@pytest.mark.parametrize("sampler", [Uniform(), Proportional(), RoundRobin()], ids=repr)
@pytest.mark.parametrize("stopped", [1, 5, 8, 9])
def test_a_run_that_was_stopped_goes_on_as_if_it_never_had(tmp_path, sampler, stopped):
    def make():
        pl.seed_everything(1, verbose=False)
        return system(TaskLoader(loaders(), sampler, epoch=8), weighting=UW())

    whole = make()
    trainer(max_epochs=3, callbacks=[ExactResume()]).fit(whole)

    first = make()
    path = tmp_path / "last.ckpt"
    trainer(max_epochs=3, callbacks=[ExactResume(), Stop(stopped, path)]).fit(first)
    again = make()
    torch.manual_seed(99)
    trainer(max_epochs=3, callbacks=[ExactResume()]).fit(again, ckpt_path=path, weights_only=False)
    assert again.trainer.global_step == whole.trainer.global_step == 24
    assert all(map(torch.equal, parameters(again), parameters(whole)))


def test_an_array_loader_goes_on_between_two_epochs(tmp_path):
    def make():
        pl.seed_everything(1, verbose=False)
        x, height, kind = arrays(24, 1)
        return system(create_multitask_dataloader(x, {"height": height, "kind": kind}, 5))

    whole = make()
    trainer(max_epochs=3, callbacks=[ExactResume()]).fit(whole)
    first = make()
    one = trainer(max_epochs=1, callbacks=[ExactResume()])
    one.fit(first)
    one.save_checkpoint(tmp_path / "epoch.ckpt")
    again = make()
    resumed = trainer(max_epochs=3, callbacks=[ExactResume()])
    resumed.fit(again, ckpt_path=tmp_path / "epoch.ckpt", weights_only=False)
    assert all(map(torch.equal, parameters(again), parameters(whole)))


def test_predictions_are_of_the_tasks_own_rows():
    x, *_ = arrays(6, 1)
    only = {name: DataLoader(ArrayDataset(x), 4) for name in ("kind", "height")}
    run = system(None)
    steps = trainer().predict(run, TaskLoader(only))
    assert [(list(step["outputs"]), step["size"]) for step in steps] == [
        (["kind"], 4),
        (["kind"], 2),
        (["height"], 4),
        (["height"], 2),
    ]
    assert torch.equal(steps[3]["outputs"]["height"], run.model.eval()(x[4:], "height"))


def test_labels_may_be_missing_in_a_tasks_own_batch():
    nothing = DataLoader(TensorDataset(torch.randn(4, 4), torch.full((4,), -100)), 4)
    given = {"height": loaders()["height"], "kind": nothing}
    run = system(TaskLoader({"height": given["height"], "kind": loaders()["kind"]}, Uniform(), seed=0))
    batch = next(iter(TaskLoader(given, RoundRobin(), tasks_per_step=2, seed=0)))
    adapted = run.adapt(batch, "train")
    assert list(adapted.targets) == ["height"]
    assert adapted.size == 10
    assert run.outputs(adapted)["kind"].shape == (4, 2)


def test_gradients_of_a_step_are_in_one_graph():
    backbone = MLP(4, [8], 8)
    net = MultiHead(backbone, {"kind": nn.Linear(8, 2), "height": nn.Linear(8, 1)})
    engine = Engine(net, UPGrad())
    run = System(net, criterion())
    for batch in itertools.islice(TaskLoader(loaders(), RoundRobin(), tasks_per_step=2, seed=0), 2):
        adapted = run.adapt(batch, "train")
        engine.backward(run.criterion.compute_task_losses(run.outputs(adapted), adapted.targets))
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert set(engine.weights) == {"kind", "height"}


def test_tasks_whose_inputs_differ_in_kind():
    table, height, _ = arrays(24, 1)
    images = torch.randn(16, 1, 6, 6)
    net = MultiInput(
        {"image": nn.Sequential(nn.Flatten(), nn.Linear(36, 8)), "table": nn.Linear(4, 8)},
        {"kind": nn.Linear(8, 2), "height": nn.Linear(8, 1)},
        shared=nn.Sequential(nn.ReLU(), nn.Linear(8, 8)),
        inputs={"kind": ["image"], "height": ["table"]},
    )
    kinds = (images.mean((1, 2, 3)) > 0).long()
    train = TaskLoader(
        {
            "height": create_multitask_dataloader({"table": table}, {"height": height}, 6, seed=0),
            "kind": create_multitask_dataloader({"image": images}, {"kind": kinds}, 4, seed=0),
        },
        RoundRobin(),
        tasks_per_step=2,
        seed=0,
    )
    run = System(net, criterion(), functools.partial(torch.optim.SGD, lr=0.1), dataloaders={"train": train})
    before = parameters(run)
    trainer(max_epochs=2).fit(run)
    assert run.criterion.measurement.last.names == ("kind", "height")
    assert not any(map(torch.equal, parameters(run), before))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            {"train": TaskLoader(loaders())},
            "dataloaders.train: must have a sampler that chooses the tasks of each step, got none. Pass",
        ),
        (
            {"train": loaders()["kind"], "val": TaskLoader(loaders(), Uniform())},
            "dataloaders.val: must yield the data of every task once, so without a sampler, got Uniform().",
        ),
        (
            {"train": TaskLoader({"knd": loaders()["kind"]}, Uniform())},
            "TaskLoader: no task is called 'knd'. Did you mean 'kind'?",
        ),
    ],
)
def test_what_a_stage_refuses(stages, message):
    run = System(model(), criterion(), functools.partial(torch.optim.SGD, lr=0.1), dataloaders=stages)
    with pytest.raises(UserError) as caught:
        trainer().fit(run)
    assert str(caught.value).startswith(message)


def test_two_processes_draw_the_same_tasks_and_see_every_row_once(tmp_path, forkserver):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import functools, json, os, pathlib, warnings
            import pytorch_lightning as pl
            import torch
            from torch import nn
            from polytask import System
            from polytask.data import TaskLoader, Uniform, create_multitask_dataloader
            from polytask.losses import MultiTaskLoss
            from polytask.models import MLP, MultiHead

            warnings.simplefilter("ignore")
            seen = []

            class Watch(pl.Callback):
                def on_train_batch_start(self, trainer, module, batch, index):
                    seen.append({name: batch.inputs[name][:, 0].tolist() for name in batch.inputs})

            def loaders(shuffle):
                x = torch.arange(21.0).view(21, 1).expand(21, 4).clone()
                return {
                    name: create_multitask_dataloader(x, {name: x[:, :1]}, 3, shuffle, seed=4)
                    for name in ("a", "b")
                }

            torch.manual_seed(0)
            model = MultiHead(MLP(4, [8], 8), {"a": nn.Linear(8, 1), "b": nn.Linear(8, 1)})
            system = System(
                model,
                MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}),
                functools.partial(torch.optim.SGD, lr=1e-4),
                dataloaders={"train": TaskLoader(loaders(True), Uniform(), epoch=5, seed=2),
                             "val": TaskLoader(loaders(False))},
            )
            trainer = pl.Trainer(
                accelerator="cpu", devices=2, strategy="ddp_find_unused_parameters_true", max_epochs=1,
                logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=[Watch()], num_sanity_val_steps=0,
            )
            trainer.fit(system)
            x = torch.arange(21.0).view(21, 1).expand(21, 4)
            error = lambda name: float(nn.functional.mse_loss(model.eval()(x, name), x[:, :1]))
            with torch.no_grad():
                expected = {name: error(name) for name in "ab"}
            logged = {name: system.latest[f"val/loss/{name}/epoch"] for name in "ab"}
            found = {"seen": seen, "logged": logged, "expected": expected}
            pathlib.Path(f"rank{trainer.global_rank}.json").write_text(json.dumps(found))
            """
        )
    )
    done = forkserver.run("script", cwd=tmp_path, warnings="default")
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [list(step) for step in ranks[0]["seen"]] == [list(step) for step in ranks[1]["seen"]]
    for name in ("a", "b"):
        one, other = ([row for step in rank["seen"] for row in step.get(name, [])] for rank in ranks)
        assert len(one) == len(set(one)) == len(other)
        assert not set(one) & set(other)
        assert ranks[0]["logged"][name] == pytest.approx(ranks[0]["expected"][name], rel=1e-5)
