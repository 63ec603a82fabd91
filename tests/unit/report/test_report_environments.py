"""Where runs were trained, side by side."""

import json
from importlib.metadata import version

from polytask.report import collect, page
from polytask.report._tables import environments
from tests.report_folders import write_comparison, write_run


def notes(run, *found):
    """What a run, which may have been resumed, notes about where it was trained."""
    (run / "environment.json").write_text(json.dumps(found))


def test_runs_side_by_side_with_differences_marked(tmp_path):
    one, other = (write_run(tmp_path / name, records=False) for name in ("one", "other"))
    notes(one, {"device": "cpu", "torch": "2.9"})
    notes(other, {"device": "cpu", "torch": "2.9"}, {"device": "<b>", "torch": "2.9"})
    grid = environments(collect([one, other]))
    assert grid.header == ("what", "one", "other", "this page")
    rows = {row.cells[0]: row for row in grid.rows}
    assert rows["device"].cells[1:] == ("cpu", "cpu | <b>", "")
    assert rows["device"].differs
    assert rows["torch"].cells[1:] == ("2.9", "2.9", version("torch"))
    assert not rows["torch"].differs
    text = page(collect([one, other]))
    assert "cpu | &lt;b&gt;" in text
    assert '<th scope="row"><span class="mark" title="differs">≠ </span>device</th>' in text


def test_the_seeds_of_a_comparison_and_its_baselines(tmp_path):
    folder = write_comparison(tmp_path / "comparison", methods=("uw",))
    for run in (folder / "runs").iterdir():
        seed1 = run.name in ("uw-base-seed1", "single_task_digit-base-seed0")
        notes(run, {"torch": "2.8" if seed1 else "2.9"})
    grid = environments(collect([folder]))
    assert grid.header == ("what", "uw", "plain_sum", "single-task", "this page")
    row = next(row for row in grid.rows if row.cells[0] == "torch")
    assert row.cells[1:4] == ("2.9 | 2.8", "2.9", "2.8 | 2.9")
    assert row.differs


def test_runs_that_noted_nothing(tmp_path):
    grid = environments(collect([write_run(tmp_path / "run", records=False)]))
    assert all(row.cells[1] == "" and not row.differs for row in grid.rows)
    assert grid.header == ("what", "run", "this page")
