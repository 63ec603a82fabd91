"""The statistics of a comparison against scipy, and against numbers worked by hand."""

import math
import random

import pytest
from scipy import stats

from polytask._errors import UserError
from polytask.compare import Interval, Paired, delta_by_task, delta_m, holm, ranks
from polytask.compare._statistics import t_quantile, t_within


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 20, 101])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 12.0])
def test_students_t_is_scipys(t, degrees):
    assert t_within(t, degrees) == pytest.approx(1 - 2 * stats.t.sf(t, degrees), abs=1e-12)


@pytest.mark.parametrize("degrees", [1, 2, 4, 7, 30])
@pytest.mark.parametrize("within", [0.5, 0.6, 0.95, 0.999])
def test_its_quantiles_are_scipys(within, degrees):
    assert t_quantile(within, degrees) == pytest.approx(stats.t.ppf((1 + within) / 2, degrees), rel=1e-9)


def test_three_seeds_need_4_30_and_five_2_78():
    assert t_quantile(0.95, 2) == pytest.approx(4.3027, abs=1e-4)
    assert t_quantile(0.95, 4) == pytest.approx(2.7764, abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_intervals_and_paired_tests_are_scipys(count):
    draw = random.Random(count)
    one = {seed: draw.gauss(1, 2) for seed in range(count)}
    other = {seed: draw.gauss(0, 1) for seed in range(count)}
    differences = [one[seed] - other[seed] for seed in one]
    paired = Paired.of(one, other)
    low, high = stats.t.interval(0.95, count - 1, *(stats.describe(differences).mean, stats.sem(differences)))
    assert paired.difference.mean - paired.difference.half == pytest.approx(low)
    assert paired.difference.mean + paired.difference.half == pytest.approx(high)
    assert paired.p == pytest.approx(stats.ttest_rel(list(one.values()), list(other.values())).pvalue)


def test_seeds_are_paired_by_number_and_not_by_place():
    assert Paired.of({0: 1.0, 1: 5.0}, {1: 4.0, 0: 0.0}).difference == Interval(1.0, 0.0, 2)


def test_the_detectable_difference_is_found_in_four_of_five_experiments():
    draw, found, sizes = random.Random(0), 0, []
    for _ in range(400):
        noise = {seed: draw.gauss(0, 1) for seed in range(8)}
        sizes.append(Paired.of(noise, dict.fromkeys(noise, 0.0)).detectable)
    size = sum(sizes) / len(sizes)
    for _ in range(400):
        values = {seed: draw.gauss(size, 1) for seed in range(8)}
        found += Paired.of(values, dict.fromkeys(values, 0.0)).p < 0.05
    assert 0.72 < found / 400 < 0.88


def test_one_seed_has_no_interval_and_no_test():
    paired = Paired.of({3: 1.0}, {3: 0.5})
    assert paired.difference.mean == 0.5
    assert all(math.isnan(value) for value in (paired.difference.half, paired.p, paired.detectable))


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.25, 0.0)])
def test_differences_without_any_spread(shift, p):
    paired = Paired.of({0: 1 + shift, 1: 2 + shift}, {0: 1.0, 1: 2.0})
    assert (paired.p, paired.difference.half) == (p, 0.0)


def test_other_seeds_are_refused():
    with pytest.raises(UserError, match=r"same seeds on both sides. Found \[0, 1\] and \[0, 2\]"):
        Paired.of({0: 1.0, 1: 1.0}, {0: 1.0, 2: 1.0})


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, each at least the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("higher", [True, False])
def test_ranks_are_scipys(higher):
    values = [0.3, 0.1, 0.3, 0.9, 0.1, 0.1]
    assert ranks(values, higher) == stats.rankdata([-v if higher else v for v in values]).tolist()


def test_delta_m_by_hand():
    # Accuracy 0.9 to 0.81: -10 %. Errors 2 to 1: +50 %, 4 to 3: +25 %, so that the second task has +37.5 %.
    higher = {("a", "Accuracy"): True, ("b", "MAE"): False, ("b", "MSE"): False}
    values = dict(zip(higher, [0.81, 1.0, 3.0], strict=True))
    baselines = dict(zip(higher, [0.9, 2.0, 4.0], strict=True))
    by_task = delta_by_task(values, baselines, higher)
    assert by_task == pytest.approx({"a": -10.0, "b": 37.5})
    assert delta_m(by_task) == pytest.approx(13.75)


def test_a_gain_over_a_negative_baseline_is_positive():
    key = ("a", "R2Score")
    assert delta_by_task({key: -1.0}, {key: -2.0}, {key: True}) == {"a": 50.0}


def test_a_baseline_of_0_is_said():
    key = ("a", "Accuracy")
    with pytest.raises(UserError, match=r"a/Accuracy: delta_m is undefined where the baseline's metric is 0"):
        delta_by_task({key: 0.5}, {key: 0.0}, {key: True})


def test_other_tasks_are_said():
    with pytest.raises(UserError, match=r"every task. Found a/Accuracy and b/Accuracy"):
        delta_by_task({("a", "Accuracy"): 1.0}, {("b", "Accuracy"): 1.0}, {("a", "Accuracy"): True})
