"""Subclasses of `MultiTaskLoss` as the guide writes them, wherever a criterion may stand."""

import copy
import csv
import textwrap

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from polytask import System, UserError
from polytask.diagnostics import LossRecorder, WeightRecorder
from polytask.gradients import Engine
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer
from polytask.weighting import DWA, FAMO, UW, Equal, UPGrad
from tests.training import quiet_trainer

TASKS = ("height", "shape")


class OwnForward(MultiTaskLoss):
    """The guide's class, with a weight that is not 1."""

    def __init__(self, task_losses, custom_param=1.0, **options):
        super().__init__(task_losses, **options)
        self.custom_param = custom_param

    def forward(self, outputs, targets, return_dict=False):
        task_losses = self.compute_task_losses(outputs, targets)
        weighted_losses = {}
        for task_name, loss in task_losses.items():
            weight = self.compute_custom_weight(task_name)
            weighted_losses[task_name] = weight * loss
        total_loss = sum(weighted_losses.values())
        if return_dict:
            return total_loss, task_losses
        return total_loss

    def compute_custom_weight(self, task_name):
        return self.custom_param if task_name == "height" else 1.0


class LogSumExp(MultiTaskLoss):
    """A total whose weights differ from step to step: the softmax of the losses."""

    def forward(self, outputs, targets, return_dict=False):
        task_losses = self.compute_task_losses(outputs, targets)
        total = torch.stack(list(task_losses.values())).logsumexp(0)
        return (total, task_losses) if return_dict else total


class OwnLosses(MultiTaskLoss):
    """The losses of the base, one of them scaled."""

    def compute_task_losses(self, outputs, targets):
        losses = super().compute_task_losses(outputs, targets)
        return {name: 0.25 * loss if name == "height" else loss for name, loss in losses.items()}


class LossesAlone(MultiTaskLoss):
    """Losses that the base has no part in."""

    def compute_task_losses(self, outputs, targets):
        height = (outputs["height"] - targets["height"]).square().mean()
        return {
            "height": 0.25 * height,
            "shape": nn.functional.cross_entropy(outputs["shape"], targets["shape"]),
        }


class OwnWeights(MultiTaskLoss):
    """Weights that are reported only."""

    def get_task_weights(self):
        return dict.fromkeys(super().get_task_weights(), 7.0)


SCALED = {
    "forward": lambda **options: OwnForward(losses(), 0.25, **options),
    "losses": lambda **options: OwnLosses(losses(), **options),
    "losses alone": lambda **options: LossesAlone(losses(), **options),
    "loss_weights": lambda **options: MultiTaskLoss(losses(), {"height": 0.25}, **options),
}


def losses():
    return {"height": nn.MSELoss(), "shape": nn.CrossEntropyLoss()}


def model():
    torch.manual_seed(0)
    return create_hard_sharing_model(
        MLP(4, [8], 8), {"height": {"output_dim": 1}, "shape": {"output_dim": 3}}
    )


def batches():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 4, generator=generator)
    shape = torch.randint(0, 3, (24,), generator=generator)
    return [
        (x[i : i + 8], {"height": x[i : i + 8].sum(1, True), "shape": shape[i : i + 8]}) for i in (0, 8, 16)
    ]


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, i):
        x, targets = batches()[i // 8]
        return x[i % 8], {task: target[i % 8] for task, target in targets.items()}


def by_hand(criterion):
    net = model()
    optimizer = torch.optim.SGD([*net.parameters(), *criterion.parameters()], lr=0.05)
    for x, targets in batches():
        optimizer.zero_grad()
        criterion(net(x), targets).backward()
        optimizer.step()
    return net


def with_engine(criterion):
    net = model()
    engine = Engine(net, criterion.weighting)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for x, targets in batches():
        optimizer.zero_grad()
        engine.backward(criterion(net(x), targets, return_dict=True)[1])
        optimizer.step()
    return net


def with_trainer(criterion):
    net = model()
    optimizer = torch.optim.SGD([*net.parameters(), *criterion.parameters()], lr=0.05)
    trainer = MultiTaskTrainer(net, criterion, optimizer)
    trainer.train_epoch(batches(), verbose=False)
    return net


def fitted(criterion, folder, *callbacks):
    net = model()
    system = System(
        net,
        criterion,
        lambda parameters: torch.optim.SGD(parameters, lr=0.05),
        dataloaders={"train": DataLoader(Rows(), batch_size=8)},
    )
    quiet_trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
    ).fit(system)
    return system


def same(first, second):
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[name], msg=name)


@pytest.mark.parametrize("kind", ["forward", "losses", "losses alone"])
def test_plain_backward_is_that_of_scaled_losses(kind):
    same(by_hand(SCALED[kind]()), by_hand(SCALED["loss_weights"]()))


