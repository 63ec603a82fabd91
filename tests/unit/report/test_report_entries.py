"""What runs and comparisons are read as, and what is said where they cannot be read."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from polytask import UserError
from polytask.compare import read_results
from polytask.report import collect, page
from polytask.report._records import read_run
from tests.report_folders import TASKS, write_comparison, write_parquet, write_results, write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "one")


def test_a_run_has_series_and_tasks_in_order(run):
    found = read_run(run)
    assert found.tasks == list(TASKS)
    steps, values = found.metrics["val/digit/Accuracy/epoch"]
    assert steps.tolist() == [39, 79, 119, 159, 199, 239]
    assert len(values) == 6


def test_metrics_without_rows_are_no_series(run):
    (run / "metrics.csv").write_text("epoch,step\n")
    assert read_run(run).metrics == {}


def test_a_line_that_is_still_being_written_is_left_out(run):
    whole = "epoch,step,val/loss/a/epoch\n0,9,0.5\n"
    (run / "metrics.csv").write_text(whole + "1,19,0.2")
    steps, values = read_run(run).metrics["val/loss/a/epoch"]
    assert (steps.tolist(), values.tolist()) == ([9], [0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "metrics.csv: must begin with the names of its columns, and have `step`, got an empty file"),
        ("a,b\n1,2\n", "got a, b"),
        ("step", "got no complete line"),
        ("epoch,step,x\n0,9,0.5\n0,ten,0.5\n", "metrics.csv, line 3: must have a number"),
        ("epoch,step,x\n0,9,0.5,7\n", "metrics.csv, line 2: must have a number for every column"),
        ("epoch,step,x\n0,9,half\n", "metrics.csv, line 2"),
        ("epoch,step,x\n0,9," + "1" * 131073 + "\n", "metrics.csv: must be a CSV file: field larger"),
        ("epoch,step,x\n0,9," + "a" * 5000 + "\n", "aaa…. Delete it"),
        (f"epoch,step,x\n0,{10**30},1\n", "metrics.csv, line 2"),
    ],
)
def test_damaged_metrics_are_named(run, text, message):
    (run / "metrics.csv").write_text(text)
    with pytest.raises(UserError) as error:
        collect([run])
    assert message in str(error.value)


def test_a_folder_in_the_place_of_metrics_is_named(run):
    (run / "metrics.csv").unlink()
    (run / "metrics.csv").mkdir()
    with pytest.raises(UserError, match=r"metrics\.csv: must be a CSV file.*directory"):
        collect([run])


def test_a_task_may_be_called_anything(tmp_path):
    tasks = ("{", "}{0}", "%s")
    run = write_run(tmp_path / "one", tasks)
    assert "Accuracy of }{0}" in page(collect([run]))


def test_metrics_that_are_no_text_are_named(run):
    (run / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"metrics\.csv: must be a CSV file"):
        collect([run])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n",
        "a: [\n",
        "a: &a [*a]\n",
        "a: &a {b: *a}\n",
        "a: " + "[" * 3000,
        "a: " + "[" * 70 + "]" * 70,
        "a: 2026-13-45\n",
        "a: !!int ''\n",
        "a: !!bool x\n",
        "a: !!timestamp x\n",
        "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
    ],
)
def test_a_damaged_config_is_named(run, text):
    (run / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: must"):
        collect([run])


@pytest.mark.parametrize("name", ["gradients", "affinity", "weights", "losses"])
@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1" + b"\0" * 64 + b"PAR1"])
def test_a_damaged_record_file_is_named(run, name, content):
    (run / "records").mkdir(exist_ok=True)
    (run / "records" / f"{name}.parquet").write_bytes(content)
    with pytest.raises(UserError, match=rf"records/{name}\.parquet"):
        collect([run])


def test_rows_beside_a_record_file_are_read(run):
    columns = {"step": [240], "epoch": [6], "group": ["late"], "task": ["digit"], "other": ["digit"]}
    write_parquet(run / "records" / "gradients-240.parquet", {**columns, "inner": [4.0]})
    found = collect([run]).entries[0].runs[0].gradients
    assert list(found) == ["shared", "late"]
    assert found["late"].steps.tolist() == [240]


def test_a_record_file_cut_short_is_named(run):
    file = run / "records" / "gradients.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"gradients\.parquet"):
        collect([run])


def test_a_record_file_with_other_columns_is_named(run):
    write_parquet(run / "records" / "weights.parquet", {"step": [1], "weight": [0.5]})
    with pytest.raises(UserError, match=r"weights\.parquet: must have the columns step, epoch, task, weight"):
        collect([run])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: must be the folder of a run.*no such folder"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"no config\.yaml in it"):
        collect([tmp_path])


def test_runs_of_different_tasks_are_refused_with_both(run, tmp_path):
    other = write_run(tmp_path / "two", ("digit", "size"))
    with pytest.raises(UserError, match=r"digit, parity in one and digit, size in two"):
        collect([run, other])


def test_a_run_without_records_yet_goes_with_any(run, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    (new / "config.yaml").write_text("seed: 3\n")
    (new / "checkpoints").mkdir()
    assert collect([new, run]).tasks == TASKS
    assert collect([new]).tasks == ()


def test_a_run_is_taken_once(run):
    with pytest.raises(UserError, match="must be given each run once"):
        collect([run, run])


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [write_run(tmp_path / folder / "run") for folder in ("a", "b")]
    assert [entry.name for entry in collect(paths).entries] == ["a/run", "b/run"]


def test_single_task_runs_are_baselines_by_task(run, tmp_path):
    tasks = ("parity", "digit", "parity")
    singles = [
        write_run(tmp_path / str(seed), (task,), seed, records=False) for seed, task in enumerate(tasks)
    ]
    found = collect([run], singles)
    folders = {one.task: [each.folder for each in one.entry.runs] for one in found.baselines}
    assert folders == {"parity": [singles[0], singles[2]], "digit": [singles[1]]}
    assert found.levels == {}
    lasts = [read_run(single).last for single in singles]
    assert [(score.task, score.value) for score in found.scores if score.is_baseline] == [
        ("parity", lasts[0]["val/loss/parity"]),
        ("parity", lasts[2]["val/loss/parity"]),
        ("digit", lasts[1]["val/loss/digit"]),
    ]


def test_a_baseline_of_several_or_other_tasks_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"--single-task: must be a run of one of the tasks digit, parity"):
        collect([run], [write_run(tmp_path / "two")])
    with pytest.raises(UserError, match="size in"):
        collect([run], [write_run(tmp_path / "three", ("size",), records=False)])


def test_a_comparison_has_methods_with_seeds_and_single_task_models(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal", "uw"), seeds=2)
    found = collect([folder])
    assert [(entry.name, len(entry.runs)) for entry in found.entries] == [
        ("equal", 2), ("uw", 2), ("plain_sum", 2),
    ]  # fmt: skip
    assert [(one.task, len(one.entry.runs)) for one in found.baselines] == [("digit", 2), ("parity", 2)]
    assert found.levels == {}
    assert found.note == ""
    assert found.split == "test"
    assert found.table is not None
    assert [row.cells[0] for row in found.table.rows] == ["equal", "uw", "plain_sum", "single_task"]


def test_a_comparison_stands_alone(tmp_path, run):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    with pytest.raises(UserError, match="must be given one comparison"):
        collect([folder, run])
    with pytest.raises(UserError, match="--single-task: is for runs"):
        collect([folder], [run])


def test_single_task_models_whose_runs_are_gone_are_levels_of_the_results(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=2)
    rows = [replace(one, split="val") for one in read_results(folder)]
    write_results(folder, rows)
    for seed in range(2):
        shutil.rmtree(folder / f"runs/single_task_digit-base-seed{seed}")
    found = collect([folder])
    values = [one.value for one in rows if one.kind == "single_task" and one.task == "digit"]
    assert found.levels == {("digit", "Accuracy"): pytest.approx(np.mean(values))}
    assert [one.task for one in found.baselines] == ["parity"]


@pytest.fixture
def unfinished(tmp_path):
    """Two runs of eight are trained, two have begun."""
    folder = write_comparison(tmp_path / "cmp", methods=("equal", "uw"), seeds=2)
    (folder / "results.parquet").unlink()
    kept = ("single_task_digit-base-seed0", "equal-base-seed0", "equal-base-seed1", "uw-base-seed0")
    for run in (folder / "runs").iterdir():
        if run.name not in kept:
            shutil.rmtree(run)
        elif run.name not in kept[:2]:
            (run / "cost.json").unlink()
    return folder


def test_an_unfinished_comparison_has_what_has_begun_and_no_table(unfinished):
    found = collect([unfinished])
    assert found.note == "unfinished: 0 of 10 trials and 2 of 10 runs are trained"
    assert [(entry.name, len(entry.runs)) for entry in found.entries] == [("equal", 2), ("uw", 1)]
    assert [(one.task, one.entry.name) for one in found.baselines] == [("digit", "single-task")]
    assert (found.tasks, found.table, found.split) == (TASKS, None, "val")
    # A run that goes on would be traded off at another epoch than one that ended.
    assert {(score.entry, score.task, score.is_baseline) for score in found.scores} == {
        ("equal", "digit", False),
        ("equal", "parity", False),
        ("single-task", "digit", True),
    }


def test_a_comparison_that_has_just_begun_has_its_tasks(unfinished):
    shutil.rmtree(unfinished / "runs")
    found = collect([unfinished])
    assert (found.entries, found.baselines, found.tasks) == ((), (), TASKS)
    assert found.note == "unfinished: 0 of 10 trials and 0 of 10 runs are trained"
    assert "none yet" in page(found)


def test_architectures_of_an_unfinished_comparison_are_told_apart(unfinished):
    definition = yaml.safe_load((unfinished / "comparison.yaml").read_text())
    definition["architectures"]["wide"] = []
    (unfinished / "comparison.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    write_run(unfinished / "runs/equal-wide-seed1")
    found = collect([unfinished])
    assert [entry.name for entry in found.entries] == ["equal · base", "uw · base", "equal · wide"]
    assert found.baselines[0].entry.name == "single-task · base"
    assert found.note == "unfinished: 0 of 20 trials and 2 of 20 runs are trained"


def test_a_project_is_no_run(tmp_path):
    run = write_run(tmp_path / "run")
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    for paths, singles in (([project], []), ([run], [project])):
        with pytest.raises(UserError, match=r"project: must be the folder of a run .* but no training"):
            collect(paths, singles)


def test_a_table_that_lacks_runs_says_so(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal", "uw"), seeds=2)
    assert collect([folder]).note == ""
    definition = yaml.safe_load((folder / "comparison.yaml").read_text())
    definition["methods"]["late"] = []
    (folder / "comparison.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    assert collect([folder]).note == "the table lacks 2 of the 12 runs of the definition"
    (folder / "remarks.json").write_text(json.dumps({"left_out": {"late-base": "failed with seed 0"}}))
    assert collect([folder]).note == ""


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("methods", "uw", r"comparison\.yaml: methods: must be a mapping, got 'uw'"),
        ("architectures", None, r"comparison\.yaml: architectures: must be"),
        ("seeds", 3, r"comparison\.yaml: seeds: must be a list, got 3"),
        ("config", {"system": []}, r"task_losses: must be a mapping from tasks to losses, got None"),
        ("methods", {"../../../x": []}, "runs must be inside the comparison's folder"),
    ],
)
def test_a_damaged_definition_of_an_unfinished_comparison_is_named(unfinished, key, value, message):
    definition = yaml.safe_load((unfinished / "comparison.yaml").read_text())
    (unfinished / "comparison.yaml").write_text(yaml.safe_dump({**definition, key: value}))
    outside = unfinished / "runs/../../../x-base-seed0"
    outside.resolve().mkdir(exist_ok=True)
    (outside.resolve() / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match=message):
        collect([unfinished])


@pytest.mark.parametrize("trials", ["many", None, 0, 2.5, True])
def test_trials_are_a_number(tmp_path, trials):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    (folder / "comparison.yaml").write_text(yaml.safe_dump({"trials": trials}))
    with pytest.raises(UserError, match=r"comparison\.yaml: trials: must be an integer of at least 1"):
        collect([folder])


def test_results_without_rows_are_named(tmp_path):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    write_results(folder, [])
    with pytest.raises(
        UserError, match=r"results\.parquet: must have a row for each value of each run, got none"
    ):
        collect([folder])


def test_a_comparison_cannot_name_runs_outside_itself(tmp_path, run):
    folder = write_comparison(tmp_path / "cmp", methods=("equal",), seeds=1)
    table = pq.read_table(folder / "results.parquet")
    outside = pa.array(["../one"] * len(table))
    pq.write_table(
        table.set_column(table.schema.get_field_index("run"), "run", outside), folder / "results.parquet"
    )
    with pytest.raises(UserError, match="runs must be inside the comparison's folder"):
        collect([folder])


def test_a_config_cannot_run_anything(run):
    (run / "config.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UserError, match=r"config\.yaml: must be YAML"):
        collect([run])


def test_nothing_to_report_is_an_error():
    with pytest.raises(UserError, match="the folder of a run"):
        collect([])


def test_the_config_is_kept_as_it_is(run):
    assert read_run(run).config == yaml.safe_load((run / "config.yaml").read_text())


def test_the_remarks_of_a_comparison_stand_under_its_table(tmp_path):
    folder = write_comparison(tmp_path / "digits")
    (folder / "remarks.json").write_text(
        json.dumps({"left_out": {"pcgrad-base": "failed with seed 0: the loss"}})
    )
    notes = collect([folder]).table.notes
    assert "Left out: pcgrad-base failed with seed 0: the loss." in notes


@pytest.mark.parametrize("text", ["", "[]", "{", '{"more": {}}', '{"left_out": 3}'])
def test_damaged_remarks_are_said(tmp_path, text):
    folder = write_comparison(tmp_path / "digits")
    (folder / "remarks.json").write_text(text)
    with pytest.raises(UserError, match=r"remarks.json: must contain a comparison's remarks"):
        collect([folder])
