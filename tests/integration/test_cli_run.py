"""The commands, in this process: what they write, print and find again."""

import csv
import math
import pickle
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from polytask import UserError
from polytask.predictions import read_predictions

PLAIN = (str, int, float, bool, type(None))
RUN_FILES = {
    "environment.json",
    "config.yaml",
    "metrics.csv",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
}


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def logged(folder: Path) -> dict[str, str]:
    """The last value of every key."""
    return {key: value for row in rows_of(folder) for key, value in row.items() if value}


def edit(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)


# ---- fit --------------------------------------------------------------------------------------


def test_a_run_is_kept_in_its_folder_and_nowhere_else(cli, demo, monkeypatch):
    home = demo.parent / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    before = files(demo.parent)
    result = cli("fit", "config.yaml")
    assert result.code == 0
    assert result.err == ""
    assert result.run.parent == Path("runs/demo")
    own = files(result.run)
    assert own >= RUN_FILES
    assert {name.split("/")[0] for name in own - RUN_FILES} == {"tensorboard"}
    assert files(demo.parent) - before == {f"demo/{result.run}/{name}" for name in own}


def test_each_epoch_is_a_line_and_the_end_a_table(cli, demo):
    result = cli("fit", "config.yaml")
    lines = [line for line in result.out.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    for line in lines:
        train, val = line.split("  val ")
        for part in (train, val):
            for key in (
                "loss/shape=",
                "loss/height=",
                "loss/total=",
                "shape/Accuracy=",
                "height/MeanSquaredError=",
            ):
                assert key in part
    assert "\x1b" not in result.out
    for stage in ("train", "val"):
        assert any(stage in line and "Accuracy" in line for line in result.out.splitlines())
    assert sum("height" in line and not line.startswith("epoch") for line in result.out.splitlines()) == 2


def test_quiet_prints_the_folder_only(cli, demo):
    result = cli("fit", "config.yaml", "--quiet")
    assert result.out == f"run: {result.run}\n"


def test_the_metrics_file_holds_every_key(cli, demo):
    result = cli("fit", "config.yaml")
    rows = rows_of(result.run)
    last = logged(result.run)
    for key in (
        "train/loss/shape/step",
        "train/loss/total/epoch",
        "val/shape/Accuracy/epoch",
        "weights/height",
    ):
        assert math.isfinite(float(last[key]))
    assert int(rows[-1]["step"]) == 11


def test_checkpoints_hold_tensors_and_plain_data(cli, demo):
    def check(value) -> None:
        if isinstance(value, dict):
            for key, entry in value.items():
                assert isinstance(key, PLAIN), key
                check(entry)
        elif isinstance(value, (list, tuple)):
            for entry in value:
                check(entry)
        else:
            assert isinstance(value, (*PLAIN, torch.Tensor)), type(value)

    run = cli("fit", "config.yaml").run
    for name in ("best", "last"):
        checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        check(checkpoint)
        assert checkpoint["polytask_config"] == OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))


def test_the_kept_config_makes_the_same_run(cli, demo):
    run = cli("fit", "config.yaml").run
    again = cli("fit", run / "config.yaml")
    assert again.code == 0
    assert (again.run / "config.yaml").read_text() == (run / "config.yaml").read_text()
    assert same(*(weights(folder / "checkpoints/last.ckpt") for folder in (run, again.run)))


def test_the_seed_is_recorded_and_makes_the_run(cli, demo):
    runs = [cli("fit", "config.yaml", "--seed", seed).run for seed in ("7", "7", "8")]
    assert [OmegaConf.load(run / "config.yaml").seed for run in runs] == [7, 7, 8]
    first, again, other = (weights(run / "checkpoints/last.ckpt") for run in runs)
    assert same(first, again)
    assert not same(first, other)


def test_a_run_may_be_given_its_folder(cli, demo):
    result = cli("fit", "config.yaml", "--run-dir", "kept/here")
    assert result.run == Path("kept/here")
    assert files(result.run) >= RUN_FILES
    assert not Path("runs").exists()


