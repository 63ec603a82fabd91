"""Rows, sentences and files of a comparison's table."""

import csv
import io
import itertools

import pyarrow.parquet
import pytest

from polytask._errors import UserError
from polytask.compare import Result, Table, read_results
from polytask.compare._results import FILE, write_results
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
SUM = results("tuned_sum", 0.7, 0.5, kind="tuned_sum")


def row_of(found, method):
    return next(row for row in found.rows if row.method == method)


def sentence(found, name):
    return dict(found.sentences())[name]


def test_gains_are_positive_where_a_row_is_better_than_single_tasks():
    found = table(results("single_task", 0.8, 0.4, noise=0), SUM, results("uw", 0.88, 0.42, noise=0))
    gain = row_of(found, "uw").gain
    # +10 % and -5 %.
    assert gain.delta_m.mean == pytest.approx(2.5)
    assert (gain.worst, gain.below) == ("b", 1)
    assert gain.worst_delta == pytest.approx(-5)
    assert row_of(found, "single_task").gain is None


def test_ranks_are_means_over_tasks():
    found = table(SINGLE, SUM, results("uw", 0.9, 0.45))
    assert {row.method: row.rank for row in found.rows} == {"single_task": 1.5, "tuned_sum": 3.0, "uw": 1.5}


def test_five_seeds_give_a_verdict():
    found = table(SUM, results("uw", 0.75, 0.5), results("dwa", 0.6, 0.6), results("rlw", 0.7, 0.5))
    assert sentence(found, "uw").startswith("Better than the tuned plain sum on a (0.05 ± ")
    assert "no difference beyond seed noise on 1 of 2 tasks (detectable: " in sentence(found, "uw")
    assert sentence(found, "dwa").startswith("Worse than the tuned plain sum on a (0.1 ± ")
    assert "b (0.1 ± " in sentence(found, "dwa")
    assert sentence(found, "rlw").startswith(
        "No difference from the tuned plain sum beyond seed noise on 2 of 2 tasks"
    )
    assert sentence(found, "tuned_sum") == "What the others are tested against."


def test_fewer_seeds_give_none_but_the_difference_that_could_be_seen():
    found = table(*(results(name, 0.7, 0.5, seeds=3) for name in ("tuned_sum", "uw")))
    assert sentence(found, "uw").startswith(
        "3 seeds: no verdict; detectable against the tuned plain sum were"
    )
    assert "Better" not in found.markdown()


def test_one_seed_has_no_interval():
    found = table(*(results(name, 0.7, 0.5, seeds=1) for name in ("tuned_sum", "uw")), trials=1)
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
    assert "No delta_m: no single-task models were trained." in table(SUM).markdown()


def test_a_baseline_of_0_is_said_and_no_number_is_infinite():
    found = table(results("single_task", 0.8, 0.4), SUM)
    zero = [
        Result(**{**vars(one), "value": 0.0}) if one.task == "a" and one.method == "single_task" else one
        for one in [*SINGLE, *SUM]
    ]
    found = table(zero)
    assert "No delta_m: a/Accuracy: delta_m is undefined where the baseline's metric is 0" in found.markdown()
    assert "inf" not in found.csv()


def test_each_architecture_has_its_own_baselines():
    parts = [
        results(method, accuracy, 0.5, architecture=model, noise=0)
        for model, accuracy in (("base", 0.5), ("wide", 0.8))
        for method in ("single_task", "tuned_sum", "uw")
    ]
    found = table(*parts)
    assert found.header()[:2] == ["method", "architecture"]
    assert [row.gain.delta_m.mean for row in found.rows if row.gain] == pytest.approx([0.0] * 4)
    assert sentence(found, "uw-wide") == "The same numbers as the tuned plain sum with every seed."


def test_other_tasks_in_one_table_are_refused():
    with pytest.raises(UserError, match=r"same tasks and metrics. Found no b/Error for uw-base"):
        table(SUM, [one for one in results("uw", 0.7, 0.5) if one.task == "a"])


def test_other_seeds_are_refused():
    with pytest.raises(UserError, match="the same seeds on both sides"):
        table(SUM, results("uw", 0.7, 0.5, seeds=4))


def test_no_results_are_refused():
    with pytest.raises(UserError, match="needs results"):
        table()


def test_the_csv_has_every_number(tmp_path):
    found = table(SINGLE, SUM, results("uw", 0.75, 0.5))
    write_table(found, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [row["method"] for row in rows] == ["single_task", "tuned_sum", "uw"]
    assert float(rows[2]["a/Accuracy mean"]) == row_of(found, "uw").metrics["a", "Accuracy"].mean
    assert float(rows[2]["a/Accuracy p"]) < 0.05
    assert (tmp_path / "table.md").read_text() == found.markdown()


def test_results_are_read_as_they_were_written(tmp_path):
    write_results(tmp_path, SUM)
    assert read_results(tmp_path) == SUM


def test_no_damaged_or_foreign_file_is_read(tmp_path):
    with pytest.raises(UserError, match="a finished comparison has this file"):
        read_results(tmp_path)
    (tmp_path / FILE).write_bytes(b"PAR1 not at all")
    with pytest.raises(UserError, match="must be a Parquet file"):
        read_results(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"method": ["uw"]}), tmp_path / FILE)
    with pytest.raises(UserError, match=r"has the columns of a comparison. Found no column architecture"):
        read_results(tmp_path)
