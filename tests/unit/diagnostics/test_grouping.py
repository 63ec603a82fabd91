"""Groupings against the best of all splits, tried one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polytask import UserError
from polytask.diagnostics import Affinities, group_tasks
from polytask.diagnostics._grouping import _greedy, _score


def partitions(tasks):
    if not tasks:
        yield []
        return
    first, *rest = tasks
    for split in partitions(rest):
        yield [[first], *split]
        for place in range(len(split)):
            yield [*split[:place], [first, *split[place]], *split[place + 1 :]]


def score(values, split):
    return sum(
        np.mean([values[i, j] for i in group if i != j]) for group in split if len(group) > 1 for j in group
    )


def affinities(values, **sizes):
    names = tuple(f"t{place:02}" for place in range(len(values)))
    return Affinities(names, "lookahead", np.asarray(values, float), 1, **sizes)


@settings(max_examples=40)
@given(st.integers(1, 7), st.data())
def test_no_split_has_a_higher_score(tasks, data):
    seed, most = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(1, tasks))
    values = np.random.default_rng(seed).normal(data.draw(st.floats(-1, 1)), 1, (tasks, tasks))
    found = group_tasks(affinities(values), most)
    best = max(score(values, split) for split in partitions(list(range(tasks))) if len(split) <= most)
    assert found.exact
    assert found.score == pytest.approx(best, abs=1e-9)
    places = [[int(name[1:]) for name in group] for group in found.groups]
    assert score(values, places) == pytest.approx(best, abs=1e-9)
    assert sorted(place for group in places for place in group) == list(range(tasks))
    assert len(places) <= most


def test_twelve_tasks_are_exact_and_thirteen_greedy():
    random = np.random.default_rng(0)
    for tasks, exact in ((12, True), (13, False)):
        assert group_tasks(affinities(random.normal(size=(tasks, tasks))), 3).exact is exact


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [1, 3, 9])
def test_the_greedy_search_is_near_the_best(seed, most):
    values = np.random.default_rng(seed).normal(size=(9, 9))
    np.fill_diagonal(values, 0)
    both = values + values.T
    found = _greedy(both, most)
    assert sorted(task for group in found for task in group) == list(range(9))
    assert len(found) <= most
    got, best = sum(_score(both, group) for group in found), group_tasks(affinities(values), most).score
    assert got <= best + 1e-9
    assert got > best - 0.35 * abs(best)


def test_the_greedy_search_finds_clear_groups():
    kinds = np.arange(20) % 4
    values = np.where(kinds[:, None] == kinds, 0.3, -0.2) + np.random.default_rng(1).normal(0, 0.05, (20, 20))
    found = group_tasks(affinities(values), 4)
    assert not found.exact
    assert {frozenset(int(name[1:]) % 4 for name in group) for group in found.groups} == {
        frozenset({kind}) for kind in range(4)
    }


def test_fewer_models_where_more_do_not_help():
    assert len(group_tasks(affinities(np.full((5, 5), 0.1)), 5).groups) == 1
    assert len(group_tasks(affinities(np.full((5, 5), -0.1)), 5).groups) == 5
    assert len(group_tasks(affinities(np.full((5, 5), -0.1)), 2).groups) == 2
    assert len(group_tasks(affinities(np.zeros((4, 4))), 4).groups) == 1


def test_a_budget_bounds_the_models():
    given = affinities(np.full((4, 4), -0.1), shared_parameters=100, task_parameters={"t00": 10, "t03": 5})
    assert [len(group_tasks(given, 4, budget).groups) for budget in (115, 214, 215, 10_000)] == [1, 1, 2, 4]
    assert group_tasks(given, 4, 215).parameters == 215
    with pytest.raises(UserError, match="must allow one model, which has 115 parameters"):
        group_tasks(given, 4, 114)


def test_tasks_that_never_met_cannot_be_grouped():
    values = np.full((3, 3), 0.1)
    values[2, 0] = np.nan
    with pytest.raises(UserError, match="'t00' and 't02'"):
        group_tasks(affinities(values), 2)


@pytest.mark.parametrize("groups", [0, 4, -1, 1.0, True, "2"])
def test_the_number_of_models_is_bounded_by_the_tasks(groups):
    with pytest.raises(UserError, match="from 1 to 3"):
        group_tasks(affinities(np.zeros((3, 3))), groups)


@pytest.mark.parametrize("tasks", [7, 14])
def test_the_unit_of_the_affinities_says_nothing(tasks):
    values = np.random.default_rng(2).normal(size=(tasks, tasks))
    small = group_tasks(affinities(values * 1e-15), 3)
    assert small.groups == group_tasks(affinities(values), 3).groups
    assert len(small.groups) > 1
