"""Run folders: made, found, taken back."""

from pathlib import Path

import pytest

from polytask import runs
from polytask import UserError
from polytask.runs import Run


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(name: str, *checkpoints: str) -> Run:
    run = Run(Path(name))
    run.checkpoints.mkdir(parents=True)
    run.config.touch()
    for checkpoint in checkpoints:
        (run.checkpoints / f"{checkpoint}.ckpt").touch()
    return run


def test_runs_made_one_after_the_other_sort_by_name(here):
    folders = [runs.create("p").folder for _ in range(3)]
    assert [folder.parent for folder in folders] == [Path("runs/p")] * 3
    assert len(set(folders)) == 3
    assert [folder.name[:19] for folder in folders] == sorted(folder.name[:19] for folder in folders)


def test_the_best_is_the_last_where_there_is_no_best(here):
    run = made("run", "last")
    assert run.checkpoint("best") == run.checkpoint("last") == Path("run/checkpoints/last.ckpt")
    made("other", "last", "best")
    assert Run(Path("other")).checkpoint("best").name == "best.ckpt"


def test_a_mistake_removes_what_the_run_made_and_no_more(here):
    Path("runs").mkdir()
    run = runs.create("p")
    run.config.touch()
    (run.folder / "tensorboard").mkdir()
    (run.folder / "tensorboard" / "events").touch()
    with pytest.raises(UserError), run.kept_if_begun():
        raise UserError("x", "y")
    assert list(here.rglob("*")) == [here / "runs"]


def test_a_mistake_beside_another_run_leaves_that_one(here):
    run, other = runs.create("p"), runs.create("p")
    with pytest.raises(UserError), run.kept_if_begun():
        raise UserError("x", "y")
    assert list(Path("runs/p").iterdir()) == [other.folder]


def test_a_mistake_keeps_a_folder_that_was_there(here):
    Path("mine").mkdir()
    run = runs.create("p", Path("mine"))
    with pytest.raises(UserError), run.kept_if_begun():
        raise UserError("x", "y")
    assert list(here.rglob("*")) == [here / "mine"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_anything_but_a_mistake_keeps_the_folder(here, error):
    run = runs.create("p")
    with pytest.raises(type(error)), run.kept_if_begun():
        raise error
    assert run.checkpoints.is_dir()


def test_a_mistake_after_the_first_checkpoint_keeps_the_folder(here):
    run = runs.create("p")
    run.checkpoint("last").touch()
    with pytest.raises(UserError), run.kept_if_begun():
        raise UserError("x", "y")
    assert run.checkpoint("last").exists()


def test_a_mistake_puts_the_config_of_a_resumed_run_back(here):
    run = made("run", "last")
    run.config.write_text("old")

    def change() -> None:
        with Run(run.folder).kept_if_begun():
            run.config.write_text("new")
            raise UserError("x", "y")

    with pytest.raises(UserError):
        change()
    assert run.config.read_text() == "old"


@pytest.mark.parametrize(
    ("prepare", "rule"),
    [
        (lambda folder: made(str(folder)), "got the folder of a run"),
        (lambda folder: (folder.mkdir(), (folder / "a").touch()), "a new or an empty folder"),
        (lambda folder: folder.touch(), "cannot be created: Not a directory"),
    ],
)
def test_a_folder_that_is_in_use_is_refused(here, prepare, rule):
    folder = Path("mine")
    prepare(folder)
    before = sorted(here.rglob("*"))
    with pytest.raises(UserError, match=rule):
        runs.create("p", folder)
    assert sorted(here.rglob("*")) == before


def test_a_path_that_cannot_be_made_leaves_none_of_its_parents(here):
    with pytest.raises(UserError, match=r"File name too long\. Name another with --run-dir"):
        runs.create("p", Path("a/b") / ("c" * 300))
    assert not list(here.iterdir())


def test_runs_are_found_at_any_depth_newest_first(here):
    for name in ("p/20260101-000000-000-a", "p/20260103-000000-000-a", "20260102-000000-000-a"):
        made(f"runs/{name}")
    Path("runs/p/none").mkdir()
    found = [run.folder.name[:8] for run in runs.existing(Path("runs"))]
    assert found == ["20260103", "20260102", "20260101"]
    one = Path("runs/p/20260101-000000-000-a")
    assert runs.existing(one) == [Run(one)]
    assert runs.latest(Path("runs")).folder.name.startswith("20260103")


def test_the_newest_run_needs_the_checkpoint_and_the_config(here):
    made("runs/1", "last", "best")
    made("runs/2", "last")
    made("runs/3")

    def found(checkpoint, **distances):
        fitting = {name.strip("_"): away for name, away in distances.items()}
        return runs.newest(
            Path("runs"), checkpoint, lambda run: fitting.get(run.folder.name), lambda run: "seed"
        ).folder.name

    assert found("last", _1=0, _2=0, _3=0) == "2"
    assert found("last", _1=1, _2=2, _3=0) == "1"
    assert found("last", _1=2, _2=2) == "2"
    assert found("best", _1=0) == "1"
    with pytest.raises(UserError, match="runs/3 without one"):
        found("last", _3=0)
    with pytest.raises(UserError, match="the newest run runs/3, which differs in seed"):
        found("last")


@pytest.mark.parametrize("root", ["none", "empty"])
def test_a_search_without_runs_says_so(here, root):
    Path("empty").mkdir()
    with pytest.raises(UserError, match="polytask fit"):
        runs.newest(Path(root), "last", lambda run: 0, lambda run: "")
    with pytest.raises(UserError, match=f"--run-dir {root}"):
        runs.latest(Path(root))
