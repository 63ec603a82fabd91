"""Rows, sentences and files of a comparison's table."""

import csv
import io
import itertools
import math
import random
import re

import pyarrow.parquet
import pytest

from polytask import UserError
from polytask.compare import Result, Table, read_results
from polytask.compare._names import RESULTS
from polytask.compare._remarks import Remarks
from polytask.compare._results import write_results
from polytask.compare._table import write_table

NOISE = (0.0, 0.01, -0.01, 0.02, -0.02)


def results(method, accuracy, error, seeds=5, architecture="base", kind="method", noise=1.0):
    """Accuracy of task a and error of task b by seed, with a little noise that pairing takes away."""
    found = []
    for seed in range(seeds):
        of = {"a": accuracy + NOISE[seed], "b": error - NOISE[seed]}
        for task, metric, higher in (("a", "Accuracy", True), ("b", "Error", False)):
            jitter = noise * 1e-4 * ((seed * 7 + len(method)) % 5)
            run = f"runs/{method}-{architecture}-seed{seed}"
            found.append(
                Result(
                    method,
                    architecture,
                    kind,
                    seed,
                    task,
                    metric,
                    of[task] + jitter,
                    higher,
                    "test",
                    2.0,
                    9.0,
                    run,
                )
            )
    return found


def table(*parts, trials=4):
    return Table(list(itertools.chain(*parts)), trials)


SINGLE = results("single_task", 0.8, 0.4)
SUM = results("plain_sum", 0.7, 0.5, kind="plain_sum")


def row_of(found, method):
    return next(row for row in found.rows if row.method == method)


def changed(given, value, **where):
    """The same results with another value in one place."""
    hits = [all(getattr(one, name) == wanted for name, wanted in where.items()) for one in given]
    assert any(hits)
    return [
        Result(**{**vars(one), "value": value}) if hit else one for one, hit in zip(given, hits, strict=True)
    ]


def of_values(method, by_seed, metric="Error", higher=False):
    """Task a by seed."""
    return [
        Result(method, "base", "method", seed, "a", metric, value, higher, "test", 1.0, 9.0, f"runs/{seed}")
        for seed, value in enumerate(by_seed)
    ]


def sentence(found, name):
    return dict(found.sentences())[name]


def test_gains_are_positive_where_a_row_is_better_than_single_tasks():
    found = table(results("single_task", 0.8, 0.4, noise=0), SUM, results("uw", 0.88, 0.42, noise=0))
    gain = row_of(found, "uw").gain
    # +10 % and -5 %.
    assert gain.delta_m.mean == pytest.approx(2.5)
    assert (gain.worst, gain.below) == ("b", ["b"])
    assert gain.tasks["a"].mean == pytest.approx(10)
    assert gain.tasks["b"].mean == pytest.approx(-5)
    assert row_of(found, "single_task").gain is None


def test_gains_are_paired_by_seed_by_hand():
    # The single tasks' mean is 4; differences of the same seeds -1, -1, -2 are gains of 25, 25 and 50 %, as
    # an error is better where it is lower: mean 33.3, deviation 14.43, t with two degrees 4.3027.
    found = table(of_values("single_task", [2.0, 4.0, 6.0]), of_values("uw", [1.0, 3.0, 4.0]))
    gain = row_of(found, "uw").gain
    assert gain.delta_m.mean == pytest.approx(100 / 3)
    assert gain.delta_m.half == pytest.approx(4.3027 * 14.4338 / math.sqrt(3), rel=1e-4)
    assert gain.tasks == {"a": gain.delta_m}


def test_intervals_of_delta_m_hold_the_true_gain_in_19_of_20_comparisons():
    draw, held = random.Random(0), 0
    for _ in range(400):
        parts = [
            of_values(method, [draw.gauss(mean, 0.02) for _ in range(5)], "Accuracy", True)
            for method, mean in (("single_task", 0.8), ("uw", 0.84))
        ]
        delta_m = row_of(table(*parts), "uw").gain.delta_m
        held += abs(delta_m.mean - 5) <= delta_m.half
    assert held / 400 >= 0.92


def test_a_method_as_good_as_single_tasks_gains_nothing_however_they_vary():
    draw, gains = random.Random(0), []
    for _ in range(400):
        parts = [of_values(m, [draw.gauss(1, 0.2) for _ in range(5)]) for m in ("single_task", "uw")]
        gains.append(row_of(table(*parts), "uw").gain.delta_m.mean)
    # Dividing by each seed's own baseline would give -4 here.
    assert abs(sum(gains) / 400) < 1.5


