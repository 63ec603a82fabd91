"""Whole comparisons and searches: what they write, what they refuse, and that a kill changes nothing."""

import csv
import re
import shutil
import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

pytest.importorskip("optuna")

import optuna
from omegaconf import OmegaConf

from polytask.compare import Comparison, Processes, read_results
from polytask.config import Config
from tests.comparisons import comparing, kill, kill_at, numbers, rows, searching

WORDS = ["config.yaml", "--methods", "uw", "--jobs", "2"]


def test_a_comparison_from_its_config_to_its_table(cli, demo):
    words = [*WORDS, "--seeds", "2", "--single-task"]
    result = cli("compare", *words)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == "comparison: comparisons/demo"
    folder = demo / "comparisons" / "demo"
    assert [row["method"] for row in rows(folder)] == ["single_task", "plain_sum", "uw"]
    assert (folder / "table.md").read_text() in result.out
    found = read_results(folder)
    assert len(found) == 3 * 2 * 2
    assert {one.split for one in found} == {"test"}
    assert {(one.task, one.metric, one.higher_is_better) for one in found} == {
        ("shape", "Accuracy", True),
        ("height", "MeanSquaredError", False),
    }
    for one in found:
        assert (folder / one.run / "checkpoints" / "last.ckpt").is_file()
        assert one.seconds > 0
        assert one.peak_memory_mb > 1
        # The table is the runs' own numbers.
        with (folder / one.run / "test" / "metrics.csv").open() as file:
            assert float(next(csv.DictReader(file))[f"test/{one.task}/{one.metric}/epoch"]) == one.value

    # A second call repeats no run.
    again = cli("compare", *words)
    assert again.code == 0
    assert not re.search(r"^\d+/\d+ ", again.out, re.MULTILINE)

    # What a run does not depend on may change; anything else is another comparison.
    other = cli("compare", *words, "trainer.max_epochs=1")
    assert other.code == 2
    assert (
        "must be the comparison that the folder was made for, got other values of config.trainer.max_epochs"
        in other.err
    )
    assert cli("compare", *WORDS, "--seeds", "1").code == 0
    assert [(row["method"], row["seeds"]) for row in rows(folder)] == [("plain_sum", "1"), ("uw", "1")]


@pytest.mark.slow
def test_rows_that_a_command_does_not_name_are_said(cli, demo):
    (demo / "slow.yaml").write_text("system: {optimizer: {lr: 0.01}}")
    words = ["compare", "config.yaml", "trainer.max_epochs=1", "--seeds", "1", "--methods"]
    both = cli(*words, "uw", "slow.yaml", "--single-task")
    assert both.code == 0, both.err
    assert "named this time" not in both.out
    one = cli(*words, "uw")
    assert one.code == 0, one.err
    assert "No delta_m: the single-task models were not named this time; add --single-task." in one.out
    assert "Not in this table: single_task-base, slow-base, which are trained" in one.out
    text = (demo / "comparisons" / "demo" / "table.md").read_text()
    assert "Holm's correction cover the rows of this table only." in text
    assert "named this time" not in cli(*words, "uw", "slow.yaml", "--single-task").out


