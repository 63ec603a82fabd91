"""Parts that are kept, let go of in time, resumed, and left as they were found."""

import functools
import itertools

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from polytask import UserError
from polytask.callbacks import Freezer, LogExpertLoad
from polytask.losses import MultiTaskLoss
from polytask.models import MLP, MMoE, MultiHead
from polytask.system import System
from polytask.weighting import UPGrad
from tests.training import quiet_trainer

STEPS = 3


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.low = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.high = nn.Linear(4, 4)

    def forward(self, x):
        return self.high(self.drop(self.norm(self.low(x))))


class Watch(pl.Callback):
    """What was trained at each step, and which modules were in training."""

    def __init__(self):
        self.trained, self.training = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.model.named_parameters()
        self.trained.append({name for name, parameter in named if parameter.grad is not None})
        self.training.append({name for name, module in pl_module.model.named_modules() if module.training})


def system(model=None):
    torch.manual_seed(0)
    model = model or MultiHead(Backbone(), {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    losses = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()})
    return System(model, losses, functools.partial(torch.optim.AdamW, lr=0.1, weight_decay=0.1))


def loader():
    x = torch.randn(4 * STEPS, 4, generator=torch.Generator().manual_seed(0))
    rows = TensorDataset(x, x[:, :1], x[:, 1:2])

    def collate(items):
        x, a, b = map(torch.stack, zip(*items, strict=True))
        return x, {"a": a, "b": b}

    return DataLoader(rows, 4, collate_fn=collate)


def trainer(*callbacks, epochs=2, **options):
    return quiet_trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        **options,
    )


def fit(*freezers, model=None, epochs=2, **options):
    watch, own = Watch(), system(model)
    before = {name: value.clone() for name, value in own.model.state_dict().items()}
    trainer(*freezers, watch, epochs=epochs, **options).fit(own, loader())
    after = own.model.state_dict()
    return watch, own, {name for name in after if not torch.equal(after[name], before[name])}


def parts(trained):
    return {".".join(name.split(".")[:2]) for name in trained}


HEADS = {"heads.task_a", "heads.task_b"}


def test_what_is_frozen_for_good_does_not_change_not_even_by_weight_decay():
    watch, own, changed = fit(Freezer(["backbone"]))
    assert parts(changed) == HEADS
    assert [parts(trained) for trained in watch.trained] == [HEADS] * 2 * STEPS
    assert all(parameter.requires_grad for parameter in own.model.parameters())


def test_a_frozen_part_is_in_evaluation_mode_and_the_rest_in_training():
    watch, own, _ = fit(Freezer(["backbone"]))
    assert all(not any(name.startswith("backbone") for name in names) for names in watch.training)
    assert all("heads.task_a" in names for names in watch.training)
    assert all(module.training for module in own.model.modules())


def test_validation_does_not_wake_a_frozen_part():
    class Validated(System):
        def val_dataloader(self):
            return loader()

    own, watch = system(), Watch()
    own.__class__ = Validated
    trainer(Freezer(["backbone"]), watch).fit(own, loader())
    assert all(not any(name.startswith("backbone") for name in names) for names in watch.training)


@pytest.mark.parametrize("until", [{"until_epoch": 1}, {"until_step": STEPS}])
def test_until_an_epoch_or_a_step(until):
    watch, _, changed = fit(Freezer(["backbone"], **until))
    assert [parts(trained) for trained in watch.trained[:STEPS]] == [HEADS] * STEPS
    assert all("backbone.low" in parts(trained) for trained in watch.trained[STEPS:])
    assert all("backbone.drop" in names for names in watch.training[STEPS:])
    assert parts(changed) == HEADS | {"backbone.low", "backbone.norm", "backbone.high"}


def test_until_a_step_in_the_middle_of_an_epoch():
    watch, _, _ = fit(Freezer(["backbone"], until_step=2), epochs=1)
    assert ["backbone.low" in parts(trained) for trained in watch.trained] == [False, False, True]


def test_steps_are_the_optimizers():
    watch, _, _ = fit(Freezer(["backbone"], until_step=1), accumulate_grad_batches=2)
    assert ["backbone.low" in parts(trained) for trained in watch.trained] == [False, True, True, True]


def test_zero_means_not_at_all():
    watch, _, _ = fit(Freezer(["backbone"], until_epoch=0), epochs=1)
    assert all("backbone.low" in parts(trained) for trained in watch.trained)


def test_exceptions_are_trained():
    watch, _, changed = fit(Freezer(["backbone", "heads.a"], exceptions=["backbone.high"]))
    assert parts(changed) == {"backbone.high", "heads.task_b"}
    assert "backbone.norm" not in watch.training[0]
    assert "backbone.high" in watch.training[0]


@pytest.mark.parametrize("turn", [slice(None), slice(None, None, -1)])
def test_what_several_hold_is_trained_when_the_last_lets_go(turn):
    freezers = [Freezer(["backbone"], until_step=1), Freezer(["backbone.low"], until_step=2)][turn]
    watch, _, _ = fit(*freezers, epochs=1)
    found = [parts(trained) & {"backbone.low", "backbone.high"} for trained in watch.trained]
    assert found == [set(), {"backbone.high"}, {"backbone.low", "backbone.high"}]
    assert ["backbone.low" in names for names in watch.training] == [False, False, True]


