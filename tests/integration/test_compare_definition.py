"""What the runs of a comparison are made of: the config, its overrides, and what each row changes."""

import pytest
import yaml

from polytask import UserError
from polytask.compare import Comparison

UW = "system.criterion.weighting={_target_: polytask.weighting.UW}"


@pytest.fixture
def made(demo):
    def made(methods, overrides=(), **options):
        return Comparison(["config.yaml"], methods, seeds=1, overrides=overrides, **options)

    return made


def test_overrides_change_the_config_and_not_the_rows(made):
    comparison = made(["pcgrad"], [UW, "system.optimizer.lr=0.5"], single_task=True)
    found = {}
    for candidate in comparison.candidates:
        system = comparison.config_of(candidate, 0).plain["system"]
        assert system["optimizer"]["lr"] == 0.5
        found[candidate.name] = system["criterion"]["weighting"]["_target_"].rpartition(".")[2]
    assert found == {
        "single_task_shape-base": "Fixed",
        "single_task_height-base": "Fixed",
        "plain_sum-base": "Fixed",
        "pcgrad-base": "PCGrad",
    }


def test_what_a_trial_draws_goes_before_the_overrides_and_a_files_values(made, demo):
    (demo / "slow.yaml").write_text("system: {optimizer: {lr: 0.001}}")
    comparison = made(["slow.yaml"], ["system.optimizer.lr=0.5"])
    slow = comparison.candidates[-1]
    assert comparison.config_of(slow, 0).plain["system"]["optimizer"]["lr"] == 0.001
    drawn = comparison.config_of(slow, 0, {"system.optimizer.lr": 0.25})
    assert drawn.plain["system"]["optimizer"]["lr"] == 0.25


def test_the_folder_keeps_what_was_compared_in_it_before(made, demo, tmp_path):
    (demo / "mine.yaml").write_text(
        UW.replace("system.criterion.weighting=", "system: {criterion: {weighting: ") + "}}"
    )
    folder = tmp_path / "comparison"
    for methods in (["mine.yaml"], ["equal"]):
        with made(methods).locked(folder):
            pass
    assert list(yaml.safe_load((folder / "comparison.yaml").read_text())["methods"]) == ["mine", "equal"]
    (demo / "mine.yaml").write_text("system: {optimizer: {lr: 1.0e-9}}")
    with (
        pytest.raises(UserError, match=r"the folder was made for, got other values of methods.mine"),
        made(["mine.yaml"]).locked(folder),
    ):
        pass


def test_a_folders_file_that_was_damaged(made, tmp_path):
    folder = tmp_path / "comparison"
    with made(["equal"]).locked(folder):
        pass
    (folder / "comparison.yaml").write_text("methods: 3")
    with (
        pytest.raises(UserError, match="must be the comparison that the folder was made for"),
        made(["equal"]).locked(folder),
    ):
        pass


def test_the_sums_weights_are_tuned_beside_what_all_tune(made):
    comparison = made(["uw"], trials=2)
    sum_, uw = comparison.candidates
    assert list(comparison.space_of(uw).given) == ["system.optimizer.lr"]
    # The first task's weight is the learning rate's business.
    assert list(comparison.space_of(sum_).given) == [
        "system.optimizer.lr",
        "system.criterion.weighting.weights.height",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": {"system.optimizer.lr": [0.1, 0.2]}}, "--space: must be used with several trials"),
        (
            {"space": {"trainer.max_epochs": [1, 2]}, "trials": 2},
            "trainer.max_epochs must be the same for all",
        ),
    ],
)
def test_a_space_that_changes_nothing_or_too_much(made, options, message):
    with pytest.raises(UserError, match=message):
        made(["uw"], **options)


def test_a_single_task_model_is_not_stopped_by_another_task(made):
    stop = "{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/loss/shape/epoch}"
    with pytest.raises(
        UserError, match=r"single_task_height-base: trainer\.callbacks: a model of 'height' alone"
    ):
        made(["uw"], [f"trainer.callbacks=[{stop}]"], single_task=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.limit_val_batches=0", r"trainer\.limit_val_batches: a run must compute validation metrics"),
        ("trainer.check_val_every_n_epoch=9", r"got 9 with 2 epochs\. Write 2 at most"),
    ],
)
def test_runs_that_would_see_no_validation_data_are_refused(made, override, message):
    with pytest.raises(UserError, match=message):
        made(["uw"], ["trainer.max_epochs=2", override])
    made(["uw"], ["trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2"])


def test_an_override_behind_the_methods_is_said(made):
    with pytest.raises(UserError, match=r"'trainer\.max_epochs=1'\. Write overrides before --methods"):
        made(["uw", "trainer.max_epochs=1"])


def test_what_a_methods_file_has_wrong_is_said_to_be_its_once(made, demo):
    (demo / "mine.yaml").write_text(
        "system: {criterion: {weighting: {_target_: polytask.weighting.CAGrad, d: 1}}}"
    )
    with pytest.raises(UserError, match=r"^mine-base system\.criterion\.weighting\.d: CAGrad has no arg"):
        made(["mine.yaml"])
