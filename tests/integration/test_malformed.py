"""What a user may get wrong: exit code 2, one line that names the key and the way out, nothing written."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

LOADER = "_target_: torch.utils.data.DataLoader"
DATASET = "dataset: {_target_: data.Points, rows: 24}"
HEIGHT = "height: {_target_: torch.nn.MSELoss}"
OPTIMIZER = "optimizer: {_target_: torch.optim.SGD, lr: 0.1}"


@dataclass(frozen=True)
class Case:
    """One mistake: the words after ``polytask``, edits of the config's text, and what the line must name."""

    id: str
    named: tuple[str, ...]
    words: tuple[str, ...] = ("fit", "config.yaml")
    edits: dict[str, str] = field(default_factory=dict)


def edited(id: str, old: str, new: str, *named: str) -> Case:
    return Case(id, named, edits={old: new})


def overridden(id: str, override: str, *named: str) -> Case:
    return Case(id, named, words=("fit", "config.yaml", override))


def called(id: str, words: str, *named: str) -> Case:
    return Case(id, named, words=tuple(words.split()))


def dataset(id: str, target: str, *named: str) -> Case:
    return edited(id, DATASET, f"dataset: {{_target_: data.{target}, rows: 24}}", *named)


def model(id: str, target: str, *named: str) -> Case:
    return edited(id, "net.Net", f"net.{target}", *named)