def test_a_single_task_model_learns_its_task_alone(cli, demo):
    result = cli("compare", *WORDS, "--seeds", "1", "--single-task")
    assert result.code == 0
    runs = demo / "comparisons" / "demo" / "runs"
    states = [
        torch.load(runs / f"single_task_{task}-base-seed0/checkpoints/last.ckpt", weights_only=True)[
            "state_dict"
        ]
        for task in ("shape", "height")
    ]
    begin = torch.load(runs / "uw-base-seed0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    # The other task's head is as it was made, which is the same in both runs' start.
    assert not torch.equal(states[0]["model.heads.shape.weight"], states[1]["model.heads.shape.weight"])
    assert not torch.equal(states[0]["model.backbone.0.weight"], states[1]["model.backbone.0.weight"])
    assert not torch.equal(begin["model.heads.shape.weight"], states[1]["model.heads.shape.weight"])
    for state, other in zip(states, ("height", "shape"), strict=True):
        pl.seed_everything(0, workers=True, verbose=False)
        fresh = Config.read([demo / "config.yaml"]).build("system.model").state_dict()
        assert torch.equal(state[f"model.heads.{other}.weight"], fresh[f"heads.{other}.weight"])


@pytest.mark.long
def test_a_kill_changes_nothing(cli, demo):
    words = ["compare", *WORDS, "--seeds", "1", "--trials", "2", "--single-task"]
    assert cli(*words, "--dir", "whole").code == 0
    given = {"methods": ["uw"], "seeds": 1, "trials": 2, "single_task": True}
    task = (comparing, given, Processes, "killed")
    # Between the trials, in a training that has a checkpoint, and between the trainings or tests.
    checkpoint = Path("killed/runs/single_task_height-base-seed0/checkpoints/last.ckpt")
    codes = [kill(3, *task), kill_at(checkpoint, *task), kill(2, *task)]
    assert codes == [-signal.SIGKILL] * 3
    assert cli(*words, "--dir", "killed").code == 0
    assert numbers(demo / "killed") == numbers(demo / "whole")
    assert rows(demo / "killed") == rows(demo / "whole")

    # Trials are on another seed than what is compared, never see the test data, and are kept once.
    trial = yaml.safe_load((demo / "killed/runs/uw-base-trial0/config.yaml").read_text())
    assert trial["seed"] == 1_000_000
    assert not (demo / "killed/runs/uw-base-trial0/test").exists()
    studies = optuna.get_all_study_summaries(f"sqlite:///{demo}/killed/trials.db")
    assert sorted((study.study_name, study.n_trials) for study in studies) == [
        ("plain_sum-base", 2),
        ("single_task_height-base", 2),
        ("single_task_shape-base", 2),
        ("uw-base", 2),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "pcgard"], "unknown method 'pcgard'. Did you mean 'pcgrad'?"),
        (["--methods", "uw", "--seeds", "0"], "--seeds: must be 1 or more, got 0"),
        (["--methods", "uw", "--jobs", "0"], "--jobs: must be 1 or more, got 0"),
        (["--methods", "uw", "--architectures", "none.yaml"], "none.yaml: there is no such file"),
        (
            ["--methods", "uw", "--direction", "shape/Acuracy=max"],
            "unknown metric 'shape/Acuracy'. Did you mean 'shape/Accuracy'?",
        ),
        (
            ["--methods", "uw", "--direction", "shape/Accuracy"],
            "must be <task>/<Metric>=max or <task>/<Metric>=min",
        ),
        (["--methods", "uw", "--direction", "shape/Accuracy=up"], "must be 'max' or 'min', got 'up'"),
        (["--launcher", "slurm"], "invalid choice: 'slurm'"),
        (["--methods", "uw", "--dir", "."], "--dir .: must be a comparison, or a new folder"),
    ],
)
def test_bad_arguments_are_said_before_anything_runs(cli, demo, words, message):
    result = cli("compare", "--config", "config.yaml", *words)
    assert result.code == 2
    assert message in result.err
    assert not (demo / "comparisons").exists()


def test_a_metric_of_unknown_direction_is_asked_for(cli, demo):
    text = (demo / "config.yaml").read_text()
    known = "{_target_: torchmetrics.MeanSquaredError}"
    (demo / "config.yaml").write_text(text.replace(known, "{_target_: torchmetrics.MeanMetric}"))
    result = cli("compare", "config.yaml", "--methods", "uw")
    assert result.code == 2
    assert "metrics.height: the better direction of 'MeanMetric' must be given" in result.err
    assert "Write --direction height/MeanMetric=max or --direction height/MeanMetric=min" in result.err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("system.dataloaders.val", "null", "is required, because trials are chosen by validation data"),
        (
            "system.criterion",
            "{_target_: net.Untotalled}",
            "must be a MultiTaskLoss, whose weighting the comparison sets",
        ),
        (
            "trainer.logger",
            "false",
            "trainer.logger: must not be set, because the comparison reads the default",
        ),
    ],
)
def test_a_config_that_cannot_be_compared(cli, demo, key, value, message):
    result = cli("compare", "config.yaml", f"{key}={value}", "--methods", "uw")
    assert result.code == 2
    assert message in result.err