def test_a_folder_with_other_files_is_no_run_folder(cli, demo):
    before = files(demo)
    result = cli("fit", "config.yaml", "--run-dir", demo)
    assert result.code == 2
    assert "got the folder of a run" in result.err
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("a")
    result = cli("fit", "config.yaml", "--run-dir", "notes")
    assert (result.code, "new or an empty folder" in result.err) == (2, True)
    assert files(demo) == before | {"notes/a.txt"}


def test_the_best_checkpoint_is_that_of_the_monitor(cli, demo):
    monitor = "monitor: val/height/MeanSquaredError/epoch, mode: max"
    callback = f"{{_target_: pytorch_lightning.callbacks.ModelCheckpoint, {monitor}}}"
    edit(demo / "config.yaml", ("  max_epochs: 2", f"  callbacks: [{callback}]\n  max_epochs: 5"))
    run = cli("fit", "config.yaml").run
    rows = rows_of(run)
    errors = [
        float(row["val/height/MeanSquaredError/epoch"])
        for row in rows
        if row["val/height/MeanSquaredError/epoch"]
    ]
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert len(errors) == 5
    assert best["epoch"] == max(range(5), key=errors.__getitem__)
    assert len(list((run / "checkpoints").iterdir())) == 2


def test_without_validation_the_last_checkpoint_is_the_best(cli, demo):
    text = (demo / "config.yaml").read_text()
    val = next(line for line in text.splitlines() if line.startswith("    val:"))
    edit(demo / "config.yaml", (val + "\n", ""))
    run = cli("fit", "config.yaml")
    assert run.err == ""
    result = cli("test", "config.yaml")
    assert result.code == 0
    assert f"checkpoint: {run.run}/checkpoints/last.ckpt" in result.out


def test_callbacks_may_have_names_and_null_takes_one_away(cli, demo):
    monitor = "monitor: val/loss/total/epoch, patience: 0, min_delta: 1e9"
    stop = f"{{_target_: pytorch_lightning.callbacks.EarlyStopping, {monitor}}}"
    edit(demo / "config.yaml", ("  max_epochs: 2", f"  callbacks: {{stop: {stop}}}\n  max_epochs: 4"))
    epochs = [
        sum(line.startswith("epoch") for line in cli("fit", "config.yaml", *words).out.splitlines())
        for words in ((), ("trainer.callbacks.stop=null",))
    ]
    assert epochs == [2, 4]


