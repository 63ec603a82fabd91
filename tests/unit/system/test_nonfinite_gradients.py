"""Steps whose losses or gradients are not finite: skipped or the end of the run, with the task at fault."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from polytask import RunError, System
from polytask.adapters import BatchAdapter
from polytask.losses import MultiTaskLoss
from polytask.models import MultiHead
from polytask.weighting import UW, Equal, MoCo, UPGrad, Weighting
from tests.cases import GRAMIAN_WEIGHTINGS, LOSS_WEIGHTINGS, TASKS, WEIGHTINGS
from tests.regression import plain, rows

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers",
    "ignore:.*training_step` returned `None`",
)
MARK = 7.0
BAD_ROW = 17  # of 36 rows in batches of four: the second row of batch 4
# One for each of the engine's ways; the others differ in what they make of the gradients alone.
SAMPLE = {"UW", "FAMO", "UPGrad", "GradNorm", "MoDo", "MoCo"}
everything = pytest.mark.parametrize("case", WEIGHTINGS, ids=str)


class Marked(nn.Module):
    """A squared error whose value is finite everywhere, and whose derivative is NaN at targets of `MARK`."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        root = ((outputs - outputs.detach()).abs() + (targets != MARK)).sqrt()
        return ((outputs - targets).square() + root).mean()


