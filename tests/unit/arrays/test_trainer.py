import pickle
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from polytask import RunError, UserError
from polytask.gradients import Engine
from polytask.losses import DynamicWeightAverage, MultiTaskLoss, UncertaintyWeighting
from polytask.metrics import accuracy
from polytask.models import MLP, create_hard_sharing_model
from polytask.trainer import MultiTaskTrainer
from polytask.weighting import UW, GradNorm, PCGrad, UPGrad

HEADS = {"height": {"output_dim": 1}, "shape": {"output_dim": 3}}


def losses():
    return {"height": nn.MSELoss(), "shape": nn.CrossEntropyLoss()}


def model(seed=0):
    torch.manual_seed(seed)
    return create_hard_sharing_model(MLP(4, [8], 8), HEADS)


def data(rows=24, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator)
    return x, {"height": x.sum(1, keepdim=True), "shape": torch.randint(0, 3, (rows,), generator=generator)}


def batches(size=8):
    x, targets = data()
    return [
        (x[i : i + size], {task: target[i : i + size] for task, target in targets.items()})
        for i in range(0, len(x), size)
    ]


def trainer(loss_fn=None, lr=0.05, optimizer=torch.optim.SGD, **options):
    net, loss_fn = model(), MultiTaskLoss(losses()) if loss_fn is None else loss_fn
    return MultiTaskTrainer(
        net, loss_fn, optimizer([*net.parameters(), *loss_fn.parameters()], lr=lr), **options
    )


def by_hand(net, loss_fn, optimizer, loader, clip=None):
    for x, targets in loader:
        optimizer.zero_grad()
        loss_fn(net(x), targets).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
        optimizer.step()


def same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], msg=name)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_an_epoch_is_that_of_a_loop_by_hand(clip):
    net, loss_fn = model(), UncertaintyWeighting(losses(), {"shape": "classification"})
    by_hand(net, loss_fn, torch.optim.Adam([*net.parameters(), *loss_fn.parameters()], 0.05), batches(), clip)
    ours = trainer(
        UncertaintyWeighting(losses(), {"shape": "classification"}),
        optimizer=torch.optim.Adam,
        grad_clip=clip,
    )
    ours.train_epoch(batches(), verbose=False)
    same(net.state_dict(), ours.model.state_dict())
    same(loss_fn.state_dict(), ours.loss_fn.state_dict())


def test_clipping_makes_a_difference():
    plain, clipped = trainer(), trainer(grad_clip=0.05)
    for each in (plain, clipped):
        each.train_epoch(batches(), verbose=False)
    name = "backbone.layers.linear1.weight"
    assert not torch.equal(plain.model.state_dict()[name], clipped.model.state_dict()[name])


def test_epochs_one_by_one_are_those_of_one_fit():
    one, several = trainer(optimizer=torch.optim.Adam), trainer(optimizer=torch.optim.Adam)
    history = one.fit(batches(), epochs=3, verbose=False)
    values = [several.train_epoch(batches(), verbose=False) for _ in range(3)]
    same(one.model.state_dict(), several.model.state_dict())
    assert history["train/loss/height/epoch"] == [epoch["train/loss/height/epoch"] for epoch in values]


def test_the_optimizer_that_is_given_is_the_one_that_steps():
    ours = trainer(optimizer=torch.optim.Adam)
    ours.train_epoch(batches(), verbose=False)
    ours.fit(batches(), epochs=2, verbose=False)
    steps = {int(state["step"]) for state in ours.optimizer.state.values()}
    assert steps == {9}


def test_history_has_a_value_for_each_epoch():
    metrics = {"shape": accuracy, "height": {"worst": lambda p, t: np.abs(p - t).max()}}
    ours = trainer(UncertaintyWeighting(losses()), metric_fns=metrics)
    history = ours.fit(batches(), batches(), epochs=2, verbose=False)
    keys = {"loss/height", "loss/shape", "loss/total", "objective", "shape/accuracy", "height/worst"}
    expected = {f"{stage}/{key}/epoch" for stage in ("train", "val") for key in keys}
    assert set(history) == expected | {"weights/height", "weights/shape"}
    assert {len(values) for values in history.values()} == {2}
    assert history["weights/height"][0] != history["weights/height"][1]


