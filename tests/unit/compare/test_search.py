"""Searches on runs that exist already: what Optuna receives, what is pruned, and what is best."""

import pytest

pytest.importorskip("optuna")

import optuna
from omegaconf import OmegaConf

from polytask import RunError, UserError
from polytask.compare import Search, tune
from polytask.compare._lock import locked_for
from polytask.compare._outcome import Outcome

pytestmark = pytest.mark.slow

SPACE = {"system.optimizer.lr": {"low": 0.01, "high": 1.0}}


def trained(folder, number, accuracies, error=1.0):
    """A finished run with these accuracies by epoch."""
    run = folder / "runs" / str(number)
    run.mkdir(parents=True)
    logged = ("shape/Accuracy", "height/MeanSquaredError", "loss/shape", "loss/height")
    keys = ",".join(f"val/{key}/epoch" for key in logged)
    rows = [f"{epoch},{epoch},{accuracy},{error},1,1" for epoch, accuracy in enumerate(accuracies)]
    (run / "metrics.csv").write_text("\n".join([f"epoch,step,{keys}", *rows, ""]))
    (run / "cost.json").write_text("{}")


def begun(folder, search):
    folder.mkdir()
    (folder / "search.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(search.plain)))
    return folder


def study(folder):
    return optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/trials.db")


@pytest.fixture
def search(demo, _as_before):
    return lambda trials, *objectives, prune=False: Search(["config.yaml"], SPACE, trials, objectives, prune)


def test_the_best_trial_has_the_highest_delta_m(search, tmp_path):
    asked = search(3)
    folder = begun(tmp_path / "s", asked)
    for number, last in enumerate((0.5, 0.75, 0.6)):
        trained(folder, number, (0.1, last))
    said = []
    (best,) = tune(asked, folder, said.append)
    # One of two tasks gained half of what it was.
    assert (best.number, best.values) == (1, {"delta_m": 25.0})
    assert said[0] == "1/3 the config: delta_m=0"
    assert said[1].startswith("2/3 system.optimizer.lr=")


def test_more_trials_may_be_asked_for_later(search, tmp_path):
    folder = begun(tmp_path / "s", search(1))
    for number, last in enumerate((0.5, 0.6, 0.7)):
        trained(folder, number, (last,))
    tune(search(2), folder)
    first = [trial.params for trial in study(folder).trials]
    (best,) = tune(search(3), folder)
    assert best.number == 2
    assert [trial.params for trial in study(folder).trials][:2] == first


def test_several_objectives_give_what_no_other_beats(search, tmp_path):
    asked = search(3, "shape/Accuracy", "height/MeanSquaredError")
    folder = begun(tmp_path / "s", asked)
    for number, (accuracy, error) in enumerate(((0.5, 1.0), (0.7, 2.0), (0.4, 1.5))):
        trained(folder, number, (accuracy,), error)
    assert sorted(trial.number for trial in tune(asked, folder)) == [0, 1]


def test_a_trial_below_the_median_of_those_before_is_pruned_at_that_epoch(search, tmp_path):
    asked = search(8, "shape/Accuracy", prune=True)
    folder = begun(tmp_path / "s", asked)
    for number in range(7):
        trained(folder, number, (0.5, 0.6 + number / 100, 0.7))
    trained(folder, 7, (0.5, 0.2, 0.9))
    (best,) = tune(asked, folder)
    states = [trial.state.name for trial in study(folder).trials]
    assert states == ["COMPLETE"] * 7 + ["PRUNED"]
    assert study(folder).trials[-1].intermediate_values == {1: 0.5, 2: 0.2}
    assert best.values == {"shape/Accuracy": 0.7}


def test_a_search_in_which_nothing_ended_is_said(search, tmp_path, monkeypatch):
    asked = search(1)
    failed = Outcome.of(RunError("task 'shape'", "the loss must be finite", "nan"))
    monkeypatch.setattr("polytask.compare._search._Study._run", lambda *given: failed)
    with pytest.raises(RunError, match="at least one trial must succeed, got none"):
        tune(asked, tmp_path / "s")


def test_another_searchs_folder_is_refused(search, tmp_path):
    folder = begun(tmp_path / "s", search(1))
    with pytest.raises(
        UserError, match=r"must be the search that the folder was made for, got other values of objectives"
    ):
        tune(search(1, "shape/Accuracy"), folder)


def test_a_value_that_is_not_finite_breaks_its_trial_and_not_the_search(search, tmp_path):
    asked = search(3)
    folder = begun(tmp_path / "s", asked)
    for number, last in enumerate((float("nan"), 0.5, 0.6)):
        trained(folder, number, (last,))
    said = []
    (best,) = tune(asked, folder, said.append)
    assert best.number == 2
    assert said[0] == "1/3 the config: failed: delta_m=nan"


def test_one_process_works_in_a_search(search, tmp_path):
    asked = search(1)
    folder = begun(tmp_path / "s", asked)
    with (
        locked_for(folder, "search.yaml", asked.plain, "search"),
        pytest.raises(UserError, match="only one process may use a search"),
    ):
        tune(asked, folder)
    trained(folder, 0, (0.5,))
    assert tune(asked, folder)[0].number == 0


def test_a_search_without_a_reference_to_count_from_names_other_objectives(search, tmp_path):
    asked = search(2)
    folder = begun(tmp_path / "s", asked)
    trained(folder, 0, (0.0,))
    with pytest.raises(
        UserError,
        match=r"first trial must have a shape/Accuracy other than 0, got 0\. Name an --objective: shape/",
    ):
        tune(asked, folder)
    by_loss = search(2, "shape/loss")
    other = begun(tmp_path / "t", by_loss)
    for number in range(2):
        trained(other, number, (0.0,))
    assert tune(by_loss, other)[0].number == 0


def test_a_run_that_saw_no_validation_data_is_said(search, tmp_path):
    asked = search(1)
    folder = begun(tmp_path / "s", asked)
    trained(folder, 0, ())
    with pytest.raises(RunError, match=r"0/metrics\.csv: .*got no val/shape/Accuracy/epoch"):
        tune(asked, folder)


def test_a_trial_that_was_trained_with_another_config_is_refused(search, tmp_path):
    asked = search(1)
    folder = begun(tmp_path / "s", asked)
    trained(folder, 0, (0.5,))
    asked.config_of({"system.optimizer.lr": 0.5}).dump(folder / "runs" / "0" / "config.yaml")
    with pytest.raises(
        UserError,
        match=r"must be the config that the run is trained with now, got other values of system\.opt",
    ):
        tune(asked, folder)


def test_an_override_behind_the_objectives_is_said(search):
    with pytest.raises(
        UserError, match=r"unknown objective 'trainer\.max_epochs=1'\. Write overrides before --objective"
    ):
        search(1, "shape/loss", "trainer.max_epochs=1")


def test_an_objective_is_named_once(search):
    with pytest.raises(UserError, match=r"must not name an objective twice, got shape/loss, shape/loss"):
        search(1, "shape/loss", "shape/loss")