class RootOfZero(torch.autograd.Function):
    """The identity, with a gradient of NaN in the rows whose first value is `MARK`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, marked: Tensor) -> Tensor:
        ctx.save_for_backward(marked)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (marked,) = ctx.saved_tensors
        return torch.where(marked[:, None], torch.nan, gradient), None


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(RootOfZero.apply(self.layer(x), x[:, 0] == MARK).tanh())


class Record(Callback):
    """The parameters after each batch."""

    def __init__(self) -> None:
        self.after: list[Tensor] = []

    def on_train_start(self, trainer: Any, system: Any) -> None:
        self.on_train_batch_end(trainer, system)

    def on_train_batch_end(self, trainer: Any, system: Any, *args: Any) -> None:
        self.after.append(torch.cat([p.detach().flatten() for p in system.model.parameters()]))


def data(bad: str = "", number: int = 36) -> list[Any]:
    given = rows(number)
    point, targets = given[BAD_ROW]
    if bad == "head":
        targets["b"].fill_(MARK)
    elif bad == "backbone":
        point[0] = MARK
    elif bad == "input":
        point[1] = torch.nan
    elif bad == "losses":
        targets["a"].fill_(torch.inf)
        targets["c"].fill_(-torch.inf)
    return given


def system(weighting: Weighting, optimizer: Callable[..., Any] | None = None, **options: Any) -> System:
    torch.manual_seed(0)
    model = MultiHead(Body(), {name: nn.Linear(4, 1) for name in TASKS}).double()
    criterion = MultiTaskLoss({name: Marked() for name in TASKS}, weighting=weighting)
    return System(model, criterion, optimizer or partial(torch.optim.Adam, lr=0.05), **options)


def fit(system_: System, bad: str, tmp_path: Any, batch_size: int = 4, **options: Any) -> tuple[Record, int]:
    """What the parameters were, and the number of batches in a step."""
    record = Record()
    batches = system_.criterion.weighting.batches_per_step
    options = {"accumulate_grad_batches": batches, "max_epochs": 1, **options}
    trainer = plain(default_root_dir=tmp_path, callbacks=[record], **options)
    trainer.fit(system_, DataLoader(data(bad), batch_size=batch_size))
    return record, batches


def assert_finite(system_: System) -> None:
    for name, value in system_.model.state_dict().items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize(
    ("case", "bad"),
    [
        *((case, "head") for case in WEIGHTINGS),
        *((case, bad) for case in WEIGHTINGS if case.name in SAMPLE for bad in ("backbone", "input")),
    ],
    ids=str,
)
def test_a_step_is_skipped_and_leaves_nothing_behind(case, bad, tmp_path):
    guarded, clean = (system(case.build(), on_nonfinite="skip") for _ in range(2))
    with pytest.warns(UserWarning, match=r"must be finite, got .* at step \d in epoch 0") as caught:
        record, batches = fit(guarded, bad, tmp_path)
    step = 4 // batches
    said = [str(warning.message) for warning in caught if "must be finite" in str(warning.message)]
    assert len(said) == 1
    assert f"at step {step} in epoch 0" in said[0]
    if bad == "head":
        assert said[0].startswith("task 'b': the gradients must be finite")
    if bad == "input":
        assert said[0].startswith("tasks 'a', 'b', 'c': the loss must be finite, got nan")
        assert "(row 1 of the batch)" in said[0]
    assert guarded.skipped == 1
    assert_finite(guarded)
    if bad != "input" or batches == 1:
        first, last = step * batches, (step + 1) * batches
        assert torch.equal(record.after[first], record.after[last])
        assert not torch.equal(record.after[last], record.after[last + batches])
    fit(clean, "", tmp_path)
    # Some state is NaN until a task was seen; a bad step adds none to it.
    for (name, ours), theirs in zip(
        guarded.criterion.state_dict().items(), clean.criterion.state_dict().values(), strict=True
    ):
        assert torch.equal(ours.isnan(), theirs.isnan()), name


@everything
def test_the_run_ends_before_a_weight_changes(case, tmp_path):
    stopped = system(case.build())
    step = 4 // stopped.criterion.weighting.batches_per_step
    with pytest.raises(RunError, match=rf"task 'b': the gradients must be finite, .* at step {step} in"):
        fit(stopped, "head", tmp_path, log_every_n_steps=50)
    assert_finite(stopped)


@pytest.mark.parametrize(
    "options",
    [{"level": "representation"}, {"level": "last_shared"}, {"refresh_every": 2}, {"refresh_every": 5}],
    ids=str,
)
def test_every_level_names_the_task_and_keeps_its_weights(options, tmp_path):
    guarded = system(UPGrad(), on_nonfinite="skip", **options)
    with pytest.warns(UserWarning, match="task 'b': the gradients must be finite, got NaN .* at step 4"):
        record, _ = fit(guarded, "head", tmp_path)
    assert torch.equal(record.after[4], record.after[5])
    assert all(bool(weight > 0) for weight in guarded.task_backward.engine.weights.values())
    assert_finite(guarded)


@pytest.mark.parametrize("weighting", [Equal, UW, UPGrad, MoCo])
def test_a_window_with_a_bad_gradient_is_skipped_as_a_whole(weighting, tmp_path):
    guarded = system(weighting(), on_nonfinite="skip")
    with pytest.warns(UserWarning, match=r"must be finite, got NaN .* at step 1 in epoch 0"):
        record, _ = fit(guarded, "head", tmp_path, accumulate_grad_batches=3)
    assert torch.equal(record.after[3], record.after[6])
    assert not torch.equal(record.after[6], record.after[9])
    assert_finite(guarded)


def test_a_gradient_of_the_backbone_names_the_parameters(tmp_path):
    said = r"model: the gradients must be finite, got NaN or infinity in model\.backbone\.layer\.weight"
    with pytest.raises(RunError, match=said):
        fit(system(Equal()), "backbone", tmp_path)


@pytest.mark.parametrize("weighting", [Equal, UPGrad])
def test_all_tasks_at_fault_are_named_and_no_other(weighting, tmp_path):
    said = r"tasks 'a', 'c': the loss must be finite, got inf at step 4 in epoch 0 \(row 1 of the batch\)"
    with pytest.raises(RunError, match=said):
        fit(system(weighting()), "losses", tmp_path)


@pytest.mark.filterwarnings("ignore:.*The step is skipped:UserWarning")
@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_an_epoch_without_a_step_ends_the_run(mode, tmp_path):
    endless = system(Equal(), on_nonfinite=mode)
    with torch.no_grad():
        endless.model.backbone.layer.weight.fill_(torch.nan)
    with pytest.raises(RunError, match=r"must .*finite"):
        fit(endless, "", tmp_path)


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    guarded = system(Equal(), on_nonfinite="skip")
    trainer = plain(default_root_dir=tmp_path, max_epochs=1)
    trainer.fit(guarded, DataLoader(data(), batch_size=4))
    with torch.no_grad():
        guarded.model.backbone.layer.weight.fill_(torch.nan)
    with pytest.raises(RunError, match=r"weight 'model\.backbone\.layer\.weight'"):
        trainer.save_checkpoint(tmp_path / "bad.ckpt")


def test_infinite_gradients_may_be_clipped_by_value(tmp_path):
    clipped = system(Equal(), partial(torch.optim.SGD, lr=0.01))
    clipped.model.backbone.layer.weight.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
    fit(clipped, "", tmp_path, gradient_clip_val=0.1, gradient_clip_algorithm="value")
    assert_finite(clipped)


# ---- an optimizer that evaluates a step several times -------------------------------------------

lbfgs = partial(torch.optim.LBFGS, lr=0.1, max_iter=4)


def unlabelled() -> list[Any]:
    given = data()
    for _, targets in given[16:20]:
        for target in targets.values():
            target.fill_(math.nan)
    return given


@pytest.mark.parametrize("optimizer", [lbfgs, partial(lbfgs, line_search_fn="strong_wolfe")])
@pytest.mark.parametrize("weighting", [Equal, UPGrad])
def test_lbfgs_passes_over_a_batch_without_a_label(weighting, optimizer, tmp_path):
    record, trained = Record(), system(weighting(), optimizer)
    trainer = plain(default_root_dir=tmp_path, callbacks=[record], max_epochs=1)
    trainer.fit(trained, DataLoader(unlabelled(), batch_size=4))
    assert trained.skipped == 1
    assert torch.equal(record.after[4], record.after[5])
    assert_finite(trained)


class FailsAt(nn.Module):
    """A layer that is NaN in one call of the training."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.layer, self.calls, self.call = nn.Linear(3, 4), 0, call

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.layer(x).tanh() * (torch.nan if self.training and self.calls == self.call else 1.0)