WORDS = [
    called("no_command", "", "COMMAND", "--help"),
    called("unknown_command", "fitt config.yaml", "'fitt'", "fit"),
    called("unknown_option", "fit config.yaml --resum", "'--resum'", "'--resume'"),
    called("option_of_another_command", "test config.yaml --resume", "'--resume'", "--run-dir"),
    called("option_without_value", "fit config.yaml --ckpt", "--ckpt", "argument"),
    called("seed_not_a_number", "fit config.yaml --seed one", "--seed", "'one'"),
    called("seed_negative", "fit config.yaml seed=-1", "seed", "-1", "integer"),
    called("no_config", "fit", "polytask: a config file is required, got none", "config.yaml"),
    called("missing_file", "fit confg.yaml", "confg.yaml", "'config.yaml'"),
    called("folder_for_file", "fit .", "folder", "config.yaml"),
    called("resume_without_run", "fit config.yaml --resume", "runs/demo", "polytask fit"),
    called("resume_with_ckpt", "fit config.yaml --resume --ckpt last", "--ckpt", "--resume"),
    called("resume_with_dry_run", "fit config.yaml --resume --dry-run", "--dry-run", "--resume"),
    called("test_without_run", "test config.yaml", "runs/demo", "polytask fit"),
    called("validate_without_run", "validate config.yaml --ckpt last", "runs/demo", "polytask fit"),
    called("predict_without_run", "predict config.yaml", "runs/demo", "polytask fit"),
    called("ckpt_missing", "test config.yaml --ckpt runs/best.ckpt", "--ckpt", "runs/best.ckpt", "best"),
    called("run_dir_missing", "test --run-dir nowhere", "nowhere"),
    called("init_over_a_folder", "init .", "must not exist", "another name"),
    called("init_beneath_a_file", "init config.yaml/new", "config.yaml/new", "Not a directory"),
    called("run_dir_beneath_a_file", "fit config.yaml --run-dir net.py/run", "net.py/run", "Not a directory"),
    called("run_dir_in_use", "fit config.yaml --run-dir .", "--run-dir", "Name another"),
    called("allow_a_builtin", "fit config.yaml system.model._target_=os.system", "os.system"),
]
OVERRIDES = [
    overridden("unknown_key_at_the_top", "trainr.max_epochs=1", "'trainr'", "'trainer'"),
    overridden(
        "key_that_is_not_there",
        "system.dataloaders.trian.batch_size=1",
        "trian",
        "system.dataloaders.train'?",
    ),
    overridden("unknown_argument_of_the_trainer", "trainer.max_epoch=1", "'max_epoch'", "'max_epochs'"),
    overridden("key_of_a_value", "seed.x=1", "seed", "0"),
    overridden("override_without_a_key", "=1", "key=value"),
    overridden("unknown_device", "trainer.accelerator=gpuu", "trainer", "gpuu"),
    overridden("absent_device", "trainer.accelerator=mps", "config.yaml:3 trainer", "can not run"),
    overridden("unknown_precision", "trainer.precision=12", "trainer", "12"),
    overridden("wrong_type_of_the_trainer", "trainer.max_epochs=many", "trainer.max_epochs", "'many'"),
    overridden(
        "wrong_type_of_the_model",
        "system.model.width=eight",
        "config.yaml:8 system.model",
        "found element of type str",
    ),
    overridden("wrong_type_of_the_loader", "system.dataloaders.train.batch_size=0", "dataloaders.train", "0"),
    overridden("negative_learning_rate", "optimizer.lr=-1", "optimizer", "-1"),
    overridden("project_that_is_no_folder", "project=nowhere", "project", "'nowhere'"),
    overridden("on_nonfinite", "system.on_nonfinite=skipp", "on_nonfinite", "'skip'"),
    overridden("reduction", "system.criterion.reduction=avg", "reduction", "'mean'", "'avg'"),
    overridden("callback_as_text", "trainer.callbacks=EarlyStopping", "trainer.callbacks", "EarlyStopping"),
]
FILES = [
    edited("not_yaml", "seed: 0", "seed: [0", "config.yaml"),
    edited("tab", "  max_epochs: 2", "\tmax_epochs: 2", "config.yaml:4", "tab"),
    edited(
        "duplicate_key", "seed: 0", "seed: 0\nseed: 1", "config.yaml:3", "the key 'seed' must be given once"
    ),
    edited("unknown_key_in_the_file", "seed: 0", "sed: 0", "'sed'", "'seed'"),
    edited("unknown_key_of_the_system", "  optimizer:", "  optimiser:", "'optimiser'", "'optimizer'"),
    edited("unknown_key_of_the_trainer", "max_epochs: 2", "max_epoch: 2", "'max_epoch'", "'max_epochs'"),
    edited("unknown_word", "_target_: net.Net", "_target: net.Net", "_target", "_target_"),
    edited("no_system", "system:", "vars:", "'system'"),
    edited("no_model", "  model: {_target_: net.Net, width: 8}\n", "", "'model'"),
    edited("no_optimizer", f"  {OPTIMIZER}\n", "", "optimizer"),
    edited("wrong_target", "torch.optim.SGD", "torch.optim.SGDD", "'SGDD'", "'torch.optim.SGD'"),
    edited("wrong_module", "net.Net", "nets.Net", "nets", "net"),
    edited("wrong_class_of_the_project", "net.Net", "net.Nett", "'Nett'", "'net.Net'"),
    edited("target_that_is_no_text", "_target_: net.Net", "_target_: 3", "_target_", "3"),
    edited("misspelt_argument", "width: 8", "widht: 8", "'widht'", "'width'"),
    edited("argument_missing", f"      {DATASET}\n", "", "system.dataloaders.train", "'dataset'"),
    edited("no_such_metric", "torchmetrics.Accuracy", "torchmetrics.DiceMetric", "DiceMetric", "Dice"),
    edited(
        "misspelt_metric",
        "torchmetrics.Accuracy",
        "torchmetrics.Acuracy",
        "Acuracy",
        "'torchmetrics.Accuracy'",
    ),
    edited("misspelt_metric_argument", "num_classes: 3", "num_class: 3", "'num_class'", "'num_classes'"),
    edited("metric_argument_missing", ", num_classes: 3", "", "system.metrics.shape", "num_classes"),
    edited("bad_reference", "width: 8", 'width: "@system.size"', "system.size", "system.model.width"),
    edited("unquoted_reference", "width: 8", "width: @seed", "config.yaml:8", "quoted"),
    edited("reference_to_itself", "width: 8", "width: $@system.model.width", "system.model.width"),
    edited("cycle", "width: 8", "width: $@system.model", "system.model", "must not need itself"),
    edited("expression", "width: 8", "width: $len('abc')", "width", "len"),
    edited(
        "interpolation_that_is_not_there", "width: 8", "width: '${trainer.max_epoch}'", "trainer.max_epochs"
    ),
    edited(
        "task_in_metrics_only",
        "height: {_target_: torchmetrics",
        "heigth: {_target_: torchmetrics",
        "'heigth'",
        "'height'",
    ),
    edited(
        "metric_that_is_none",
        "_target_: torchmetrics.MeanSquaredError",
        "_target_: torch.nn.MSELoss",
        "metrics.height",
        "torchmetrics",
    ),
    edited("task_name_reserved", HEIGHT, "total: {_target_: torch.nn.MSELoss}", "'total'", "Rename"),
    edited("task_name_with_a_dash", HEIGHT, "how-high: {_target_: torch.nn.MSELoss}", "'how-high'", "Rename"),
    edited(
        "no_tasks",
        "    task_losses:\n      shape: {_target_: torch.nn.CrossEntropyLoss}\n      " + HEIGHT,
        "    task_losses: {}",
        "task_losses",
        "task",
    ),
    edited("loss_that_is_no_module", HEIGHT, "height: mse", "height", "torch.nn.Module"),
    edited(
        "negative_loss_weight",
        "    task_losses:",
        "    loss_weights: {height: -1.0}\n    task_losses:",
        "loss_weights",
        "-1.0",
    ),
    edited(
        "zero_loss_weights",
        "    task_losses:",
        "    loss_weights: {height: 0.0, shape: 0.0}\n    task_losses:",
        "loss_weights",
        "0.0",
    ),
    edited(
        "weights_of_another_task",
        "    task_losses:",
        "    loss_weights: {heigth: 1.0}\n    task_losses:",
        "'heigth'",
        "'height'",
    ),
    edited(
        "wrong_weighting",
        "    task_losses:",
        "    weighting: {_target_: polytask.weighting.Fixd}\n    task_losses:",
        "Fixd",
        "'polytask.weighting.Fixed'",
    ),
    edited(
        "monitor_unknown",
        "  max_epochs: 2",
        "  callbacks: [{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/shape/accuracy}]\n"
        "  max_epochs: 2",
        "EarlyStopping.monitor",
        "'val/shape/Accuracy/epoch'",
    ),
    edited(
        "plateau_without_monitor",
        OPTIMIZER,
        OPTIMIZER + "\n  scheduler: {_target_: torch.optim.lr_scheduler.ReduceLROnPlateau}",
        "scheduler",
        "monitor",
    ),
    edited(
        "plateau_monitor_unknown",
        OPTIMIZER,
        OPTIMIZER + "\n  scheduler: {_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, monitor: val/los}",
        "scheduler.monitor",
        "'val/los'",
    ),
    edited(
        "scheduler_interval",
        OPTIMIZER,
        OPTIMIZER
        + "\n  scheduler: {_target_: torch.optim.lr_scheduler.StepLR, step_size: 1, interval: batch}",
        "interval",
        "'batch'",
        "'step'",
    ),
    edited(
        "scheduler_argument",
        OPTIMIZER,
        OPTIMIZER + "\n  scheduler: {_target_: torch.optim.lr_scheduler.StepLR, stepsize: 1}",
        "'stepsize'",
        "'step_size'",
    ),
    edited(
        "optimizer_twice",
        "seed: 0",
        "seed: 0\noptimizer: {_target_: torch.optim.SGD}",
        "'optimizer'",
        "Keep one",
    ),
    edited(
        "group_that_fits_nothing",
        "lr: 0.1}",
        "lr: 0.1, groups: {backbon: {lr: 0.01}}}",
        "optimizer.groups.backbon",
        "'backbone'",
    ),
    edited(
        "group_option",
        "lr: 0.1}",
        "lr: 0.1, groups: {backbone: {learning_rate: 0.01}}}",
        "optimizer.groups.backbone.learning_rate",
    ),
    edited("unknown_stage", "    test:", "    tset:", "'tset'", "'test'"),
    edited("no_train_loader", "    train:", "    predict_:", "predict_"),
    edited(
        "adapter_kind",
        "  metrics:\n",
        "  adapters: {bach: {_target_: polytask.adapters.BatchAdapter}}\n  metrics:\n",
        "'bach'. Did you mean 'batch'",
        "'batch'",
    ),
    edited(
        "adapter_of_another_kind",
        "  metrics:\n",
        "  adapters: {batch: {_target_: polytask.adapters.MetricsAdapter}}\n  metrics:\n",
        "adapters.batch",
        "BatchAdapter",
    ),
    edited(
        "bad_accessor",
        "  metrics:\n",
        "  adapters: {batch: {_target_: polytask.adapters.BatchAdapter, target_accessor: 2}}\n  metrics:\n",
        "adapters.batch.target_accessor",
        "2 parts",
    ),
    edited(
        "accessor_of_another_task",
        "  metrics:\n",
        "  adapters: {batch: {_target_: polytask.adapters.BatchAdapter, target_accessor: {heigth: 1.height}}}"
        "\n  metrics:\n",
        "'heigth'",
        "'height'",
    ),
    edited(
        "adapter_positions",
        "  metrics:\n",
        "  adapters: {metrics: {_target_: polytask.adapters.MetricsAdapter, target_argument: 2}}"
        "\n  metrics:\n",
        "system.adapters.metrics",
        "positions",
    ),
]
RUNS = [
    model("task_without_output", "OnlyShape", "'height'", "shape"),
    model("outputs_of_another_number", "Listed", "4 outputs", "shape, height"),
    model("wrong_shapes", "Pair", "'height'", "(8, 2)", "(8,)"),
    model("model_that_raises", "Raising", "model", "Raising", "not today", "--debug"),
    dataset("inputs_of_another_width", "Wide", "model", "(4, 5)"),
    dataset("class_out_of_range", "FourClasses", "'shape'", "0 to 2", "class 3"),
    dataset("task_never_labelled", "Unlabelled", "'height'", "label", "target_accessor"),
    dataset("dataset_that_raises", "Lost", "dataloaders.train", "images/0.png", "--debug"),
    edited(
        "dataset_that_raises_in_a_worker",
        DATASET,
        "num_workers: 1\n      dataset: {_target_: data.Lost, rows: 24}",
        "dataloaders.train",
        "images/0.png",
        "--debug",
    ),
    edited(
        "misspelt_target",
        DATASET,
        "dataset: {_target_: data.Points, rows: 24, height: heigth}",
        "'height'",
        "'heigth'",
    ),
    edited("empty_dataset", DATASET, "dataset: {_target_: data.Points, rows: 0}", "dataloaders.train"),
    edited(
        "all_batches_dropped", "batch_size: 4", "batch_size: 32\n      drop_last: true", "dataloaders.train"
    ),
    edited(
        "dict_without_total",
        "    _target_: polytask.losses.MultiTaskLoss\n    task_losses:\n"
        "      shape: {_target_: torch.nn.CrossEntropyLoss}\n      " + HEIGHT,
        "    _target_: net.Untotalled",
        "'total'",
        "Untotalled",
    ),
    edited(
        "criterion_of_many_numbers",
        "    _target_: polytask.losses.MultiTaskLoss\n    task_losses:\n"
        "      shape: {_target_: torch.nn.CrossEntropyLoss}\n      " + HEIGHT,
        "    _target_: net.Vector",
        "(8, 1)",
        "Vector",
    ),
    edited("metric_on_another_shape", "num_classes: 3", "num_classes: 2", "metrics.shape.Accuracy"),
]


@pytest.mark.parametrize("case", [*WORDS, *OVERRIDES, *FILES, *RUNS], ids=lambda case: case.id)
def test_a_mistake_is_told_in_one_line(case, cli, demo):
    text = (demo / "config.yaml").read_text()
    for old, new in case.edits.items():
        assert text.count(old) == 1, f"the edit must hit one place: {old}"
        text = text.replace(old, new)
    (demo / "config.yaml").write_text(text)
    before = files(demo)

    result = cli(*case.words)

    assert result.code == 2, result
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: ")
    for word in case.named:
        assert word in lines[0], lines[0]
    assert "Traceback" not in result.err + result.out
    assert files(demo) == before


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}