def test_a_logger_of_the_config_is_left_out_by_an_override(cli, demo):
    logger = "{_target_: pytorch_lightning.loggers.CSVLogger, save_dir: elsewhere}"
    text = (demo / "config.yaml").read_text()
    (demo / "logged.yaml").write_text(text.replace("trainer:\n", f"trainer:\n  logger: {logger}\n"))
    refused = cli("compare", "logged.yaml", "--methods", "uw")
    assert refused.code == 2
    assert "Leave it out, or write trainer.logger=null" in refused.err
    assert Comparison(["logged.yaml"], ["uw"], overrides=["trainer.logger=null"]).split == "test"
    # A method may bring one too.
    (demo / "mine.yaml").write_text("trainer: {logger: false}")
    refused = cli("compare", "config.yaml", "--methods", "mine.yaml")
    assert refused.code == 2
    assert (
        "mine-base: trainer.logger: must not be set, because the comparison reads the default" in refused.err
    )


def test_a_space_that_does_not_fit_a_row_is_said_first(cli, demo):
    (demo / "space.yaml").write_text("system.criterion.weighting.c: [0.1, 0.5]")
    result = cli("compare", *WORDS, "--trials", "2", "--space", "space.yaml")
    assert result.code == 2
    assert "--space: plain_sum-base: " in result.err
    assert not (demo / "comparisons").exists()


MINE = """
system: {criterion: {weighting: {_target_: polytask.weighting.CAGrad}}}
space: {system.criterion.weighting.c: {low: 0.1, high: 0.9}}
"""


def test_a_methods_own_parameters_are_tuned_in_addition(cli, demo):
    (demo / "mine.yaml").write_text(MINE)
    words = ["compare", "config.yaml", "--methods", "mine.yaml", "--seeds", "1", "--trials", "2"]
    assert cli(*words).code == 0
    runs = demo / "comparisons/demo/runs"
    first, second = (
        yaml.safe_load((runs / f"mine-base-trial{number}/config.yaml").read_text())["system"]
        for number in (0, 1)
    )
    assert "c" not in first["criterion"]["weighting"]
    assert 0.1 <= second["criterion"]["weighting"]["c"] <= 0.9
    assert second["optimizer"]["lr"] != first["optimizer"]["lr"] == 0.1
    assert cli(*words).code == 0
    # Another space is another comparison.
    (demo / "mine.yaml").write_text(MINE.replace("0.9", "0.8"))
    changed = cli(*words)
    assert changed.code == 2
    assert "must be the comparison that the folder was made for" in changed.err


def test_a_methods_space_is_for_trials(cli, demo):
    (demo / "mine.yaml").write_text(MINE)
    result = cli("compare", "config.yaml", "--methods", "mine.yaml")
    assert result.code == 2
    assert (
        "mine-base space: must be used with several trials, got --trials 1. Write for example --trials 8"
        in result.err
    )
    assert not (demo / "comparisons").exists()


SEVERAL = """
from torchmetrics import MeanSquaredError


class Several(MeanSquaredError):
    def compute(self):
        return {"a": super().compute(), "b": super().compute()}
"""