def test_a_value_that_an_epoch_lacks_is_nan():
    x, targets = data()
    ours = trainer(metric_fns={"shape": accuracy})
    without = {**targets, "shape": torch.full_like(targets["shape"], -100)}
    with pytest.warns(
        UserWarning, match="^val/loss/shape/epoch is NaN, as are the task's metrics: no label$"
    ):
        history = ours.fit(batches(), [(x, without)], epochs=2, verbose=False)
    assert np.isnan(history["val/shape/accuracy/epoch"]).all()
    assert history["train/shape/accuracy/epoch"][1] <= 1


def test_validate_gives_what_a_hand_computes_and_changes_nothing():
    ours = trainer(metric_fns={"shape": [accuracy, MulticlassAccuracy(3, average="micro")]})
    before = {name: value.clone() for name, value in ours.model.state_dict().items()}
    x, targets = data()
    values = ours.validate(batches())
    with torch.no_grad():
        outputs = ours.model(x)
    assert values["val/loss/height/epoch"] == pytest.approx(
        nn.functional.mse_loss(outputs["height"], targets["height"]).item()
    )
    right = (outputs["shape"].argmax(1) == targets["shape"]).float().mean().item()
    assert values["val/shape/accuracy/epoch"] == pytest.approx(right)
    assert values["val/shape/Accuracy/epoch"] == pytest.approx(right)
    same(before, ours.model.state_dict())
    assert ours.validate(batches()) == values


def test_weights_and_uncertainties():
    plain = trainer(MultiTaskLoss(losses(), {"height": 0.5}))
    assert plain.get_task_weights() == {"height": 0.5, "shape": 1.0}
    assert plain.get_task_uncertainties() is None
    learned = trainer(UncertaintyWeighting(losses()))
    learned.train_epoch(batches(), verbose=False)
    assert learned.get_task_uncertainties() == learned.loss_fn.get_uncertainties()
    assert learned.get_task_uncertainties()["height"] != 1.0


def test_a_foreign_loss_has_no_weights():
    class Both(nn.Module):
        def forward(self, outputs, targets):
            return (outputs["height"] - targets["height"]).square().mean()

    ours = trainer(Both())
    history = ours.fit(batches(), epochs=3, verbose=False)
    assert history["train/loss/total/epoch"][-1] < history["train/loss/total/epoch"][0]
    with pytest.raises(UserError, match=r"loss_fn: must be a MultiTaskLoss, got Both"):
        ours.get_task_weights()


def test_a_weighting_by_epochs_is_told_them_over_several_calls():
    ours = trainer(DynamicWeightAverage(losses(), temperature=0.1))
    for _ in range(4):
        values = ours.train_epoch(batches(), verbose=False)
    assert values["weights/height"] != values["weights/shape"]
    assert values["weights/height"] + values["weights/shape"] == pytest.approx(2)


def test_an_own_forward_is_trained():
    class Halved(MultiTaskLoss):
        def forward(self, outputs, targets, return_dict=False):
            own = self.compute_task_losses(outputs, targets)
            total = own["height"] + 0.5 * own["shape"]
            return (total, own) if return_dict else total

    one, other = trainer(Halved(losses())), trainer(MultiTaskLoss(losses(), {"shape": 0.5}))
    for each in (one, other):
        values = each.fit(batches(), batches(), epochs=2, verbose=False)
    same(one.model.state_dict(), other.model.state_dict())
    assert values["train/loss/shape/epoch"][0] > 0


# ---- what people mean -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("column", [False, True])
def test_classes_of_any_integer_type(dtype, column):
    x, targets = data()
    classes = targets["shape"].numpy().astype(dtype)
    given = {"height": targets["height"], "shape": classes[:, None] if column else classes}
    expected = trainer().train_epoch([(x, targets)], verbose=False)
    assert trainer().train_epoch([(x, given)], verbose=False) == expected


@pytest.mark.parametrize("shape", [(24,), (24, 1)])
def test_arrays_of_float64(shape):
    x, targets = data()
    given = {"height": targets["height"].double().numpy().reshape(shape), "shape": targets["shape"].numpy()}
    expected = trainer().train_epoch([(x, targets)], verbose=False)
    assert trainer().train_epoch([(x.double().numpy(), given)], verbose=False) == pytest.approx(expected)


def test_a_model_of_float64_is_given_its_own():
    net = model().double()
    ours = MultiTaskTrainer(net, MultiTaskLoss(losses()), torch.optim.SGD(net.parameters(), lr=0.1))
    assert ours.train_epoch(batches(), verbose=False)["train/loss/height/epoch"] > 0