def test_weights_of_a_checkpoint_start_a_new_run(cli, demo):
    first = cli("fit", "config.yaml").run
    second = cli("fit", "config.yaml", "--ckpt", "last", "optimizer.lr=0.0")
    assert second.code == 2, "no run with this config"
    path = first / "checkpoints/last.ckpt"
    second = cli("fit", "config.yaml", "--ckpt", path, "optimizer.lr=0.0")
    assert second.code == 0
    assert same(weights(second.run / "checkpoints/last.ckpt"), weights(path))
    assert torch.load(second.run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 12


# ---- arguments and options ------------------------------------------------------------------------


def test_overrides_and_files_may_stand_anywhere(cli, demo):
    runs = [
        cli("fit", "config.yaml", "trainer.max_epochs=1", "optimizer.lr=0.2", "--quiet"),
        cli("fit", "optimizer.lr=0.2", "--quiet", "trainer.max_epochs=1", "config.yaml"),
        cli("fit", "--quiet", "trainer.max_epochs=1", "--config", "config.yaml", "optimizer.lr=0.2"),
    ]
    first, *others = [(result.run / "config.yaml").read_text() for result in runs]
    assert OmegaConf.create(first).system.optimizer.lr == 0.2
    assert others == [first, first]


def test_files_are_merged_from_left_to_right_and_lists_replaced(cli, demo):
    (demo / "more.yaml").write_text("trainer: {max_epochs: 9, callbacks: []}\nseed: 3\n")
    shown = OmegaConf.create(cli("show", "config.yaml", "more.yaml", "seed=4").out)
    assert (shown.trainer.max_epochs, shown.trainer.log_every_n_steps, shown.seed) == (9, 2, 4)


def test_what_is_shown_is_a_config(cli, demo):
    shown = cli("show", "config.yaml", "trainer.max_epochs=$@system.model.width").out
    (demo / "shown.yaml").write_text(shown)
    assert "max_epochs: 8" in shown
    assert cli("show", "shown.yaml").out == shown
    assert cli("check", "shown.yaml").out == "no problems\n"


def test_a_check_lists_every_problem_and_touches_no_data(cli, demo):
    edit(
        demo / "config.yaml",
        ("{_target_: data.Points, rows: 24}", "{_target_: data.Untouchable, rows: 24}"),
        ("width: 8", "widht: 8"),
        ("torch.optim.SGD", "torch.optim.SDG"),
        ("task: multiclass, num_classes: 3", "task: multiclass"),
        ("max_epochs: 2", "max_epoch: 2"),
    )
    before = files(demo)
    result = cli("check", "config.yaml")
    *problems, count = result.err.splitlines()
    assert result.code == 2
    assert count == "4 problems"
    for key in (
        "trainer.max_epoch",
        "system.model.widht",
        "system.optimizer._target_",
        "system.metrics.shape",
    ):
        assert sum(key in line for line in problems) == 1, key
    assert all(line.startswith("error: config.yaml:") for line in problems)
    assert files(demo) == before


def test_a_check_of_a_good_config_touches_no_data(cli, demo):
    edit(
        demo / "config.yaml", ("{_target_: data.Points, rows: 24}", "{_target_: data.Untouchable, rows: 24}")
    )
    before = files(demo)
    result = cli("check", "config.yaml")
    assert (result.code, result.out, result.err) == (0, "no problems\n", "")
    assert files(demo) == before


def test_fit_tells_the_first_problem_and_how_many_more(cli, demo):
    result = cli("fit", "config.yaml", "system.model.widht=1", "trainer.max_epoch=1")
    assert result.err.count("\n") == 1
    assert "(1 more: `polytask check` lists them all)" in result.err


def test_a_dry_run_sends_one_batch_through_every_stage_and_writes_nothing(cli, demo):
    before = files(demo)
    result = cli("fit", "config.yaml", "--dry-run")
    assert (result.code, result.err) == (0, "")
    assert result.out == "dry run: completed one batch of train, val, test, predict\n"
    assert files(demo) == before


def test_a_dry_run_of_a_task_without_labels_in_that_batch_is_fine(cli, demo):
    edit(demo / "config.yaml", ("{_target_: data.Points, rows: 24}", "{_target_: data.Unlabelled, rows: 24}"))
    result = cli("fit", "config.yaml", "--dry-run")
    assert result.code == 0
    assert result.out.splitlines()[1].startswith("no label in the training batch for height: check adapters")


def test_a_dry_run_names_a_task_whose_targets_are_not_found(cli, demo):
    adapter = "{batch: {_target_: polytask.adapters.BatchAdapter, input_accessor: 0, target_accessor: PATHS}}"
    paths = "{shape: 1.shape, height: 1.hieght}"
    edit(
        demo / "config.yaml",
        ("  dataloaders:", f"  adapters: {adapter.replace('PATHS', paths)}\n  dataloaders:"),
    )
    with pytest.warns(UserWarning, match="loss/height/epoch is NaN"):
        result = cli("fit", "config.yaml", "--dry-run")
    assert "no label in the training batch for height" in result.out


def test_a_dry_run_finds_what_only_the_test_stage_would(cli, demo):
    text = (demo / "config.yaml").read_text()
    test = next(line for line in text.splitlines() if line.startswith("    test:"))
    edit(demo / "config.yaml", (test, test.replace("data.Points", "data.Wide")))
    result = cli("fit", "config.yaml", "--dry-run")
    assert (result.code, "(8, 5)" in result.err) == (2, True)


def test_debug_raises(cli, demo):
    with pytest.raises(UserError, match="max_epochs"):
        cli("fit", "config.yaml", "trainer.max_epoch=1", "--debug")


# ---- validate, test, predict ------------------------------------------------------------------


def test_a_test_takes_the_best_checkpoint_and_says_so(cli, demo):
    run = cli("fit", "config.yaml").run
    result = cli("test", "config.yaml")
    assert result.code == 0
    assert f"checkpoint: {run}/checkpoints/best.ckpt" in result.out
    assert result.run == run
    assert any("test" in line and "MeanSquaredError" in line for line in result.out.splitlines())
    assert (run / "test" / "metrics.csv").exists()
    before = files(demo)
    assert cli("test", "config.yaml", "--ckpt", "last").out.startswith(
        f"checkpoint: {run}/checkpoints/last.ckpt"
    )
    assert files(demo) == before


def test_validation_gives_what_the_run_gave(cli, demo):
    run = cli("fit", "config.yaml").run
    row = logged(run)
    cli("validate", "config.yaml", "--ckpt", "last")
    again = logged(run / "validate")
    for key in ("val/loss/total/epoch", "val/shape/Accuracy/epoch", "val/height/MeanSquaredError/epoch"):
        assert float(again[key]) == pytest.approx(float(row[key]), rel=1e-6)


def test_predictions_are_rows_in_the_order_of_the_data(cli, demo):
    run = cli("fit", "config.yaml").run
    result = cli("predict", "config.yaml")
    assert result.out.splitlines()[-1] == f"predictions: {run}/predictions"
    found = read_predictions(run / "predictions")
    saved = weights(run / "checkpoints/best.ckpt")
    angles = 2 * math.pi * (torch.arange(8) * 0.618 % 1)
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    hidden = (points @ saved["model.backbone.0.weight"].T + saved["model.backbone.0.bias"]).relu()
    for task, size in (("shape", 3), ("height", 1)):
        expected = hidden @ saved[f"model.heads.{task}.weight"].T + saved[f"model.heads.{task}.bias"]
        assert found[task].shape == (8, size)
        assert torch.allclose(torch.tensor(found[task], dtype=torch.float32), expected, atol=1e-5)
    assert files(run / "predictions") == {"predictions.parquet"}


def test_the_newest_run_with_this_config_is_found(cli, demo):
    one = [cli("fit", "config.yaml").run for _ in range(2)]
    other = cli("fit", "config.yaml", "optimizer.lr=0.2").run
    assert cli("test", "config.yaml").run == one[1]
    assert cli("test", "config.yaml", "optimizer.lr=0.2").run == other
    result = cli("test", "config.yaml", "optimizer.lr=0.3")
    assert result.code == 2
    assert "differs in system.optimizer.lr" in result.err


@pytest.mark.slow
def test_a_run_is_found_by_what_shaped_its_weights(cli, demo):
    """Predictions are those of the run's weights, whatever else the config says by then."""
    first, second = (cli("fit", "config.yaml", f"seed={seed}", "trainer.max_epochs=1").run for seed in (0, 1))
    longer = cli("fit", "config.yaml", "seed=0", "trainer.max_epochs=2").run
    for command, words, run in (
        ("predict", ("seed=1", "system.dataloaders.predict.batch_size=5"), second),
        ("test", ("seed=1", "trainer.log_every_n_steps=7", "trainer.max_epochs=9"), second),
        ("validate", ("seed=1", "system.metrics.height._target_=torchmetrics.MeanAbsoluteError"), second),
        # The most similar one, and the newest of equally similar ones.
        ("test", ("seed=0", "trainer.max_epochs=1", "trainer.log_every_n_steps=7"), first),
        ("test", ("seed=0", "trainer.max_epochs=5"), longer),
    ):
        result = cli(command, "config.yaml", *words)
        assert result.code == 0, result.err
        assert f"checkpoint: {run}/checkpoints/best.ckpt\n" in result.out
        (line,) = [line for line in result.out.splitlines() if line.startswith("other than in its run: ")]
        assert "seed" not in line
    assert "other than" not in cli("test", "config.yaml").out
    for change in ("seed=2", "system.model.width=9", "system.dataloaders.train.batch_size=6"):
        refused = cli("test", "config.yaml", change, "trainer.max_epochs=1", "trainer.log_every_n_steps=7")
        assert refused.code == 2
        assert f"which differs in {change.partition('=')[0]}." in refused.err


def test_a_run_dir_narrows_the_search_and_brings_its_config(cli, demo):
    runs = [cli("fit", "config.yaml", f"optimizer.lr={lr}").run for lr in (0.2, 0.3)]
    for run in runs:
        assert cli("test", "--run-dir", run).run == run
        assert cli("test", "config.yaml", "--run-dir", run).run == run


def test_an_empty_run_dir_has_no_runs(cli, demo):
    Path("none").mkdir()
    result = cli("test", "--run-dir", "none")
    assert (result.code, "--run-dir none" in result.err) == (2, True)


def test_a_checkpoint_needs_no_config_but_its_project_is_named(cli, demo, monkeypatch):
    run = cli("fit", "config.yaml").run
    path = (run / "checkpoints/last.ckpt").resolve()
    monkeypatch.chdir(demo.parent)
    refused = cli("test", "--ckpt", path)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--project" in refused.err
    result = cli("test", "--ckpt", path, "--project", demo)
    assert result.code == 0
    assert result.run == demo / run


def test_a_dry_run_of_a_test_writes_nothing(cli, demo):
    cli("fit", "config.yaml")
    before = files(demo)
    for command in ("test", "validate", "predict"):
        assert cli(command, "config.yaml", "--dry-run").code == 0
    assert files(demo) == before


# ---- checkpoints that will not do -------------------------------------------------------------


class Code:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": {}, "code": Code()}))


def list_of_numbers(path: Path) -> None:
    torch.save([1, 2], path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_config(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["polytask_config"]
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("harm", "rule"),
    [
        (corrupt, "must be a complete checkpoint"),
        (empty, "must be a complete checkpoint"),
        (code, "tensors and plain data only"),
        (list_of_numbers, "'state_dict'"),
        (without_config, "--config"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_told_in_one_line(cli, demo, harm, rule):
    run = cli("fit", "config.yaml").run
    path = run / "checkpoints/last.ckpt"
    harm(path)
    before = files(demo)
    result = cli("test", "--ckpt", path, "--project", demo)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith(f"error: --ckpt {path}: ")
    assert rule in result.err
    assert files(demo) == before


def test_a_checkpoint_of_another_architecture_is_told_with_both_shapes(cli, demo):
    path = cli("fit", "config.yaml").run / "checkpoints/last.ckpt"
    result = cli("test", "config.yaml", "--ckpt", path, "system.model.width=6")
    assert (result.code, result.err.count("\n")) == (2, 1)
    for word in ("another architecture", "model.backbone.0.weight (8, 2) for (6, 2)"):
        assert word in result.err
    result = cli("fit", "config.yaml", "--ckpt", path, "system.model._target_=net.Pair")
    assert (result.code, "(1, 8) for (2, 8)" in result.err) == (2, True)
    assert len(list(Path("runs/demo").iterdir())) == 1


def test_a_run_that_lost_its_checkpoint_is_not_found(cli, demo):
    run = cli("fit", "config.yaml").run
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    result = cli("test", "config.yaml")
    assert (result.code, str(run) in result.err) == (2, True)


# ---- losses that are not finite ---------------------------------------------------------------


def test_a_run_that_diverges_ends_with_1_and_names_the_last_good_checkpoint(cli, demo):
    edit(
        demo / "config.yaml",
        ("{_target_: data.Points, rows: 24}", "{_target_: data.LaterInfinite, rows: 24}"),
    )
    result = cli("fit", "config.yaml")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "task 'height': the loss must be finite, got inf at step 6 in epoch 1" in result.err
    (run,) = Path("runs/demo").iterdir()
    good = f"{run}/checkpoints/"
    assert good in result.err
    name = result.err.split(good)[1].split(".ckpt")[0]
    saved = weights(run / "checkpoints" / f"{name}.ckpt")
    assert all(bool(tensor.isfinite().all()) for tensor in saved.values())


def test_an_infinite_label_names_its_task_and_step(cli, demo):
    edit(demo / "config.yaml", ("{_target_: data.Points, rows: 24}", "{_target_: data.Infinite, rows: 24}"))
    result = cli("fit", "config.yaml", "system.dataloaders.train.shuffle=false")
    assert result.code == 1
    assert "task 'height': the loss must be finite, got inf at step 3 in epoch 0" in result.err
    assert "No checkpoint was saved before it" in result.err
    assert "on_nonfinite: skip" in result.err


def test_a_step_that_is_skipped_is_counted(cli, demo):
    edit(demo / "config.yaml", ("{_target_: data.Points, rows: 24}", "{_target_: data.Infinite, rows: 24}"))
    with pytest.warns(UserWarning, match=r"task 'height': the loss must be finite, got inf .* in epoch 0"):
        result = cli("fit", "config.yaml", "system.on_nonfinite=skip")
    assert result.code == 0
    assert "2 steps were skipped" in result.out
    rows = rows_of(result.run)
    assert [float(row["train/skipped/epoch"]) for row in rows if row["train/skipped/epoch"]] == [1, 2]


# ---- a new project ----------------------------------------------------------------------------


def test_the_new_project_trains_as_it_stands(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("init", "mine").out == "mine: created; train with `polytask fit mine/config.yaml`\n"
    assert files(tmp_path) == {"mine/config.yaml", "mine/data.py", "mine/net.py"}
    assert cli("check", "mine/config.yaml").out == "no problems\n"
    assert cli("fit", "mine/config.yaml", "trainer.max_epochs=2").err == ""
    result = cli("test", "mine/config.yaml", "trainer.max_epochs=2")
    assert result.run.parent == Path("runs/mine")
    assert cli("init", "mine").code == 2


# ---- what else a trainer or a system may be ---------------------------------------------------


def test_a_config_without_loggers_logs_nothing(cli, demo):
    run = cli("fit", "config.yaml", "trainer.logger=false").run
    assert files(run) == {"environment.json", "config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}


def test_a_new_run_may_start_from_the_best_of_the_last_one(cli, demo):
    first = cli("fit", "config.yaml").run
    second = cli("fit", "config.yaml", "--ckpt", "best", "--run-dir", "second")
    assert second.code == 0
    assert not same(*(weights(run / "checkpoints/last.ckpt") for run in (first, second.run)))


def test_a_system_of_another_kind_is_refused(cli, demo):
    with (demo / "net.py").open("a") as file:
        file.write("\n\nimport pytorch_lightning as pl\n\n\nclass Other(pl.LightningModule):\n")
        file.write("    def __init__(self, **parts):\n        super().__init__()\n")
    result = cli("fit", "config.yaml", "system._target_=net.Other")
    assert (result.code, "system._target_: must be polytask.System" in result.err) == (2, True)


def test_a_subclass_of_the_system_will_do(cli, demo):
    with (demo / "net.py").open("a") as file:
        file.write("\n\nfrom polytask import System\n\n\nclass Own(System):\n    pass\n")
    assert cli("fit", "config.yaml", "system._target_=net.Own").code == 0


def test_callbacks_may_be_one(cli, demo):
    one = "{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss/total/epoch}"
    assert cli("fit", "config.yaml", f"trainer.callbacks={one}").code == 0


EARLY = "pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss/total/epoch"
BEST = "pytorch_lightning.callbacks.ModelCheckpoint, monitor: val/shape/Accuracy/epoch, mode: max"
PLATEAU = "torch.optim.lr_scheduler.ReduceLROnPlateau, monitor: val/loss/shape/epoch"


@pytest.mark.parametrize(
    ("key", "node", "where"),
    [
        ("trainer.callbacks", f"[{{_target_: {EARLY}}}]", "EarlyStopping.monitor"),
        ("trainer.callbacks", f"[{{_target_: {BEST}}}]", "ModelCheckpoint.monitor"),
        ("system.scheduler", f"{{_target_: {PLATEAU}}}", "scheduler.monitor"),
    ],
)
@pytest.mark.parametrize("limit", ["0", "0.0"])
def test_a_monitor_of_a_validation_that_is_not_run_is_refused(cli, demo, key, node, where, limit):
    words = ["config.yaml", f"trainer.limit_val_batches={limit}", f"{key}={node}"]
    for command in (["check"], ["fit", "--run-dir", "run"]):
        result = cli(command[0], *words, *command[1:])
        assert result.code == 2
        assert f"{where}: must be a key that is logged" in result.err
        assert "trainer.limit_val_batches=0, which runs no validation" in result.err
    assert not (demo / "run").exists()


def test_without_a_validation_a_run_has_no_best_epoch(cli, demo):
    result = cli("fit", "config.yaml", "--run-dir", "run", "trainer.limit_val_batches=0")
    assert (result.code, result.err) == (0, "")
    assert {path.name for path in (demo / "run" / "checkpoints").iterdir()} == {"last.ckpt"}