def test_a_metric_of_several_numbers_is_known_by_the_first_run(cli, demo):
    (demo / "odd.py").write_text(SEVERAL)
    odd = "system.metrics.height={_target_: odd.Several}"
    words = ["compare", "config.yaml", odd, "--methods", "uw", "--seeds", "1"]
    result = cli(*words)
    assert result.code == 1
    assert "no val/height/Several/epoch, but val/height/Several_a/epoch, val/height/Several_b/e" in result.err
    # And by the next call, which trains no other.
    assert cli(*words).err == result.err
    runs = (demo / "comparisons/demo/runs").glob("[!.]*")
    assert [run.name for run in runs] == ["plain_sum-base-seed0"]


def test_a_task_without_a_validation_label_is_in_a_table_of_the_test_split(cli, demo):
    unlabelled = "system.dataloaders.val.dataset._target_=data.Unlabelled"
    assert cli("compare", "config.yaml", unlabelled, "--methods", "uw", "--seeds", "1").code == 0
    assert "height/MeanSquaredError mean" in rows(demo / "comparisons/demo")[0]


@pytest.mark.parametrize("wrong", ["system.criterion.weighting.cc", "system.criterion.wait"])
def test_a_methods_space_names_what_it_accepts(cli, demo, wrong):
    (demo / "mine.yaml").write_text(MINE.replace("system.criterion.weighting.c", wrong))
    result = cli("compare", "config.yaml", "--methods", "mine.yaml", "--trials", "2")
    assert result.code == 2
    assert "mine-base" in result.err
    assert not (demo / "comparisons").exists()


def test_a_row_that_fails_is_left_out(cli, demo):
    (demo / "wild.yaml").write_text("system: {optimizer: {lr: 1.0e+30}}")
    words = [*WORDS, "--seeds", "1", "--single-task"]
    result = cli("compare", *words, "--methods", "wild.yaml")
    assert result.code == 1
    assert result.err == "error: polytask compare: every row must have a result, got none for wild-base.\n"
    said = re.search(r"Left out: wild-base failed with seed 0: (.*)", result.out)
    assert said
    assert "tasks 'shape', 'height': the loss must be finite" in said[1]
    folder = demo / "comparisons" / "demo"
    assert [row["method"] for row in rows(folder)] == ["single_task", "plain_sum", "uw"]
    # It is tried again, and nothing else is.
    assert cli("compare", *words, "--methods", "wild.yaml").out.count("failed with seed") == 1
    shutil.rmtree(folder / "runs" / "wild-base-seed0")
    (demo / "wild.yaml").write_text("system: {optimizer: {lr: 0.01}}")
    (folder / "comparison.yaml").write_text(
        (folder / "comparison.yaml").read_text().replace("1.0e+30", "0.01")
    )
    tamed = cli("compare", *words, "--methods", "wild.yaml")
    assert (tamed.code, tamed.err) == (0, "")
    assert [row["method"] for row in rows(folder)] == ["single_task", "plain_sum", "uw", "wild"]


def test_a_reason_is_shown_as_it_is(cli, demo):
    broken = """

class Broken(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("[enforce fail] see [/proc/meminfo] :warning:")
"""
    (demo / "data.py").write_text((demo / "data.py").read_text() + broken)
    (demo / "wild.yaml").write_text("system: {optimizer: {_target_: data.Broken, lr: 0.1}}")
    result = cli("compare", "config.yaml", "--methods", "wild.yaml", "--seeds", "1")
    assert result.code == 1
    reason = "RuntimeError: [enforce fail] see [/proc/meminfo] :warning:"
    assert result.out.count(reason) == 2
    assert f"fit wild-base-seed0 failed: {reason}" in result.out
    assert f"Left out: wild-base failed with seed 0: {reason}" in result.out


def test_nothing_is_left_where_every_row_fails(cli, demo):
    text = (demo / "config.yaml").read_text().replace("data.Points, rows: 24", "data.Infinite, rows: 24")
    (demo / "config.yaml").write_text(text)
    for words in ([], ["--trials", "2", "--dir", "tuned"]):
        result = cli("compare", "config.yaml", "--methods", "uw", "--seeds", "1", *words)
        assert result.code == 1
        assert "at least one row must have a result, got plain_sum-base failed" in result.err