def test_what_was_frozen_before_stays_so():
    model = MultiHead(Backbone(), {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    model.backbone.low.requires_grad_(False)
    _, own, changed = fit(Freezer(["backbone"], until_step=1), model=model)
    assert "backbone.low" not in parts(changed)
    assert not own.model.backbone.low.weight.requires_grad


@pytest.mark.filterwarnings("ignore:task 'b' is not trained")
def test_a_resumed_run_goes_on_as_it_was(tmp_path):
    def freezers():
        return [Freezer(["backbone"], until_step=STEPS + 1), Freezer(["heads.b"], until_epoch=1)]

    def make():
        model = MultiHead(MLP(4, [4], 4), {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
        return system(model)

    torch.manual_seed(0)
    whole = make()
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    trainer(*freezers(), epochs=3).fit(whole, loader())

    half = make()
    half.load_state_dict(state)
    first = trainer(*freezers(), epochs=1)
    first.fit(half, loader())
    first.save_checkpoint(tmp_path / "half.ckpt")
    rest, watch = make(), Watch()
    trainer(*freezers(), watch, epochs=3).fit(rest, loader(), ckpt_path=tmp_path / "half.ckpt")
    assert "backbone.layers" not in parts(watch.trained[0])
    assert "heads.task_b" in parts(watch.trained[0])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name]), name


def test_a_failed_fit_leaves_the_model_trainable():
    class Failing(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            raise RuntimeError("stop")

    own = system()
    with pytest.raises(RuntimeError, match="stop"):
        trainer(Freezer(["backbone"]), Failing()).fit(own, loader())
    assert all(parameter.requires_grad for parameter in own.model.parameters())


def test_it_serves_any_lightning_module():
    class Plain(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.Linear(4, 4), nn.Linear(4, 1)

        def training_step(self, batch, batch_idx):
            return self.high(self.low(batch[0])).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    own = Plain()
    before = own.low.weight.clone(), own.high.weight.clone()
    trainer(Freezer(["low"])).fit(own, loader())
    assert torch.equal(own.low.weight, before[0])
    assert not torch.equal(own.high.weight, before[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("backbone",), r"Freezer.names: must be a list of names, got 'backbone'. Write \[backbone\]"),
        (([],), "Freezer.names: must name at least one part"),
        (([1],), "Freezer.names: must be a list of names, got 1"),
        ((["backbone"], "heads"), "Freezer.exceptions: must be a list of names"),
        ((["backbone"], (), -1), "Freezer.until_epoch: must be an integer of at least 0, got -1"),
        ((["backbone"], (), None, 1.5), "Freezer.until_step: must be an integer of at least 0, got 1.5"),
        ((["backbone"], (), True), "Freezer.until_epoch: must be an integer"),
    ],
)
def test_an_argument_that_cannot_be_used(arguments, message):
    with pytest.raises(UserError, match=message):
        Freezer(*arguments)


@pytest.mark.parametrize(
    ("freezer", "message"),
    [
        (Freezer(["bakbone"]), "Freezer.names: .* got 'bakbone'. Did you mean 'backbone'"),
        (Freezer(["backbone"], ["backbone.hihg"]), "Freezer.exceptions: .*Did you mean 'backbone.high'"),
        (Freezer(["back"]), "Freezer.names"),
        (Freezer(["backbone", "heads"]), "must leave a parameter to train"),
    ],
    ids=["name", "exception", "half a name", "everything"],
)
def test_what_cannot_be_frozen(freezer, message):
    with pytest.raises(UserError, match=message):
        trainer(freezer).fit(system(), loader())


# LogExpertLoad


class Logged(pl.Callback):
    def __init__(self):
        self.values = []

    def on_train_end(self, trainer, pl_module):
        self.values.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def test_loads_are_logged_each_epoch():
    model = MMoE(functools.partial(MLP, 4, [], 4), {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)}, 4, 3)
    logged = Logged()
    trainer(LogExpertLoad(), logged).fit(system(model), loader())
    (values,) = logged.values
    keys = [f"experts/{task}/expert{i}" for task, i in itertools.product("ab", range(3))]
    assert [key for key in values if key.startswith("experts")] == keys
    assert sum(values[key] for key in keys[:3]) == pytest.approx(1)


def test_loads_need_experts():
    with pytest.raises(UserError, match="must have gates"):
        trainer(LogExpertLoad()).fit(system(), loader())


@pytest.mark.parametrize("level", ["parameters", "representation", "last_shared"])
def test_a_backbone_that_is_let_go_is_weighed_at_every_level(level):
    torch.manual_seed(0)
    model = MultiHead(Backbone(), {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    losses = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()}, weighting=UPGrad())
    own = System(model, losses, functools.partial(torch.optim.AdamW, lr=0.1), level=level)
    watch = Watch()
    trainer(Freezer(["backbone"], until_step=2), watch, epochs=1).fit(own, loader())
    heads = {f"heads.task_{task}.{name}" for task in "ab" for name in ("weight", "bias")}
    assert [trained & heads for trained in watch.trained] == [watch.trained[0]] * 3
    assert watch.trained[2] == {name for name, _ in model.named_parameters()}
    assert set(own.task_backward.engine.weights) == {"a", "b"}