@pytest.mark.parametrize("weighting", [DWA, UPGrad])
@pytest.mark.parametrize("kind", ["forward", "losses", "losses alone"])
def test_a_trainer_and_a_system_make_the_steps_of_an_own_loop(kind, weighting, tmp_path):
    expected = (with_engine if weighting is UPGrad else by_hand)(SCALED[kind](weighting=weighting()))
    same(with_trainer(SCALED[kind](weighting=weighting())), expected)
    same(fitted(SCALED[kind](weighting=weighting()), tmp_path).model, expected)


@pytest.mark.parametrize("kind", ["losses", "losses alone"])
def test_a_weighting_sees_the_losses_of_the_subclass(kind, tmp_path):
    """FAMO learns from the losses of each step, before and after it."""
    systems = [fitted(SCALED[key](weighting=FAMO(lr=0.1)), tmp_path / key) for key in (kind, "loss_weights")]
    same(*(system.model for system in systems))
    same(*(system.criterion.weighting for system in systems))


@pytest.mark.parametrize("kind", ["forward", "losses", "losses alone"])
def test_a_weighting_by_gradients_is_never_silently_equal(kind):
    criterion, net = SCALED[kind](weighting=UPGrad()), model()
    x, targets = batches()[0]
    criterion(net(x), targets).backward()
    with pytest.raises(UserError, match="UPGrad requires gradients of the parameters by task"):
        criterion(net(x), targets)


class TotalAlone(MultiTaskLoss):
    """Its forward returns no losses by task."""

    def forward(self, outputs, targets):
        return sum(self.compute_task_losses(outputs, targets).values())


def test_a_total_alone_is_enough_for_a_loss_weighting():
    same(with_trainer(TotalAlone(losses(), weighting=DWA())), by_hand(MultiTaskLoss(losses())))


def test_a_weighting_by_gradients_requires_the_losses_by_task():
    with pytest.raises(UserError, match=r"^criterion: must return the losses by task.*from TotalAlone"):
        with_trainer(TotalAlone(losses(), weighting=UPGrad()))


@pytest.mark.parametrize("kind", ["losses", "losses alone"])
def test_records_show_the_losses_of_the_subclass(kind, tmp_path):
    for key in (kind, "loss_weights"):
        fitted(SCALED[key](), tmp_path / key, LossRecorder(every=1, folder=tmp_path / key))
    ours, plain = (
        pq.read_table(tmp_path / key / "losses.parquet").to_pylist() for key in (kind, "loss_weights")
    )
    for one, other in zip(ours, plain, strict=True):
        factor = 0.25 if one["task"] == "height" else 1.0
        assert one["loss"] == pytest.approx(factor * other["loss"])


@pytest.mark.parametrize("options", [{}, {"loss_weights": {"shape": 2.0}}, {"weighting": UW()}], ids=str)
def test_weights_of_an_own_forward_are_derived_from_its_total(options, tmp_path):
    recorder = WeightRecorder(every=1, folder=tmp_path)
    criterion = OwnForward(losses(), 0.25, **options)
    fitted(criterion, tmp_path, recorder)
    assert criterion.get_task_weights() == {"height": 0.25, "shape": 1.0}
    rows = pq.read_table(tmp_path / "weights.parquet").to_pylist()
    assert {(row["task"], row["effective_weight"]) for row in rows} == {("height", 0.25), ("shape", 1.0)}


def test_derived_weights_are_those_of_the_last_losses(tmp_path):
    criterion = LogSumExp(losses())
    system = fitted(criterion, tmp_path)
    x, targets = batches()[0]
    _, values = criterion(system.model(x), targets, return_dict=True)
    expected = torch.stack(list(values.values())).softmax(0)
    weights = criterion.get_task_weights()
    torch.testing.assert_close(torch.tensor([weights["height"], weights["shape"]]), expected)
    # A validation has no graph to derive weights from.
    with torch.no_grad():
        criterion(system.model(-x), targets, return_dict=True)
    assert criterion.get_task_weights() == weights


class Stated(MultiTaskLoss):
    """A total of given weights; what it returns besides is up to `given`."""

    given = staticmethod(lambda total, losses: (total, losses))

    def forward(self, outputs, targets, return_dict=False):
        losses = self.compute_task_losses(outputs, targets)
        return self.given(5 * losses["height"] + 0.1 * losses["shape"], losses)


class StatedLosses(Stated):
    given = staticmethod(lambda total, losses: total)

    def compute_task_losses(self, outputs, targets):
        return {name: 2 * loss for name, loss in super().compute_task_losses(outputs, targets).items()}


def stated(given):
    return type("OfTotal", (Stated,), {"given": staticmethod(given)})


