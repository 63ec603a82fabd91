"""The statistics of a comparison against scipy, and against numbers worked by hand."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from polytask import UserError
from polytask.compare import Interval, Paired, delta_by_task, delta_m, holm, ranks
from polytask.compare._student import t_quantile, t_shift, t_within


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


@pytest.mark.parametrize("count", [2, 3, 5, 8, 20])
@pytest.mark.parametrize("tests", [1, 2, 8, 32])
def test_what_is_detectable_is_found_with_scipys_power_of_0_8_at_holms_smallest_step(count, tests):
    draw = random.Random(count)
    noise = {seed: draw.gauss(0, 3) for seed in range(count)}
    error = stats.sem(list(noise.values()))
    shift = Paired.of(noise, dict.fromkeys(noise, 0.0)).detectable(tests) / error
    bound = stats.t.ppf(1 - 0.05 / tests / 2, count - 1)
    assert stats.nct.sf(bound, count - 1, shift) == pytest.approx(0.8, abs=1e-4)


def test_a_power_of_one_half_is_at_the_median():
    assert stats.nct.median(4, t_shift(0.5, 0.05, 4)) == pytest.approx(t_quantile(0.95, 4), rel=1e-6)


def test_eight_holm_tests_find_what_is_detectable_in_four_of_five_experiments():
    draw, found, seeds = random.Random(0), 0, range(5)
    size = t_shift(0.8, 0.05 / 8, 4) / math.sqrt(5)
    for _ in range(1000):
        p_values = [
            Paired.of({seed: draw.gauss(shift, 1) for seed in seeds}, dict.fromkeys(seeds, 0.0)).p
            for shift in (size, *[0.0] * 7)
        ]
        found += holm(p_values)[0] < 0.05
    # Holm's later steps only ever find more.
    assert 0.77 < found / 1000 < 0.84


def test_one_seed_has_no_interval_and_no_test():
    paired = Paired.of({3: 1.0}, {3: 0.5})
    assert paired.difference.mean == 0.5
    assert all(math.isnan(value) for value in (paired.difference.half, paired.p, paired.detectable()))
    assert not paired.is_constant


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.0028])
def test_a_difference_without_spread_has_no_test(shift):
    paired = Paired.of({0: 0.91 + shift, 1: 0.93 + shift, 2: 0.9 + shift}, {0: 0.91, 1: 0.93, 2: 0.9})
    assert paired.is_constant
    assert paired.difference.half == 0
    assert paired.difference.mean == pytest.approx(shift)
    assert math.isnan(paired.p)
    assert math.isnan(paired.detectable())


def test_the_rounding_of_float32_is_no_spread():
    wrong = {seed: np.float32(1 - wrong / 360) for seed, wrong in enumerate((11, 14, 9, 20))}
    fewer = {seed: np.float32(1 - (wrong - 1) / 360) for seed, wrong in enumerate((11, 14, 9, 20))}
    one, other = ({seed: float(value) for seed, value in given.items()} for given in (fewer, wrong))
    assert len({one[seed] - other[seed] for seed in one}) > 1
    assert Paired.of(one, other).is_constant
    # One more that is wrong is a spread.
    assert not Paired.of({**one, 0: other[0]}, other).is_constant


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_has_no_mean(bad):
    for values in ([bad], [bad, 0.5], [0.9, bad, 0.5]):
        interval = Interval.of(values)
        assert math.isnan(interval.mean)
        assert math.isnan(interval.half)
        assert interval.count == len(values)
    for paired in (
        Paired.of({0: bad, 1: 0.5, 2: 0.6}, {0: 0.4, 1: 0.4, 2: 0.4}),
        Paired.of({0: bad, 1: 0.5}, {0: bad, 1: 0.4}),
    ):
        assert math.isnan(paired.p)
        assert math.isnan(paired.difference.mean)
        assert math.isnan(paired.detectable(4))
        assert not paired.is_constant


def test_no_values_are_said():
    with pytest.raises(UserError, match="values: must have at least one value"):
        Interval.of([])
    with pytest.raises(UserError, match="values: must have at least one value"):
        Paired.of({}, {})


def test_p_is_never_below_0():
    near = {seed: 1e9 + 1000 * seed for seed in range(30)}
    assert 0 <= Paired.of(near, dict.fromkeys(near, 0.0)).p < 1e-9


def test_other_seeds_are_refused():
    with pytest.raises(
        UserError, match=r"the same on both sides of a paired test, got \[0, 1\] and \[0, 2\]"
    ):
        Paired.of({0: 1.0, 1: 1.0}, {0: 1.0, 2: 1.0})


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, each at least the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_counts_no_test_that_was_not_made():
    adjusted = holm([math.nan, 0.03, math.nan, 0.01])
    assert adjusted[1::2] == pytest.approx([0.03, 0.02])
    assert all(map(math.isnan, adjusted[::2]))


@pytest.mark.parametrize("higher", [True, False])
def test_ranks_are_scipys(higher):
    values = [0.3, 0.1, 0.3, 0.9, 0.1, 0.1]
    assert ranks(values, higher) == stats.rankdata([-v if higher else v for v in values]).tolist()


@pytest.mark.parametrize("higher", [True, False])
def test_what_is_not_a_number_ranks_last(higher):
    assert ranks([math.nan, 0.9, 0.5], higher) == ([3.0, 1.0, 2.0] if higher else [3.0, 2.0, 1.0])
    assert ranks([math.nan, 0.9, math.nan], higher) == [2.5, 1.0, 2.5]


def test_a_gain_is_not_rounded():
    key = ("a", "MSE")
    tiny = delta_by_task({key: 1.0 - 2.0**-50}, {key: 1.0}, {key: False})["a"]
    assert tiny == 100 * 2.0**-50


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
    with pytest.raises(UserError, match=r"a/Accuracy: the baseline's metric must not be 0 for delta_m"):
        delta_by_task({key: 0.5}, {key: 0.0}, {key: True})


def test_other_tasks_are_said():
    with pytest.raises(UserError, match=r"the same metrics, got a/Accuracy and b/Accuracy"):
        delta_by_task({("a", "Accuracy"): 1.0}, {("b", "Accuracy"): 1.0}, {("a", "Accuracy"): True})
