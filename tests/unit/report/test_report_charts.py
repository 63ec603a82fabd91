"""Charts show the numbers that were recorded."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest

from polytask.report import collect, write_figures
from polytask.report._affinity_section import affinity
from polytask.report._charts import MOST_FRAMES, MOST_POINTS, PALETTE, key, over_seeds, thinned
from polytask.report._curve_sections import losses, metrics, weights
from polytask.report._gradient_section import gradients
from polytask.report._plotly import figures
from polytask.report._records import read_run
from polytask.report._tables import configs, flatten, results
from polytask.report._tradeoff_section import front, trade_offs
from tests.report_folders import CONFIG, TASKS, write_comparison, write_parquet, write_run, write_weights


def steps(*values):
    return np.array(values, dtype=np.int64)


def test_one_run_is_drawn_as_it_is():
    line = over_seeds("a", 0, [(steps(0, 10), np.array([1.0, 3.0]))])
    assert (line.x.tolist(), line.y.tolist(), line.low) == ([0, 10], [1.0, 3.0], None)


def test_seeds_are_a_mean_between_the_least_and_the_greatest():
    series = [(steps(0, 10), np.array([1.0, 3.0])), (steps(0, 20), np.array([2.0, np.nan]))]
    line = over_seeds("a", 0, series)
    assert line.x.tolist() == [0, 10, 20]
    np.testing.assert_array_equal(line.y, [1.5, 3.0, np.nan])
    np.testing.assert_array_equal(line.low, [1.0, 3.0, np.nan])
    np.testing.assert_array_equal(line.high, [2.0, 3.0, np.nan])


def test_a_long_line_is_thinned_and_keeps_its_ends():
    line = over_seeds("a", 0, [(np.arange(100_000), np.arange(100_000.0))])
    assert len(line.x) == MOST_POINTS
    assert (line.x[0], line.x[-1]) == (0, 99_999)
    assert (line.x == line.y).all()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 7, 100])
def test_thinning_never_repeats_a_place(count):
    places = thinned(count, 6).tolist()
    assert places == sorted(set(places))
    assert len(places) == min(count, 6)


def test_keys_are_file_names():
    assert key("Accuracy of <b>a/b</b>, 50 %") == "accuracy-of-b-a-b-b-50"


# Machado et al. 2009: linear RGB as people without one kind of cone see it.
SIGHTS = {
    "all cones": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def linear(colour):
    parts = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(light, 0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_apart_for_every_sight(sight):
    seen = {colour: lab(np.asarray(SIGHTS[sight]) @ linear(colour)) for colour in PALETTE}
    apart = {
        pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(PALETTE, 2)
    }
    assert min(apart.values()) > 12, min(apart, key=apart.get)


@pytest.mark.parametrize("page", ["#ffffff", "#1e2228"])
@pytest.mark.parametrize("colour", PALETTE)
def test_colours_stand_out_from_both_pages(colour, page):
    lights = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(each)) for each in (colour, page))
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 3


def test_losses_and_metrics_have_a_chart_for_each_task_with_its_single_task_models(tmp_path):
    single = write_run(tmp_path / "single", ("parity",), seed=5, records=False)
    found = collect([write_run(tmp_path / "one")], [single])
    assert [chart.title for chart in losses(found).charts] == ["Loss of digit", "Loss of parity"]
    digit, parity = metrics(found).charts
    assert (digit.title, parity.title) == ("Accuracy of digit", "Accuracy of parity")
    assert [line.is_baseline for line in digit.views[0].plot.lines] == [False]
    line, beside = parity.views[0].plot.lines
    name = "val/parity/Accuracy/epoch"
    assert line.y.tolist() == found.entries[0].runs[0].metrics[name][1].tolist()
    assert (beside.name, beside.is_baseline) == ("single-task", True)
    assert beside.y.tolist() == read_run(single).metrics[name][1].tolist()


def test_single_task_models_are_drawn_over_time_in_every_view(tmp_path):
    single = write_run(tmp_path / "single", ("parity",), records=False)
    digit, parity = losses(collect([write_run(tmp_path / "one")], [single])).charts
    assert [view.label for view in parity.views] == ["validation", "training", "training, within epochs"]
    for chart, lines in ((digit, ["one"]), (parity, ["one", "single-task"])):
        assert [[line.name for line in view.plot.lines] for view in chart.views] == [lines] * 3


def test_a_baseline_is_grey_and_dashed_and_an_entry_is_not(tmp_path):
    single = write_run(tmp_path / "single", ("parity",), records=False)
    chart = losses(collect([write_run(tmp_path / "one")], [single])).charts[1]
    line, beside = figures(chart)[0]["data"]
    assert (line["line"]["dash"], beside["line"]["dash"]) == ("solid", "longdash")
    assert line["line"]["color"] in PALETTE
    assert beside["line"]["color"] not in PALETTE
    assert beside["line"]["width"] < line["line"]["width"]


def test_a_level_is_drawn_on_validation_only_where_there_is_no_run(tmp_path):
    found = replace(collect([write_run(tmp_path / "one")]), levels={("parity", "loss"): 0.25})
    _, parity = losses(found).charts
    assert [view.plot.levels for view in parity.views] == [(("single-task", 0.25),), (), ()]


def test_charts_of_a_comparison_may_begin_with_its_single_task_models(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    (folder / "results.parquet").unlink()
    for run in (folder / "runs").iterdir():
        if not run.name.startswith("single_task_digit"):
            shutil.rmtree(run)
    found = collect([folder])
    assert [chart.title for chart in losses(found).charts] == ["Loss of digit"]
    assert [chart.title for chart in metrics(found).charts] == ["Accuracy of digit"]
    assert results(found) is None


def test_weights_are_those_that_are_logged_or_recorded(tmp_path):
    run = write_run(tmp_path / "one", records=False)
    logged = weights(collect([run])).charts[0].views[0].plot
    assert [line.name for line in logged.lines] == ["digit", "parity"]
    assert len(logged.lines[0].x) == 24
    columns = {
        "step": [0, 0, 1, 1],
        "epoch": [0] * 4,
        "task": ["digit", "parity"] * 2,
        "weight": [1.0, 2.0, 3.0, 4.0],
        "effective_weight": [1.0, 0.5, 3.0, 1.0],
    }
    write_parquet(run / "records" / "weights.parquet", columns)
    chart = weights(collect([run])).charts[0]
    assert (chart.control, [view.label for view in chart.views]) == ("list", ["effective", "own"])
    effective, own = ([line.y.tolist() for line in view.plot.lines] for view in chart.views)
    assert effective == [[1.0, 3.0], [0.5, 1.0]]
    assert own == [[1.0, 3.0], [2.0, 4.0]]


def test_own_weights_that_are_the_effective_ones_are_not_drawn_twice(tmp_path):
    run = write_run(tmp_path / "one", records=False)
    write_weights(run, TASKS)
    chart = weights(collect([run])).charts[0]
    assert (chart.control, [view.label for view in chart.views]) == ("", ["effective"])
    assert "before loss_weights" not in chart.note


@pytest.mark.slow
def test_own_weights_are_those_of_the_seeds_that_recorded_them(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=2)
    write_weights(folder / "runs" / "equal-base-seed1", TASKS, {"parity": 3.0})
    chart = next(each for each in weights(collect([folder])).charts if each.title == "Weights, equal")
    effective, own = (view.plot.lines for view in chart.views)
    assert [line.low is not None for line in (*effective, *own)] == [True, True, False, False]
    assert own[1].y[0] == 1.0
    names = {file.name for file in write_figures(collect([folder]), tmp_path / "figures")}
    assert {"weights-equal-effective.svg", "weights-equal-own.svg", "weights-plain_sum.svg"} <= names


def test_recorded_losses_are_drawn_beside_the_logged_ones(tmp_path):
    run = write_run(tmp_path / "one", records=False)
    columns = {"step": [4, 5], "epoch": [0, 0], "task": ["digit", "digit"], "loss": [1.0, 0.5]}
    write_parquet(run / "records" / "losses.parquet", columns)
    chart = losses(collect([run])).charts[-1]
    assert chart.title == "Recorded loss of digit"
    assert chart.views[0].plot.lines[0].y.tolist() == [1.0, 0.5]


def write_inner(run, rows):
    names = ("step", "epoch", "group", "task", "other", "inner")
    write_parquet(
        run / "records" / "gradients.parquet", dict(zip(names, zip(*rows, strict=True), strict=True))
    )


def test_norms_conflicts_and_cosines_are_the_gramians(tmp_path):
    run = write_run(tmp_path / "one", records=False)
    rows = [
        (0, 0, "shared", "digit", "digit", 4.0),
        (0, 0, "shared", "digit", "parity", -3.0),
        (0, 0, "shared", "parity", "parity", 9.0),
        (8, 0, "shared", "digit", "digit", 1.0),
        (8, 0, "shared", "digit", "parity", 0.5),
        (8, 0, "shared", "parity", "parity", 1.0),
    ]
    write_inner(run, rows)
    norms, conflicts, conditions, cosines = gradients(collect([run])).charts
    condition = conditions.views[0].plot
    eigenvalues = [np.linalg.eigvalsh([[4.0, -3.0], [-3.0, 9.0]]), [0.5, 1.5]]
    np.testing.assert_allclose(condition.lines[0].y, [high / low for low, high in eigenvalues])
    assert condition.is_log
    assert [line.y.tolist() for line in norms.views[0].plot.lines] == [[2.0, 1.0], [3.0, 1.0]]
    assert conflicts.views[0].plot.lines[0].y.tolist() == [1.0, 0.0]
    assert [view.label for view in cosines.views] == ["step 0", "step 8"]
    assert cosines.control == "slider"
    np.testing.assert_allclose(cosines.views[0].plot.values, [[1.0, -0.5], [-0.5, 1.0]])


def test_a_task_that_is_absent_from_a_step_leaves_a_gap(tmp_path):
    run = write_run(tmp_path / "one", records=False)
    rows = [
        (0, 0, "shared", "parity", "parity", 4.0),
        (8, 0, "shared", "digit", "digit", 1.0),
        (8, 0, "shared", "digit", "parity", 0.5),
        (8, 0, "shared", "parity", "parity", 1.0),
    ]
    write_inner(run, rows)
    norms, conflicts, _, cosines = gradients(collect([run])).charts
    by_name = {line.name: line.y for line in norms.views[0].plot.lines}
    np.testing.assert_array_equal(by_name["digit"], [np.nan, 1.0])
    np.testing.assert_array_equal(conflicts.views[0].plot.lines[0].y, [np.nan, 0.0])
    # The order is that of the tasks everywhere, not that of the records.
    assert cosines.views[0].plot.names == ("digit", "parity")
    np.testing.assert_array_equal(cosines.views[0].plot.values, [[np.nan, np.nan], [np.nan, 1.0]])


def test_layer_groups_are_chosen_from_a_list(tmp_path):
    run = write_run(tmp_path / "one", records=False)
    write_inner(
        run, [(0, 0, group, "digit", "digit", value) for group, value in (("shared", 4.0), ("stem", 9.0))]
    )
    norms, conflicts, conditions, *cosines = gradients(collect([run])).charts
    assert [view.label for view in norms.views] == ["shared", "stem"]
    assert norms.control == conflicts.control == conditions.control == "list"
    assert [chart.title for chart in cosines] == [
        "Gradient cosines, one, shared",
        "Gradient cosines, one, stem",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("square", "inner"), [(4.0, 5.0), (0.0, 0.0)])
def test_gradients_that_follow_from_each_other_leave_a_gap_in_the_condition(tmp_path, square, inner):
    run = write_run(tmp_path / "one", records=False)
    pairs = {("digit", "digit"): square, ("digit", "parity"): inner, ("parity", "parity"): 9.0}
    write_inner(run, [(8, 0, "shared", *pair, value) for pair, value in pairs.items()])
    found = collect([run])
    chart = next(each for each in gradients(found).charts if each.title == "Condition of the Gramian")
    figure = figures(chart)[0]
    assert figure["layout"]["yaxis"]["type"] == "log"
    assert (figure["data"][0]["y"] == [None]) == (square == 0.0)
    drawn = [file for file in write_figures(found, tmp_path / "figures") if "condition" in file.name]
    assert len(drawn) == 2


def test_a_slider_has_so_many_stops_at_most(tmp_path):
    run = write_run(tmp_path / "one", records=False)
    write_inner(run, [(step, 0, "shared", "digit", "digit", 1.0) for step in range(500)])
    views = gradients(collect([run])).charts[-1].views
    assert len(views) == MOST_FRAMES
    assert (views[0].label, views[-1].label) == ("step 0", "step 499")


def test_the_affinity_is_the_mean_over_training_and_proposes_groups(tmp_path):
    run = write_run(tmp_path / "one", ("a", "b", "c"), records=False)
    pairs = {
        ("a", "b"): 0.4,
        ("b", "a"): 0.2,
        ("a", "c"): -0.3,
        ("c", "a"): -0.3,
        ("b", "c"): -0.1,
        ("c", "b"): -0.2,
    }
    rows = [
        (step, 0, "lookahead", task, other, value + shift)
        for step, shift in ((0, 0.05), (9, -0.05))
        for (task, other), value in pairs.items()
    ]
    names = ("step", "epoch", "form", "task", "other", "affinity")
    write_parquet(
        run / "records" / "affinity.parquet", dict(zip(names, zip(*rows, strict=True), strict=True))
    )
    section = affinity(collect([run]))
    heat = section.charts[0].views[0].plot
    np.testing.assert_allclose(heat.values, [[np.nan, 0.4, -0.3], [0.2, np.nan, -0.1], [-0.3, -0.2, np.nan]])
    assert heat.limit == pytest.approx(0.4)
    assert section.grid is not None
    assert section.grid.rows[0].cells[:3] == ("one", "2", "a, b | c")


def test_what_was_not_recorded_is_named_with_its_recorder(tmp_path):
    found = collect([write_run(tmp_path / "one", records=False)])
    assert "polytask.diagnostics.GradientRecorder" in gradients(found).hint
    assert "polytask.diagnostics.Affinity" in affinity(found).hint
    assert "name more runs" in trade_offs(found).hint


@pytest.mark.parametrize(
    ("points", "higher", "expected"),
    [
        ([(1, 1), (2, 2)], (True, True), [False, True]),
        ([(1, 1), (2, 2)], (False, False), [True, False]),
        ([(1, 1), (2, 2)], (True, False), [True, True]),
        ([(1, 1), (1, 1)], (True, True), [True, True]),
        ([(1, 1), (1, 2)], (True, True), [False, True]),
    ],
)
def test_the_front_is_what_nothing_beats(points, higher, expected):
    assert front(points, higher) == expected


def test_trade_offs_take_every_pair_of_tasks(tmp_path):
    found = collect([write_comparison(tmp_path / "cmp", ("a", "b", "c"), ("equal",), seeds=2)])
    chart = trade_offs(found).charts[0]
    assert [view.label for view in chart.views] == ["a and b", "a and c", "b and c"]
    points = chart.views[0].plot.points
    assert [point.name for point in points] == ["equal"] * 2 + ["plain_sum"] * 2 + ["single-task models"]
    shown = {(score.run, score.task): score.value for score in found.scores}
    assert points[0].x == shown["runs/equal-base-seed0", "a"]
    assert points[0].y == shown["runs/equal-base-seed0", "b"]


def test_plain_runs_are_traded_off_by_their_validation_losses(tmp_path):
    runs = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two"))]
    chart = trade_offs(collect(runs)).charts[0]
    assert chart.views[0].plot.x_label == "digit loss ↓"


def test_configs_stand_side_by_side_and_differences_are_marked(tmp_path):
    runs = [
        write_run(tmp_path / "one", config=CONFIG),
        write_run(tmp_path / "two", config={**CONFIG, "system": {"optimizer": {"lr": 0.01}}, "extra": []}),
    ]
    grid = configs(collect(runs))
    marked = {row.cells[0]: row.cells[1:] for row in grid.rows if row.differs}
    assert marked == {
        "system.optimizer._target_": ("torch.optim.AdamW", ""),
        "system.optimizer.lr": ("0.001", "0.01"),
        "extra": ("", "[]"),
    }
    assert grid.differences == 3


def test_configs_of_single_task_models_stand_beside_the_others(tmp_path):
    single = write_run(tmp_path / "single", ("parity",), config={"model": "small"}, records=False)
    grid = configs(collect([write_run(tmp_path / "one")], [single]))
    assert grid.header == ("key", "one", "single-task, parity")
    assert ("model", "", "small") in [row.cells for row in grid.rows]
    comparison = collect([write_comparison(tmp_path / "cmp", methods=("equal",), seeds=2)])
    names = ("equal", "plain_sum", "single-task, digit", "single-task, parity")
    assert configs(comparison).header == ("key", *names)


def test_plain_runs_have_a_table_of_last_values(tmp_path):
    grid = results(collect([write_run(tmp_path / "one")]))
    assert grid is not None
    assert grid.header[:3] == ("run", "val/loss/digit", "val/digit/Accuracy")


def test_flattening_an_empty_config_gives_nothing():
    assert list(flatten({})) == []