def test_missing_labels_and_absent_tasks():
    x, targets = data()
    half = targets["height"].clone()
    half[::2] = float("nan")
    ours = trainer()
    values = ours.train_epoch([(x, {"height": half}), (x, {"shape": targets["shape"]})], verbose=False)
    assert np.isfinite(values["train/loss/height/epoch"])


@pytest.mark.parametrize(
    ("task", "target", "shapes"),
    [
        ("height", torch.zeros(24, 2), r"\(24, 1\) float32 and target \(24, 2\)"),
        ("height", torch.zeros(23), r"\(24, 1\) float32 and target \(23,\)"),
        ("shape", torch.zeros(24, 2).long(), r"\(24, 3\) float32 and target \(24, 2\)"),
    ],
)
def test_what_is_ambiguous_names_the_task_and_both_shapes(task, target, shapes):
    x, targets = data()
    with pytest.raises(UserError, match=f"task '{task}': output and target must fit .*{shapes}"):
        trainer().train_epoch([(x, {**targets, task: target})], verbose=False)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3), r"loader: must yield pairs \(inputs, {task: target}\), got a Tensor"),
        ((torch.zeros(3), 1, 2), "got a tuple of Tensor, int, int"),
        ((torch.zeros(3, 4), {"height": ["tall"] * 3}), "targets.height: .*numbers"),
        ((torch.zeros(3, 4), {"heigth": torch.zeros(3)}), "Did you mean 'heigth'"),
        (
            (torch.zeros(3, 5), {"height": torch.zeros(3)}),
            "MLP: inputs must have the shape .*got shape",
        ),
    ],
)
def test_a_batch_that_is_none(batch, message):
    with pytest.raises(UserError, match=message):
        trainer().train_epoch([batch], verbose=False)


def test_a_plain_data_loader_with_one_task():
    net = nn.Linear(4, 1)
    ours = MultiTaskTrainer(
        net, MultiTaskLoss({"height": nn.MSELoss()}), torch.optim.SGD(net.parameters(), lr=0.1)
    )
    x, targets = data()
    loader = DataLoader(TensorDataset(x, targets["height"]), batch_size=8, shuffle=True)
    history = ours.fit(loader, loader, epochs=3, verbose=False)
    assert history["val/loss/height/epoch"][-1] < history["val/loss/height/epoch"][0]


# ---- what cannot be used ----------------------------------------------------------------------


def test_an_optimizer_without_the_losss_parameters():
    net, loss_fn = model(), UncertaintyWeighting(losses())
    message = r"must have the loss's parameters, got an optimizer without 2 of them, such as weighting\.\w+"
    with pytest.raises(UserError, match=message):
        MultiTaskTrainer(net, loss_fn, torch.optim.SGD(net.parameters(), lr=0.1))


def test_an_optimizer_of_another_model():
    with pytest.raises(UserError, match=r"optimizer: must have the model's parameters, got none"):
        MultiTaskTrainer(model(), MultiTaskLoss(losses()), torch.optim.SGD(model().parameters(), lr=0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grad_clip": 0}, "grad_clip: must be a norm above 0"),
        ({"grad_clip": "1"}, "grad_clip"),
        ({"grad_clip": True}, "grad_clip"),
        ({"device": "gpu0"}, "device: must be a torch device"),
        ({"device": "cuda:99"}, "device: must be available"),
        ({"device": "meta"}, "device: must be available"),
        ({"metric_fns": {"size": accuracy}}, "no task is called 'size'"),
        ({"metric_fns": {"shape": "accuracy"}}, "must be a torchmetrics.Metric"),
        ({"metric_fns": {"shape": [lambda p, t: 0.0, lambda p, t: 1.0]}}, "got function twice"),
    ],
)
def test_an_option_that_cannot_be_used(options, message):
    with pytest.raises(UserError, match=message):
        trainer(**options)


def test_something_that_is_no_optimizer():
    with pytest.raises(UserError, match=r"optimizer: must be a torch.optim.Optimizer, got type"):
        MultiTaskTrainer(model(), MultiTaskLoss(losses()), torch.optim.SGD)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True, "3"])
def test_a_number_of_epochs_that_is_none(epochs):
    with pytest.raises(UserError, match="epochs: must be an integer of at least 1"):
        trainer().fit(batches(), epochs=epochs, verbose=False)


