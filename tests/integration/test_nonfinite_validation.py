"""Losses that are not finite in a validation only: they are named, and no early epoch is the best."""

import math
import warnings
from functools import partial

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from polytask import System
from polytask.losses import MultiTaskLoss
from polytask.models import MultiHead
from polytask.trainer import MultiTaskTrainer
from tests.training import quiet_trainer

KEY = "val/loss/total/epoch"


class Rows(IterableDataset):
    """A batch whose target of ``b`` is infinite in the epochs named, and whose input is NaN in others."""

    def __init__(self, epochs=4, infinite=(), nan=()):
        self.wrong = [
            math.inf if epoch in infinite else math.nan if epoch in nan else 0.0 for epoch in range(epochs)
        ]
        self.epoch = -1

    def __iter__(self):
        self.epoch += 1
        x, wrong = torch.linspace(-1, 1, 8).reshape(4, 2), self.wrong[self.epoch]
        b = torch.ones(4, 1) + (wrong if math.isinf(wrong) else 0.0)
        yield x + (wrong if math.isnan(wrong) else 0.0), {"a": torch.ones(4, 1), "b": b}


def system(lr=0.01):
    torch.manual_seed(0)
    model = MultiHead(nn.Identity(), {"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
    loss = MultiTaskLoss({"a": nn.MSELoss(), "b": nn.MSELoss()})
    return System(model, loss, partial(torch.optim.SGD, lr=lr))


def fitted(tmp_path, checkpoint, epochs=4, **wrong):
    """What was warned of, and the epochs of the checkpoints that are left."""
    runner = quiet_trainer(
        max_epochs=epochs,
        callbacks=[checkpoint],
        enable_checkpointing=True,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    train, val = (DataLoader(rows, batch_size=None) for rows in (Rows(epochs), Rows(epochs, **wrong)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        runner.fit(system(), train, val)
    said = [str(one.message) for one in caught if "finite" in str(one.message)]
    left = [torch.load(path, weights_only=True)["epoch"] for path in sorted(tmp_path.rglob("*.ckpt"))]
    best = torch.load(checkpoint.best_model_path, weights_only=True)["epoch"]
    return said, left, best


@pytest.mark.parametrize("kind", ["infinite", "nan"])
@pytest.mark.parametrize("options", [{}, {"filename": "best"}, {"filename": "{epoch}", "save_last": True}])
def test_without_a_number_the_best_is_the_last(tmp_path, kind, options):
    checkpoint = ModelCheckpoint(tmp_path, monitor=KEY, **options)
    said, left, best = fitted(tmp_path, checkpoint, **{kind: range(4)})
    assert best == 3
    assert left == [3] * (2 if "save_last" in options else 1)
    value = "nan" if kind == "nan" else "inf"
    tasks = ("a", "b") if kind == "nan" else ("b",)
    rule = "the validation loss must be finite"
    assert said == [
        *(f"task '{task}': {rule}, got {value} in epoch 0. Check the stage's data." for task in tasks),
        f"{KEY}: must be finite to select a checkpoint, got {value} in epoch 0. Until it is finite, the best "
        "checkpoint is that of the last epoch.",
    ]


@pytest.mark.parametrize(
    ("nan", "expected", "sentence"),
    [
        ([0], 3, "Until it is finite, the best checkpoint is that of the last epoch."),
        ([0, 1], 3, "Until it is finite, the best checkpoint is that of the last epoch."),
        ([2, 3], 1, "The best checkpoint stays that of an earlier epoch."),
        ([1, 2], 3, "The best checkpoint stays that of an earlier epoch."),
    ],
)
def test_with_a_number_the_best_has_one(tmp_path, nan, expected, sentence):
    """The losses fall, so the last epoch with a number is the best one."""
    said, left, best = fitted(tmp_path, ModelCheckpoint(tmp_path, monitor=KEY), nan=nan)
    assert (best, left) == (expected, [expected])
    (of_checkpoint,) = [text for text in said if text.startswith(KEY)]
    assert of_checkpoint.endswith(sentence)


def test_an_epoch_that_is_not_saved_takes_no_checkpoint_away(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor=KEY, every_n_epochs=2)
    assert fitted(tmp_path, checkpoint, epochs=3, nan=range(3))[1:] == ([1], 1)


def test_several_checkpoints_are_kept_as_before(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor=KEY, save_top_k=2)
    assert sorted(fitted(tmp_path, checkpoint, nan=[0])[1]) == [2, 3]


def test_a_test_names_its_task_too():
    said = r"task 'b': the test loss must be finite, got inf\. "
    with pytest.warns(UserWarning, match=said):
        quiet_trainer().test(system(), DataLoader(Rows(infinite=[0]), batch_size=None), verbose=False)


def test_a_trainer_names_it_once():
    whole = system()
    optimizer = torch.optim.SGD(whole.model.parameters(), lr=0.01)
    ours = MultiTaskTrainer(whole.model, whole.criterion, optimizer)
    loader = [next(iter(Rows()))]
    with pytest.warns(UserWarning, match="task 'b': the validation loss must be finite") as caught:
        ours.fit(loader, [next(iter(Rows(infinite=[0])))], epochs=3, verbose=False)
    assert sum("finite" in str(one.message) for one in caught) == 1


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_a_run_says_it_and_its_best_is_its_last(demo, cli, own):
    (demo / "wrong.py").write_text(
        "import math\nfrom data import Points\n\n\nclass Wrong(Points):\n"
        "    def __init__(self, rows):\n        super().__init__(rows)\n        self.points[3] = math.nan\n"
    )
    options = ["system.dataloaders.val.dataset._target_=wrong.Wrong", "trainer.max_epochs=3"]
    if own:
        monitor = "monitor: val/loss/shape/epoch"
        options.append(
            f"trainer.callbacks=[{{_target_: pytorch_lightning.callbacks.ModelCheckpoint, {monitor}}}]"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = cli("fit", "config.yaml", "--run-dir", "run", *options)
    assert result.code == 0, result.err
    said = " ".join(str(one.message) for one in caught)
    for task in ("shape", "height"):
        assert f"task '{task}': the validation loss must be finite, got nan in epoch 0" in said
    assert "the best checkpoint is that of the last epoch" in said
    best, last = (
        torch.load(demo / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for name in ("best", "last")
    )
    assert best["epoch"] == 2
    for name, weight in last["state_dict"].items():
        assert torch.equal(best["state_dict"][name], weight)
    assert {path.name for path in (demo / "run" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