def test_tasks_below_are_told_from_those_below_by_more_than_noise():
    noisy = [0.8, 0.7, 0.9, 0.6, 1.0]
    single = of_values("single_task", [0.79, 0.81, 0.8, 0.8, 0.8])
    for shift, scale, below, clearly in ((0.05, 1.0, 1, 0), (0.05, 0.01, 1, 1), (-0.05, 0.01, 0, 0)):
        found = table(single, of_values("uw", [0.8 + shift + (v - 0.8) * scale for v in noisy]))
        assert f"{below} of 1 ({clearly})" in found.cells(row_of(found, "uw"))


def test_ranks_are_means_over_tasks():
    found = table(SINGLE, SUM, results("uw", 0.9, 0.45))
    assert {row.method: row.rank for row in found.rows} == {"single_task": 1.5, "plain_sum": 3.0, "uw": 1.5}


def test_five_seeds_give_a_verdict():
    found = table(SUM, results("uw", 0.75, 0.5), results("dwa", 0.6, 0.6), results("rlw", 0.7, 0.5))
    assert sentence(found, "uw").startswith("Better than the tuned plain sum on a (0.05 ± ")
    assert "no difference beyond seed noise on 1 of 2 tasks, among 6 tests: " in sentence(found, "uw")
    assert sentence(found, "dwa").startswith("Worse than the tuned plain sum on a (0.1 ± ")
    assert "b (0.1 ± " in sentence(found, "dwa")
    assert sentence(found, "rlw").startswith(
        "No difference from the tuned plain sum beyond seed noise on 2 of 2 tasks"
    )
    assert sentence(found, "plain_sum") == "What the others are tested against."


def test_an_interval_without_0_is_no_difference_where_there_are_many_tests():
    """By itself, p is 0.04."""
    noise = [-0.01, 0.0, 0.01, 0.02, -0.02]
    sum_ = of_values("plain_sum", [0.7] * 5)
    uw = of_values("uw", [0.722 + one for one in noise])
    alone = table(sum_, uw)
    difference = row_of(alone, "uw").tests["a", "Error"].paired.difference
    assert 0 < difference.half < abs(difference.mean)
    assert sentence(alone, "uw").startswith("Worse than")
    many = table(sum_, uw, of_values("dwa", [0.7 + one for one in noise]))
    assert sentence(many, "uw").startswith(
        "No difference from the tuned plain sum beyond seed noise on 1 of 1 tasks, among 2 tests: a (-0.022"
    )


def test_fewer_seeds_give_none_but_the_difference_that_could_be_seen():
    baseline = results("plain_sum", 0.7, 0.5, seeds=3, kind="plain_sum")
    found = table(baseline, results("uw", 0.75, 0.5, seeds=3))
    assert sentence(found, "uw").startswith("3 seeds: no verdict; differences from the tuned plain sum: ")
    assert "Better" not in found.markdown()
    assert "by Holm" not in found.markdown()
    assert "Detectable: what a test would find 4 times in 5 at Holm's smallest step" in found.markdown()
    (line,) = [one for one in csv.DictReader(io.StringIO(found.csv())) if one["method"] == "uw"]
    assert line["a/Accuracy p"] == "nan"
    assert float(line["a/Accuracy gain"]) == pytest.approx(0.05, abs=1e-3)
    assert float(line["a/Accuracy detectable"]) > 0


def test_one_seed_has_no_interval():
    found = table(*(results(name, 0.7, 0.5, seeds=1) for name in ("plain_sum", "uw")), trials=1)
    assert "1 seed: no interval, no test and no verdict" in sentence(found, "uw")
    assert "±" not in found.markdown()


def test_a_sum_that_was_not_tuned_is_called_so():
    found = table(SUM, results("uw", 0.75, 0.5), trials=1)
    assert "the untuned plain sum" in sentence(found, "uw")
    assert "untuned, as the config has it" in found.markdown()


def test_equal_runs_are_called_equal():
    same = [Result(**{**vars(one), "method": "equal"}) for one in SUM]
    assert sentence(table(SUM, same), "equal") == "The same numbers as the tuned plain sum with every seed."


def test_the_sign_convention_stands_under_the_table():
    assert "in percent, positive is good" in table(SINGLE, SUM).markdown()


def test_without_single_tasks_there_is_no_delta_m():
    assert "No delta_m: no single-task models were trained to their end." in table(SUM).markdown()


def test_rows_that_were_not_named_this_time_are_said():
    remarks = Remarks(unnamed={"single_task-base": 4, "dwa-base": 2})
    text = Table([*SUM, *results("uw", 0.75, 0.5)], 4, remarks).markdown()
    assert "No delta_m: the single-task models were not named this time; add --single-task." in text
    assert "no single-task models were trained" not in text
    assert "Not in this table: single_task-base, dwa-base, which are trained and were not named" in text
    # Those of another architecture are no baseline of this table.
    other = Table([*SUM], 4, Remarks(unnamed={"single_task-wide": 4})).markdown()
    assert "No delta_m: no single-task models were trained to their end." in other
    assert "not named" not in table(SINGLE, SUM).markdown()