@pytest.mark.parametrize("weighting", [Equal, DWA, UW])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Stated, {"height": 5.0, "shape": 0.1}),
        (stated(lambda total, losses: total), {"height": 5.0, "shape": 0.1}),
        (stated(lambda total, losses: (total, {k: v.detach() for k, v in losses.items()})), {}),
        (stated(lambda total, losses: (total, {"height": losses["height"]})), {"height": 5.0}),
        # What an override of the losses returned is not known from a total alone.
        (StatedLosses, {}),
    ],
    ids=["both", "total alone", "detached", "one task", "other losses"],
)
def test_weights_are_those_of_the_total_or_none(kind, expected, weighting, tmp_path):
    criterion = kind(losses(), weighting=weighting())
    assert criterion.get_task_weights() == {}
    x, targets = batches()[0]
    result = criterion(model()(x), targets)
    (result[0] if isinstance(result, tuple) else result).backward()
    assert criterion.get_task_weights() == pytest.approx(expected)
    copy.deepcopy(criterion)
    system = fitted(kind(losses(), weighting=weighting()), tmp_path, WeightRecorder(every=1, folder=tmp_path))
    assert system.criterion.get_task_weights() == pytest.approx(expected)
    file = tmp_path / "weights.parquet"
    assert file.exists() == bool(expected)
    rows = pq.read_table(file).to_pylist() if expected else []
    assert {row["task"]: row["effective_weight"] for row in rows} == pytest.approx(expected)


def test_a_call_that_fails_keeps_no_graph():
    criterion = stated(lambda total, losses: 1 / 0)(losses())
    x, targets = batches()[0]
    with pytest.raises(ZeroDivisionError):
        criterion(model()(x), targets)
    copy.deepcopy(criterion)


def test_a_task_that_the_total_leaves_out_has_no_weight():
    class First(MultiTaskLoss):
        def forward(self, outputs, targets, return_dict=False):
            task_losses = self.compute_task_losses(outputs, targets)
            return 3 * task_losses["height"], task_losses

    criterion = First(losses())
    x, targets = batches()[0]
    criterion(model()(x), targets)
    assert criterion.get_task_weights() == {"height": 3.0}


@pytest.mark.parametrize("weighting", [DWA, UPGrad])
def test_reported_weights_are_those_of_the_subclass(weighting, tmp_path):
    criterion = OwnWeights(losses(), {"shape": 2.0}, weighting=weighting())
    system = fitted(criterion, tmp_path, WeightRecorder(every=1, folder=tmp_path))
    assert system.criterion.get_task_weights() == {"height": 7.0, "shape": 7.0}
    rows = pq.read_table(tmp_path / "weights.parquet").to_pylist()
    assert {(row["task"], row["weight"], row["effective_weight"]) for row in rows} == {
        ("height", 7.0, 7.0),
        ("shape", 3.5, 7.0),
    }
    # The total is that of the base.
    plain = MultiTaskLoss(losses(), {"shape": 2.0}, weighting=weighting())
    same(system.model, fitted(plain, tmp_path / "plain").model)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"hieght": torch.ones(())}, "no task is called 'hieght'. Did you mean 'height'"),
        (
            {"height": torch.ones(2)},
            "must return a scalar tensor for task 'height', got a tensor of shape (2,)",
        ),
        ({"height": 1.0}, "must return a scalar tensor for task 'height', got 1.0"),
    ],
)
def test_what_compute_task_losses_may_not_return(change, rule):
    class Wrong(MultiTaskLoss):
        def compute_task_losses(self, outputs, targets):
            return change

    with pytest.raises(UserError) as caught:
        Wrong(losses())(None, None)
    assert str(caught.value).startswith("Wrong.compute_task_losses: ")
    assert rule in str(caught.value)


CRITERIA = """
    from polytask.losses import MultiTaskLoss

    class Forward(MultiTaskLoss):
        def forward(self, outputs, targets, return_dict=False):
            losses = self.compute_task_losses(outputs, targets)
            total = sum(losses.values())
            return (total, losses) if return_dict else total

    class Losses(MultiTaskLoss):
        def compute_task_losses(self, outputs, targets):
            return {name: 2 * loss for name, loss in super().compute_task_losses(outputs, targets).items()}

    class Weights(MultiTaskLoss):
        def get_task_weights(self):
            return {"shape": 7.0, "height": 7.0}
"""


@pytest.mark.parametrize("name", ["Forward", "Losses", "Weights"])
@pytest.mark.parametrize("method", ["DWA", "UPGrad"])
def test_a_config_names_the_subclass(cli, demo, name, method):
    (demo / "criteria.py").write_text(textwrap.dedent(CRITERIA))
    result = cli(
        "fit",
        "config.yaml",
        f"system.criterion._target_=criteria.{name}",
        f"system.criterion.weighting={{_target_: polytask.weighting.{method}}}",
        "trainer.max_epochs=1",
        "trainer.log_every_n_steps=1",
        "--quiet",
    )
    assert (result.code, result.err) == (0, "")
    with (result.run / "metrics.csv").open() as file:
        weights = [row["weights/shape"] for row in csv.DictReader(file) if row["weights/shape"]]
    assert weights
    if name == "Weights":
        assert {float(weight) for weight in weights} == {7.0}