def test_a_trial_that_fails_is_passed_over(cli, demo):
    (demo / "space.yaml").write_text("system.optimizer.lr: [1.0e+30, 1.0e+29]")
    words = ["--methods", "uw", "--seeds", "1", "--trials", "2", "--space", "space.yaml"]
    result = cli("compare", "config.yaml", *words)
    assert (result.code, result.err) == (0, "")
    assert "a metric that is not finite: 1 of 2 of plain_sum-base, 1 of 2 of uw-base." in result.out
    assert "Chosen by validation: plain_sum-base: the config; uw-base: the config." in result.out


def test_a_run_of_another_config_is_not_taken_for_this_one(cli, demo):
    assert cli("compare", *WORDS, "--seeds", "1").code == 0
    kept = demo / "comparisons" / "demo" / "runs" / "uw-base-seed0" / "config.yaml"
    kept.write_text(kept.read_text().replace("lr: 0.1", "lr: 0.2"))
    result = cli("compare", *WORDS, "--seeds", "1")
    assert result.code == 2
    assert (
        "must be the config that the run is trained with now, got other values of system.optimizer.lr"
        in result.err
    )


def search(folder: Path, words: list[str]) -> list[str]:
    (folder / "space.yaml").write_text(
        "system.optimizer.lr: {low: 1e-3, high: 1.0, log: true}\nsystem.model.width: [4, 8]\n"
    )
    return ["tune", "config.yaml", "--space", "space.yaml", "--trials", "3", *words]


def tried(folder: Path) -> list[tuple[dict[str, object], list[float] | None]]:
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/trials.db")
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return [(trial.params, trial.values) for trial in study.get_trials(states=states)]


def test_a_search_that_is_killed_tries_what_it_would_have_tried(cli, demo):
    words = search(demo, [])
    whole = cli(*words, "--dir", "whole")
    assert (whole.code, whole.err) == (0, "")
    assert tried(demo / "whole")[0] == ({}, [0.0])
    best = max(values[0] for _, values in tried(demo / "whole"))
    assert f"with delta_m={best:.4g}" in whole.out
    given = {"space": OmegaConf.to_container(OmegaConf.load("space.yaml")), "trials": 3}
    assert kill(2, searching, given, "killed") == -signal.SIGKILL
    assert cli(*words, "--dir", "killed").code == 0
    assert tried(demo / "killed") == tried(demo / "whole")
    assert cli(*words, "--dir", "whole", "trainer.max_epochs=1").code == 2


def test_several_objectives_give_a_pareto_front(cli, demo):
    result = cli(*search(demo, ["--objective", "shape/Accuracy", "height/loss"]), "--dir", "front")
    assert result.code == 0
    found = [values for _, values in tried(demo / "front")]
    front = [one for one in found if not any(o[0] >= one[0] and o[1] <= one[1] and o != one for o in found)]
    assert len(re.findall(r"^best: ", result.out, re.MULTILINE)) == len(front)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--objective", "shape/Acuracy"],
            "unknown objective 'shape/Acuracy'. Did you mean 'shape/Accuracy'?",
        ),
        (
            ["--objective", "shape/loss", "height/loss", "--prune"],
            "--prune: must be used with a single objective",
        ),
        (["--trials", "0"], "--trials: must be 1 or more"),
        (["--dir", "."], "must be a search, or a new folder"),
    ],
)
def test_bad_words_of_a_search(cli, demo, words, message):
    result = cli(*search(demo, []), *words)
    assert result.code == 2
    assert message in result.err


def test_a_space_names_keys_of_the_config(cli, demo):
    (demo / "space.yaml").write_text("system.optimiser.lr: [0.1]")
    result = cli("tune", "config.yaml", "--space", "space.yaml")
    assert result.code == 2
    assert "optimiser" in result.err
    assert "optimizer" in result.err
    assert not (demo / "tuning").exists()