def test_a_baseline_of_0_is_said_and_no_number_is_infinite():
    found = table(changed(SINGLE, 0.0, task="a"), SUM)
    assert "No delta_m: a/Accuracy of the single-task models is 0, over which" in found.markdown()
    assert row_of(found, "plain_sum").gain is None
    assert "inf" not in found.csv()


def test_an_undefined_gain_of_one_architecture_is_said_beside_the_others():
    wide = [results(name, 0.7, 0.5, architecture="wide") for name in ("single_task", "plain_sum")]
    found = table(SINGLE, SUM, changed(wide[0], 0.0, task="b"), wide[1])
    assert "No delta_m for wide: b/Error of the single-task models is 0" in found.markdown()
    assert "in percent, positive is good" in found.markdown()
    assert [row.gain is None for row in found.rows] == [True, False, True, True]


def test_a_baseline_that_varies_more_than_it_is_large_is_noted():
    single = of_values("single_task", [-0.03, 0.05, 0.01], "R2Score", True)
    uw = of_values("uw", [0.1, 0.1, 0.1], "R2Score", True)
    said = (
        "delta_m says little: a/R2Score of the single-task models is 0.01 with a standard deviation of 0.04"
    )
    assert said in table(single, uw).markdown()
    assert "says little" not in table(SINGLE, SUM).markdown()


def test_one_number_that_is_none_costs_only_its_own_cells():
    uw = changed(results("uw", 0.75, 0.5), math.nan, task="a", seed=3)
    found = table(SINGLE, SUM, uw, results("dwa", 0.6, 0.6))
    row = row_of(found, "uw")
    assert sentence(found, "uw").startswith(
        "No difference from the tuned plain sum beyond seed noise on 1 of 2 tasks"
    )
    assert sentence(found, "uw").endswith("; not a number on a.")
    assert sentence(found, "dwa").startswith("Worse than the tuned plain sum on a (0.1 ± ")
    assert (row.gain.worst, row.gain.below, row.gain.clearly_below) == ("a", ["a", "b"], ["a", "b"])
    assert math.isnan(row.gain.delta_m.mean)
    assert row.metrics["b", "Error"].mean == pytest.approx(0.5, abs=0.01)
    # Last of four in a; in b it shares the second and third place with the plain sum.
    assert row.rank == (4 + 2.5) / 2
    assert found.cells(row)[1] == "–"
    assert "a – %" in found.cells(row)
    assert "+nan" not in found.markdown()


@pytest.mark.parametrize("task", ["a", "b"])
def test_the_worst_task_is_the_one_that_is_not_a_number(task):
    found = table(SINGLE, SUM, changed(results("uw", 0.5, 0.9), math.nan, task=task))
    assert row_of(found, "uw").gain.worst == task


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_plain_sum_that_is_not_a_number_is_not_beaten(bad):
    found = table(changed(SUM, bad, task="a", seed=0), results("uw", 0.75, 0.6))
    assert sentence(found, "uw").endswith("; the tuned plain sum is not a number on a.")
    assert sentence(found, "uw").startswith("Worse than the tuned plain sum on b")
    assert row_of(found, "plain_sum").rank == (2 + 1) / 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_single_task_model_that_is_not_a_number_is_said(bad):
    found = table(changed(SINGLE, bad, task="b", seed=1), SUM)
    assert "No delta_m: b/Error of the single-task models is not a number, over which" in found.markdown()


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_nothing_but_numbers_that_are_none_gives_a_sentence(seeds):
    uw = [Result(**{**vars(one), "value": math.nan}) for one in results("uw", 0.7, 0.5, seeds=seeds)]
    text = sentence(table(results("plain_sum", 0.7, 0.5, seeds=seeds), uw), "uw")
    assert text.lower().endswith("not a number on a, b.")
    assert "noise" not in text


def test_a_difference_without_spread_is_not_called_better():
    shifted = [
        Result(**{**vars(one), "method": "uw", "value": one.value + (0.0028 if one.task == "a" else 0)})
        for one in SUM
    ]
    found = table(SUM, shifted, results("dwa", 0.6, 0.6))
    assert sentence(found, "uw") == (
        "The difference is the same with every seed on a (+0.0028), b (+0): no test."
    )
    # Which leaves two tests in the table.
    assert "by Holm over 2 tests" in found.markdown()
    assert "p < 0.05/2." in found.markdown()