@pytest.mark.parametrize("call", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_lbfgs_takes_back_a_step_that_fails_in_any_evaluation(call, bad, tmp_path):
    trained = system(Equal(), lbfgs, on_nonfinite="skip")
    trained.model.backbone = FailsAt(call if bad == "loss" else 0).double()
    calls = 0

    def spoil(gradient: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return gradient * torch.nan if bad == "gradient" and calls == call else gradient

    trained.model.backbone.layer.weight.register_hook(spoil)
    with pytest.warns(UserWarning, match="must be finite, got"):
        record, _ = fit(trained, "", tmp_path)
    assert trained.skipped == 1
    assert_finite(trained)
    same = [torch.equal(one, other) for one, other in zip(record.after, record.after[1:], strict=False)]
    assert same.count(True) == 1


# ---- the last, shorter step of an epoch ---------------------------------------------------------


STEADY = [
    *(case for case in LOSS_WEIGHTINGS if case.steady),
    *(case for case in GRAMIAN_WEIGHTINGS if not case.ordered and case.build().batches_per_step == 1),
]


@pytest.mark.parametrize("batches", [9, 10])
@pytest.mark.parametrize("case", STEADY, ids=str)
def test_a_shorter_window_counts_for_its_batches(case, batches, tmp_path):
    weighting = case.build()
    gradients: list[Tensor] = []

    class Note(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            gradients.append(torch.cat([p.grad.flatten() for p in module.model.parameters()]))

    trained = system(weighting, partial(torch.optim.SGD, lr=0.0))
    same = rows(4) * batches
    trainer = plain(default_root_dir=tmp_path, callbacks=[Note()], accumulate_grad_batches=4, max_epochs=1)
    trainer.fit(trained, DataLoader(same, batch_size=4))
    full, other, short = gradients
    # The weights of some methods move from step to step.
    within = max(1e-3, 3 * float((full - other).norm() / other.norm()))
    part = (batches % 4) / 4
    assert float((short - other * part).norm()) <= within * float(other.norm()) * part


@pytest.mark.parametrize("options", [{"refresh_every": 3}, {"refresh_every": 2}, {"level": "last_shared"}])
def test_a_shorter_window_counts_for_its_batches_at_every_level(options, tmp_path):
    norms: list[Tensor] = []

    class Note(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            norms.append(torch.cat([p.grad.flatten() for p in module.model.parameters()]))

    trained = system(UPGrad(), partial(torch.optim.SGD, lr=0.0), **options)
    trainer = plain(default_root_dir=tmp_path, callbacks=[Note()], accumulate_grad_batches=4, max_epochs=1)
    trainer.fit(trained, DataLoader(rows(4) * 10, batch_size=4))
    torch.testing.assert_close(norms[2], norms[1] / 2)


def test_batches_without_labels_do_not_shorten_a_window(tmp_path):
    norms: list[Tensor] = []

    class Note(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            norms.append(torch.cat([p.grad.flatten() for p in module.model.parameters()]))

    empty = [(point, {name: torch.full((1,), math.nan) for name in TASKS}) for point, _ in rows(4)]
    trained = system(UPGrad(), partial(torch.optim.SGD, lr=0.0))
    trainer = plain(default_root_dir=tmp_path, callbacks=[Note()], accumulate_grad_batches=3, max_epochs=1)
    trainer.fit(trained, DataLoader([*rows(4) * 3, *rows(4), *empty, *rows(4)], batch_size=4))
    torch.testing.assert_close(norms[1], norms[0])


def test_a_batch_without_a_label_does_not_change_when_weights_are_computed(tmp_path):
    weights: list[dict[str, Tensor]] = []
    trained = system(UPGrad(), partial(torch.optim.SGD, lr=0.05), refresh_every=3)

    class Note(Callback):
        def on_train_batch_end(self, trainer, module, *args):
            weights.append({name: w.clone() for name, w in module.task_backward.engine.weights.items()})

    trainer = plain(default_root_dir=tmp_path, callbacks=[Note()], max_epochs=1)
    # Steps 0, 3 and 7 compute weights: the fifth batch has no label and is no step.
    trainer.fit(trained, DataLoader(unlabelled(), batch_size=4))
    fresh = [step for step in range(1, 9) if weights[step]["a"] != weights[step - 1]["a"]]
    assert fresh == [3, 7]


def test_rows_at_fault_are_named_by_their_ids():
    data = [(torch.ones(3), torch.tensor([math.inf if row == 5 else 1.0]), f"house{row}") for row in range(8)]
    ours = System(
        nn.Linear(3, 1),
        MultiTaskLoss({"price": nn.MSELoss()}),
        partial(torch.optim.SGD, lr=0.01),
        adapters={"batch": BatchAdapter(0, 1, id_accessor={"name": 2})},
    )
    with pytest.raises(RunError, match=r"\(row 1 with name 'house5' of the batch\)"):
        plain(max_epochs=1).fit(ours, DataLoader(data, 4))
