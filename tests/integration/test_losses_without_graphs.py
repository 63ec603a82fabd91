"""A training in which nothing, or a task, would never learn ends with its name, from every entrance."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from polytask import System, UserError
from polytask.gradients import Engine
from polytask.losses import MultiTaskLoss
from polytask.trainer import MultiTaskTrainer
from polytask.weighting import UW, Equal, UPGrad
from tests.training import quiet_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


class Lossy(nn.Module):
    """Loses the graph of some tasks, from a call on."""

    task_names = ("a", "b")

    def __init__(self, lost=("a", "b"), calls=0, how="detach"):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 4)
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in self.task_names})
        self.lost, self.left, self.how = lost, calls, how

    def forward(self, x):
        self.left -= 1
        outputs = {}
        for name, head in self.heads.items():
            if name not in self.lost or self.left >= 0:
                outputs[name] = head(self.body(x))
            elif self.how == "detach":
                outputs[name] = head(self.body(x)).detach()
            elif self.how == "no_grad":
                with torch.no_grad():
                    outputs[name] = head(self.body(x))
            else:
                # A graph to the inputs alone, as derivatives by them need.
                outputs[name] = x.clone().requires_grad_()[:, :1] * 2
        return outputs


WAYS = {
    "all, at once": {},
    "all, from the third step on": {"calls": 2},
    "one": {"lost": ("a",)},
    "one, from the third step on": {"lost": ("a",), "calls": 2},
    "without gradients": {"how": "no_grad"},
    "of inputs alone": {"how": "inputs"},
}
NAMES = {
    "all, at once": "tasks 'a', 'b'",
    "all, from the third step on": "tasks 'a', 'b'",
    "one": "task 'a'",
    "one, from the third step on": "task 'a'",
    "without gradients": "tasks 'a', 'b'",
    "of inputs alone": "total loss",
}
RULE = "the loss must depend on a parameter that is trained"
ROWS = [(torch.ones(3) * row, {"a": torch.ones(1), "b": torch.zeros(1)}) for row in range(20)]


def criterion(weighting):
    return MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}, weighting=weighting)


def system(model, weighting=None, **options):
    return System(model, criterion(weighting or Equal()), partial(torch.optim.SGD, lr=0.01), **options)


@pytest.mark.parametrize("weighting", [Equal, UW, UPGrad])
@pytest.mark.parametrize("way", WAYS)
def test_a_system_refuses_them(way, weighting):
    with pytest.raises(UserError) as error:
        quiet_trainer().fit(system(Lossy(**WAYS[way]), weighting()), DataLoader(ROWS, 4))
    expected = f"{NAMES[way]}: {RULE}, got "
    if way == "of inputs alone" and weighting is UPGrad:
        expected = "model: must have parameters that the tasks a, b share"
    assert str(error.value).startswith(expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_trainer_on_arrays_refuses_them(way):
    loss, model = criterion(Equal()), Lossy(**WAYS[way])
    trainer = MultiTaskTrainer(model, loss, torch.optim.SGD(model.parameters(), lr=0.01))
    with pytest.raises(UserError) as error:
        trainer.fit(DataLoader(ROWS, 4), epochs=1, verbose=False)
    assert str(error.value).startswith(f"{NAMES[way]}: {RULE}, got ")


def test_a_total_of_another_criterion_is_refused():
    class Total(nn.Module):
        def forward(self, outputs, targets):
            return sum((outputs[name] - targets[name]).square().mean() for name in outputs)

    ours = System(Lossy(), Total(), partial(torch.optim.SGD, lr=0.01))
    with pytest.raises(UserError, match=f"^total loss: {RULE}, got one without a gradient"):
        quiet_trainer().fit(ours, DataLoader(ROWS, 4))


def test_losses_that_are_returned_for_the_logs_need_no_graph():
    class Detached(MultiTaskLoss):
        def forward(self, outputs, targets, return_dict=False):
            losses = self.compute_task_losses(outputs, targets)
            total = torch.stack(list(losses.values())).sum()
            shown = {name: loss.detach() for name, loss in losses.items()}
            return (total, shown) if return_dict else total

    loss = Detached({"a": nn.MSELoss(), "b": nn.MSELoss()})
    ours = System(Lossy(lost=()), loss, partial(torch.optim.SGD, lr=0.01))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weights.*")
        quiet_trainer().fit(ours, DataLoader(ROWS, 4))


@pytest.mark.parametrize("weighting", [Equal, UPGrad])
def test_an_own_loop_refuses_them(weighting):
    model = Lossy(lost=("a",))
    engine = Engine(model, weighting(), tasks=["a", "b"])
    outputs = model(torch.ones(4, 3))
    with pytest.raises(UserError, match="task 'a': the loss must be a scalar with a graph"):
        engine.backward({name: output.square().mean() for name, output in outputs.items()})


@pytest.mark.parametrize("weighting", [Equal, UW])
def test_a_criterion_in_an_own_loop_names_a_task_that_rests(weighting):
    model, loss = Lossy(lost=("a",)), criterion(weighting())
    x, targets = torch.ones(4, 3), {name: torch.ones(4, 1) for name in "ab"}

    def train():
        for _ in range(2):
            loss(model(x), targets).backward()

    with pytest.warns(UserWarning, match="task 'a' is not trained") as caught:
        train()
    assert len(caught) == 1


@pytest.mark.parametrize("weighting", [Equal, UW, UPGrad])
def test_a_task_that_rests_on_purpose_is_named_once(weighting):
    """Its head and all that it shares are frozen."""
    model = Lossy(lost=())
    model.body.requires_grad_(False)
    model.heads["a"].requires_grad_(False)
    with pytest.warns(UserWarning, match="task 'a' is not trained: its loss depends on frozen") as caught:
        quiet_trainer(max_epochs=2).fit(system(model, weighting()), DataLoader(ROWS, 4))
    assert len([one for one in caught if "is not trained" in str(one.message)]) == 1


def test_a_model_without_a_trained_parameter_is_refused():
    model = Lossy(lost=())
    model.requires_grad_(False)
    with pytest.raises(UserError, match="optimizer: requires parameters to train"):
        quiet_trainer().fit(system(model), DataLoader(ROWS, 4))


def test_a_batch_without_labels_is_no_fault():
    rows = [(x, {name: y * torch.nan for name, y in targets.items()}) for x, targets in ROWS[:4]] + ROWS
    ours = system(Lossy(lost=()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*returned `None`.*")
        quiet_trainer().fit(ours, DataLoader(rows, 4))
    assert ours.skipped == 1


@pytest.mark.slow
def test_the_command_refuses_them(cli, demo):
    text = (demo / "net.py").read_text()
    (demo / "net.py").write_text(text.replace("head(h) for", "head(h).detach() for"))
    result = cli("fit", "config.yaml")
    assert result.code == 2
    assert result.err.startswith(
        f"error: tasks 'shape', 'height': {RULE}, got one without a gradient. Remove"
    )