def test_what_is_detectable_counts_the_tests_of_the_table():
    few, many = (
        table(SUM, *(results(name, 0.7, 0.5) for name in names))
        for names in (["uw"], ["uw", "dwa", "cagrad"])
    )
    one, other = (row_of(found, "uw").tests["a", "Accuracy"] for found in (few, many))
    assert one.paired == other.paired
    assert one.detectable == one.paired.detectable(2)
    assert other.detectable == other.paired.detectable(6) > one.detectable
    assert f", detectable {other.detectable:.2g}), b (" in sentence(many, "uw")
    assert "by Holm over 6 tests" in many.markdown()


def test_each_architecture_has_its_own_baselines():
    parts = [
        results(method, accuracy, 0.5, architecture=model, noise=0)
        for model, accuracy in (("base", 0.5), ("wide", 0.8))
        for method in ("single_task", "plain_sum", "uw")
    ]
    found = table(*parts)
    assert found.header()[:2] == ["method", "architecture"]
    assert [row.gain.delta_m.mean for row in found.rows if row.gain] == pytest.approx([0.0] * 4)
    assert sentence(found, "uw-wide") == "The same numbers as the tuned plain sum with every seed."


SWAPPED = [
    Result(**{**vars(one), "higher_is_better": not one.higher_is_better}) for one in results("uw", 0.7, 0.5)
]
VALIDATED = [Result(**{**vars(one), "split": "val"}) for one in results("uw", 0.7, 0.5)]
MOVED = [Result(**{**vars(one), "seed": one.seed + 1}) for one in results("uw", 0.7, 0.5)]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            [one for one in results("uw", 0.7, 0.5) if one.task == "a"],
            "every row must have the same tasks and metrics, got no b/Error for uw-base",
        ),
        (
            results("uw", 0.7, 0.5, seeds=4),
            "every row must have the same seeds, got [0, 1, 2, 3] for uw-base",
        ),
        (
            MOVED,
            "the same seeds, got [0, 1, 2, 3, 4] for plain_sum-base of [0, 1, 2, 3, 4, 5]",
        ),
        (
            results("uw", 0.7, 0.5)[:-1],
            "every row must have every metric with every seed, got no b/Error with seed 4 for uw-base",
        ),
        (
            [*results("uw", 0.7, 0.5), results("uw", 0.9, 0.5)[2]],
            "one value of a metric for a seed, got two values of a/Accuracy with seed 1 for uw-base",
        ),
        (SWAPPED, "must not differ between runs, got another value for a/Accuracy in runs/uw-base-seed0"),
        (VALIDATED, "all results must be of one split, got test and val"),
    ],
    ids=["task", "seeds", "moved", "one", "twice", "direction", "split"],
)
def test_results_that_make_no_table_are_refused(others, message):
    with pytest.raises(UserError, match=f"^comparison: .*{re.escape(message)}"):
        table(SUM, others)


def test_no_results_are_refused():
    with pytest.raises(UserError, match="results are required"):
        table()


def test_the_csv_has_every_number(tmp_path):
    found = table(SINGLE, SUM, results("uw", 0.75, 0.5))
    write_table(found, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [row["method"] for row in rows] == ["single_task", "plain_sum", "uw"]
    assert float(rows[2]["a/Accuracy mean"]) == row_of(found, "uw").metrics["a", "Accuracy"].mean
    assert float(rows[2]["a/Accuracy p"]) < 0.05
    assert (tmp_path / "table.md").read_text() == found.markdown()


def test_results_are_read_as_they_were_written(tmp_path):
    write_results(tmp_path, SUM)
    assert read_results(tmp_path) == SUM


def test_no_damaged_or_foreign_file_is_read(tmp_path):
    with pytest.raises(UserError, match="must be in a finished comparison's folder"):
        read_results(tmp_path)
    (tmp_path / RESULTS).write_bytes(b"PAR1 not at all")
    with pytest.raises(UserError, match="must be a Parquet file"):
        read_results(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"method": ["uw"]}), tmp_path / RESULTS)
    with pytest.raises(UserError, match=r"must have the columns of a comparison, got no column architecture"):
        read_results(tmp_path)


def test_a_file_with_text_that_is_none_is_damaged(tmp_path):
    write_results(tmp_path, results("uwuwuwuw", 0.7, 0.5))
    file = tmp_path / RESULTS
    file.write_bytes(file.read_bytes().replace(b"uwuwuwuw", b"uw\xff\xfeuwuw"))
    with pytest.raises(UserError, match="must be a Parquet file"):
        read_results(tmp_path)


def test_an_empty_cell_is_said(tmp_path):
    write_results(tmp_path, SUM)
    rows = pyarrow.parquet.read_table(tmp_path / RESULTS)
    values = pyarrow.array([None] * len(rows), pyarrow.float64())
    place = rows.schema.get_field_index("value")
    pyarrow.parquet.write_table(rows.set_column(place, rows.schema.field(place), values), tmp_path / RESULTS)
    with pytest.raises(UserError, match="got empty cells in column value"):
        read_results(tmp_path)
