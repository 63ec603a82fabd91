"""Search spaces, and what is sampled from them."""

import math
import sys

import pytest

pytest.importorskip("optuna")

from polytask import UserError
from polytask.compare import Space
from polytask.compare._space import overrides, trial_seed
from polytask.config import Config

SPACE = {
    "system.optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "system.model.width": {"low": 2, "high": 9},
    "trainer.precision": ["32", None, True],
}


def test_a_trial_is_drawn_from_the_seed_and_its_number_alone():
    trials = [Space(SPACE).draw(0, number) for number in range(20)]
    assert Space(SPACE).draw(0, 7) == trials[7]
    assert Space(SPACE).draw(1, 7) != trials[7]
    assert len({trial["system.optimizer.lr"] for trial in trials}) == 20
    for trial in trials:
        assert 1e-4 <= trial["system.optimizer.lr"] <= 1e-1
        assert isinstance(trial["system.model.width"], int)
        assert trial["trainer.precision"] in ("32", None, True)


def test_a_logarithmic_range_is_drawn_from_evenly_by_order_of_magnitude():
    rates = [Space(SPACE).draw(0, number)["system.optimizer.lr"] for number in range(200)]
    assert sum(rate < math.sqrt(1e-4 * 1e-1) for rate in rates) == pytest.approx(100, abs=25)


def test_values_survive_as_overrides(tmp_path):
    drawn = {"a.b": 1e-7, "c": "1", "d": None, "e": False, "f": 3, "g": "it's", "h": "''"}
    file = tmp_path / "config.yaml"
    file.write_text("a: {b: 0}\nc: 0\nd: 0\ne: 0\nf: 0\ng: 0\nh: 0\n")
    read = Config.read([file], overrides(drawn)).plain
    assert {"a.b": read["a"]["b"], **{key: read[key] for key in "cdefgh"}} == drawn


def test_seeds_of_trials_have_no_pattern():
    assert len({trial_seed(seed, trial) for seed in range(30) for trial in range(30)}) == 900


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "must be a mapping from config keys to values"),
        ({"a": 3}, "space a: must be a list of plain values, or low and high, got 3"),
        ({"a": []}, "must be a list of plain values"),
        ({"a": [[1]]}, "must be a list of plain values"),
        ({"a": {"low": 1, "hihg": 2}}, "unknown option 'hihg' of a range. Did you mean 'high'"),
        ({"a": {"low": 1}}, "low and high must be finite numbers"),
        ({"a": {"low": 2, "high": 1}}, "low not above high"),
        ({"a": {"low": True, "high": 2}}, "low and high must be finite numbers"),
        ({"a": {"low": 0, "high": math.inf}}, "low and high must be finite numbers"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "a logarithmic range must be above 0, got low 0"),
        ({"a": {"low": 1, "high": 2, "log": "yes"}}, "space a log: must be true or false, got 'yes'"),
    ],
)
def test_what_is_no_space_is_said(given, message):
    with pytest.raises(UserError, match=message):
        Space(given)


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        UserError, match=r"Optuna must be installed, got no such package. pip install 'polytask\[tune\]'"
    ):
        Space(SPACE).draw(0, 1)
