"""Trials: drawn, scored on validation, chosen, kept once."""

import math

import pytest

pytest.importorskip("optuna")

import optuna

from polytask import UserError
from polytask.compare import Space
from polytask.compare._measures import Measure
from polytask.compare._tuning import FILE, best, draw, keep_trials, scores, storage

SPACE = Space({"system.optimizer.lr": {"low": 0.1, "high": 1.0}})
MEASURES = [Measure("a", "Accuracy", True), Measure("b", "Error", False)]


def values(accuracy, error):
    return {("a", "Accuracy"): accuracy, ("b", "Error"): error}


def test_the_first_trial_is_the_config_as_it_stands():
    assert draw(SPACE, 0, 0) == {}
    assert 0.1 <= draw(SPACE, 0, 1)["system.optimizer.lr"] <= 1.0


def test_a_score_is_the_mean_gain_over_the_first_trial_that_ended():
    # +20 % and -10 % make 5; the trial 0 failed.
    assert scores({1: values(0.5, 1.0), 2: values(0.6, 1.1)}, MEASURES) == pytest.approx({1: 0.0, 2: 5.0})


def test_only_the_measures_given_count():
    assert scores({0: values(0.5, 1.0), 1: values(0.6, 9.0)}, MEASURES[:1]) == pytest.approx({0: 0, 1: 20})


def test_a_trial_whose_metric_is_not_finite_has_no_score():
    trials = {0: values(math.nan, 1.0), 1: values(0.5, 1.0), 2: values(0.6, 1.0), 3: values(0.5, math.inf)}
    assert scores(trials, MEASURES) == pytest.approx({1: 0.0, 2: 10.0})
    assert scores({0: values(math.nan, 1.0)}, MEASURES) == {}


def test_gains_are_over_the_first_trial_that_is_not_0_there():
    trials = {0: values(0.0, 2.0), 1: values(0.5, 1.0), 2: values(0.6, 2.0)}
    assert scores(trials, MEASURES) == pytest.approx({0: -50.0, 1: 25.0, 2: 10.0})


def test_a_metric_that_is_0_in_every_trial_says_nothing():
    trials = {0: values(0.0, 2.0), 1: values(0.0, 1.0)}
    assert scores(trials, MEASURES) == pytest.approx({0: 0.0, 1: 50.0})
    assert scores({0: values(0.0, 0.0), 3: values(0.0, 0.0)}, MEASURES) == {0: 0.0, 3: 0.0}


def test_the_best_has_the_highest_score_and_the_lowest_number():
    assert best({0: 0.0, 2: 3.0, 1: 3.0}) == 1


@pytest.mark.slow
def test_trials_are_kept_once_with_what_became_of_them(tmp_path):
    drawn = {number: draw(SPACE, 0, number) for number in range(3)}
    for _ in range(2):
        keep_trials(tmp_path, "uw-base", SPACE, drawn, {0: 0.0, 2: 4.0})
    study = optuna.load_study(study_name="uw-base", storage=storage(tmp_path / FILE))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert [trial.params for trial in study.trials] == list(drawn.values())
    assert study.best_value == 4.0


def test_a_damaged_file_of_trials_is_said(tmp_path):
    (tmp_path / FILE).write_text("not SQLite, " * 100)
    with pytest.raises(UserError, match="must be a SQLite file of Optuna"):
        storage(tmp_path / FILE)