@pytest.mark.parametrize("call", ["train_epoch", "validate"])
def test_an_empty_loader(call):
    with pytest.raises(UserError, match=r"dataloaders\.\w+: must yield at least one batch"):
        getattr(trainer(), call)([])


def test_a_loader_that_is_used_up():
    with pytest.raises(
        UserError, match=r"train loader: must yield batches in every epoch.* none in epoch 1\."
    ):
        trainer().fit((batch for batch in ()), verbose=False)
    used = trainer()
    with pytest.raises(UserError, match=r"none in epoch 2\. Pass a loader, not an iterator over it"):
        used.fit((batch for batch in batches()), epochs=2, verbose=False)
    assert used.fit(batches(), epochs=1, verbose=False)["train/loss/total/epoch"][0] > 0


def test_a_metric_that_returns_no_number():
    ours = trainer(metric_fns={"shape": {"odd": lambda p, t: [1, 2]}})
    with pytest.raises(
        UserError,
        match=r"metrics.shape.odd: compute failed: .* must return a number, got \[1, 2\]",
    ):
        ours.validate(batches())


def test_a_loss_that_is_not_finite_ends_the_call_and_not_the_trainer():
    x, targets = data()
    ours = trainer()
    with pytest.raises(RunError, match="task 'height': the loss must be finite"):
        ours.train_epoch([(x, {**targets, "height": torch.full((24, 1), float("inf"))})], verbose=False)
    assert "val/loss/shape/epoch" in ours.validate(batches())


# ---- the process that it runs in --------------------------------------------------------------


class Interrupting:
    """Is interrupted in its second batch, as by Ctrl-C."""

    def __len__(self):
        return 3

    def __iter__(self):
        yield from batches()[:1]
        raise KeyboardInterrupt


def test_an_interrupt_is_one_and_the_next_one_still_works():
    ours = trainer()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ours.train_epoch(Interrupting(), verbose=False)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(ours.fit(batches(), epochs=2, verbose=False)["train/loss/total/epoch"]) == 2


def test_verbose_shows_a_line_for_each_epoch(capsys):
    trainer().fit(batches(), batches(), epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert all("train loss/height=" in line and "val loss/height=" in line for line in lines)


def test_quiet_is_quiet(capfd):
    trainer().fit(batches(), batches(), epochs=1, verbose=False)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_samplers_are_told_the_epoch_over_several_calls():
    told = []

    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch):
            told.append(epoch)

    x, targets = data()
    rows = TensorDataset(x, targets["height"])
    net = nn.Linear(4, 1)
    ours = MultiTaskTrainer(
        net, MultiTaskLoss({"height": nn.MSELoss()}), torch.optim.SGD(net.parameters(), lr=0.1)
    )
    loader = DataLoader(rows, batch_size=8, sampler=Sampler(rows))
    ours.train_epoch(loader, verbose=False)
    ours.fit(loader, epochs=2, verbose=False)
    ours.train_epoch(loader, verbose=False)
    assert told == [0, 1, 2, 3]


def test_a_trainer_is_pickled_after_its_training():
    ours = trainer(MultiTaskLoss(losses(), weighting=UW()), optimizer=torch.optim.Adam)
    ours.fit(batches(), epochs=1, verbose=False)
    again = pickle.loads(pickle.dumps(ours))
    for each in (ours, again):
        each.train_epoch(batches(), verbose=False)
    same(ours.model.state_dict(), again.model.state_dict())


@pytest.mark.parametrize("weighting", [PCGrad, UPGrad, GradNorm])
def test_a_weighting_by_gradients_gets_them(weighting):
    net, loss_fn = model(), MultiTaskLoss(losses())
    engine, optimizer = Engine(net, weighting()), torch.optim.SGD(net.parameters(), lr=0.05)
    torch.manual_seed(7)
    for x, targets in batches():
        outputs = net(x)
        optimizer.zero_grad()
        engine.backward(loss_fn.compute_task_losses(outputs, targets))
        optimizer.step()
    ours = trainer(MultiTaskLoss(losses(), weighting=weighting()))
    torch.manual_seed(7)
    values = ours.train_epoch(batches(), verbose=False)
    same(net.state_dict(), ours.model.state_dict())
    assert values["weights/height"] == pytest.approx(float(engine.weights["height"]), rel=1e-4)
