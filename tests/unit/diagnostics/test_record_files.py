"""Record files: rows are added at a price that does not grow, and no kill damages what is there."""

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polytask import UserError
from polytask.diagnostics import Gramians, read_affinity, read_gradients, read_losses
from polytask.diagnostics._store import AFFINITY, GRADIENTS, LOSSES, RecordFile, read


@pytest.fixture
def path(tmp_path):
    (tmp_path / "records").mkdir()
    return tmp_path / "records" / "losses.parquet"


def rows(*steps):
    return [(step, 0, task, step + 0.5) for step in steps for task in ("a", "b")]


def kept(path):
    return [tuple(row.values()) for row in read(path, LOSSES).to_pylist()]


def files(path):
    return sorted(file.name for file in path.parent.iterdir())


# ---- adding rows ------------------------------------------------------------------------------


def test_rows_are_written_a_few_times_in_all_however_often_some_are_added(path, monkeypatch):
    written, write_table = [], pq.write_table
    monkeypatch.setattr(
        pq, "write_table", lambda table, file: written.append(len(table)) or write_table(table, file)
    )
    store, most = RecordFile(path, LOSSES), 0
    for step in range(256):
        store.append(rows(step), {})
        most = max(most, len(files(path)))
    store.finish()
    assert kept(path) == rows(*range(256))
    assert sum(written) <= 10 * 512
    assert most <= 9


def test_all_rows_are_read_at_every_moment_and_stand_in_one_file_at_the_end(path):
    store = RecordFile(path, LOSSES)
    for step in range(0, 14, 2):
        store.append(rows(step, step + 1), {"number": str(step)})
        assert kept(path) == rows(*range(step + 2))
        assert read(path, LOSSES).schema.metadata == {b"number": str(step).encode()}
    store.finish()
    assert files(path) == ["losses.parquet"]
    assert pq.read_table(path).num_rows == 28
    assert pq.read_schema(path).metadata[b"number"] == b"12"


def test_a_resumed_run_drops_what_it_makes_again_wherever_that_stands(path):
    for step in range(8):
        store = RecordFile(path, LOSSES)
        for number in range(7):
            store.append(rows(number), {})
        store = RecordFile(path, LOSSES)
        store.cut(step)
        assert files(path) == (["losses.parquet"] if step else [])
        for number in range(step, 7):
            store.append(rows(number), {})
        store.finish()
        assert kept(path) == rows(*range(7))
        store.cut(0)


def test_what_stands_beside_a_file_that_was_deleted_is_not_taken_up(path):
    store = RecordFile(path, LOSSES)
    for step in range(4):
        store.append(rows(step), {})
    store.append(rows(4), {})
    assert len(files(path)) > 1
    path.unlink()
    store = RecordFile(path, LOSSES)
    store.cut(3)
    store.append(rows(3), {})
    assert kept(path) == rows(3)


def test_files_of_other_names_are_left_alone(path):
    other = path.with_name("losses-of-mine.parquet")
    other.write_bytes(b"mine")
    store = RecordFile(path, LOSSES)
    store.append(rows(0), {})
    store.append(rows(1), {})
    assert kept(path) == rows(0, 1)
    store.cut(0)
    assert other.read_bytes() == b"mine"


class Kill(BaseException):
    """What no code can catch by mistake."""


def killed(patch, path, count):
    """Train, with so many changes of the folder and no more; whether there would have been more."""
    left = itertools.count(count, -1)

    def dying(change):
        def changed(self, *args, **named):
            if next(left) <= 0:
                raise Kill
            return change(self, *args, **named)

        return changed

    for name in ("replace", "unlink"):
        patch.setattr(Path, name, dying(getattr(Path, name)))
    try:
        train(path)
    except Kill:
        return True
    return False


def train(path, start=0):
    store = RecordFile(path, LOSSES)
    store.cut(start)
    for step in range(start, 9):
        store.append(rows(step), {})
    store.finish()


def test_a_kill_at_any_moment_leaves_a_beginning_that_a_resumed_run_completes(path, monkeypatch):
    for count in itertools.count():
        with monkeypatch.context() as patch:
            if not killed(patch, path, count):
                break
        found = kept(path) if path.exists() else []
        assert found == rows(*range(len(found) // 2)), count
        # The checkpoint was written after all rows before its step.
        checkpoint = max(0, len(found) // 2 - 2)
        train(path, checkpoint)
        assert kept(path) == rows(*range(9)), count
        assert [name for name in files(path) if name != "losses.parquet"] == []
        path.unlink()
    assert count > 15


def test_a_reader_beside_a_training_reads_again_where_files_were_joined(path, monkeypatch):
    store = RecordFile(path, LOSSES)
    for step in range(5):
        store.append(rows(step), {})
    assert len(files(path)) == 2
    opened, parquet_file = [], pq.ParquetFile

    def joined_in_between(file):
        opened.append(file)
        if len(opened) == 2:
            with monkeypatch.context() as patch:
                patch.setattr(pq, "ParquetFile", parquet_file)
                store.finish()
        return parquet_file(file)

    monkeypatch.setattr(pq, "ParquetFile", joined_in_between)
    assert kept(path) == rows(*range(5))


def test_a_link_to_nothing_is_said(path):
    path.with_name("losses-5.parquet").symlink_to(path.with_name("nothing"))
    RecordFile(path, LOSSES)._write(path, pa.table(list(zip(*rows(0), strict=True)), schema=LOSSES))
    with pytest.raises(UserError, match=r"losses\.parquet: must be a record file, got none, or a broken"):
        read(path, LOSSES)


def test_a_folder_named_after_a_setting_adds_no_column(tmp_path):
    path = tmp_path / "lr=0.1" / "losses.parquet"
    RecordFile(path, LOSSES).append(rows(0), {})
    assert kept(path) == rows(0)


# ---- damaged files ----------------------------------------------------------------------------


def written(folder, name, schema, columns, notes=None):
    file = folder / "records" / f"{name}.parquet"
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema).replace_schema_metadata(notes), file)
    return folder


def gradients(**other):
    given = {"step": [0, 1], "epoch": [0, 0], "group": ["shared"] * 2, "task": ["a"] * 2, "other": ["a"] * 2}
    return {**given, "inner": [1.0, 2.0], **other}


@pytest.mark.parametrize("column", GRADIENTS.names)
def test_an_empty_cell_is_named_by_its_column(tmp_path, column):
    run = written(tmp_path, "gradients", GRADIENTS, gradients(**{column: [None, gradients()[column][1]]}))
    with pytest.raises(UserError, match=rf"gradients\.parquet: .* got none in the column {column}\."):
        read_gradients(run)


def test_a_task_without_a_row_with_itself_is_named(tmp_path):
    run = written(tmp_path, "gradients", GRADIENTS, gradients(other=["a", "c"]))
    with pytest.raises(
        UserError, match=r"gradients\.parquet: must have a row of each task with itself, got none of 'c'"
    ):
        read_gradients(run)


def test_a_step_below_0_is_named(tmp_path):
    run = written(tmp_path, "gradients", GRADIENTS, gradients(step=[-3, 1]))
    with pytest.raises(UserError, match=r"gradients\.parquet: must have steps of at least 0, got -3"):
        read_gradients(run)


def test_a_folder_in_a_files_place_is_named(tmp_path):
    (tmp_path / "records" / "losses.parquet").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"losses\.parquet: must be a record file, got a damaged file \(Cannot"
    ):
        read_losses(tmp_path)


def affinities():
    names = {"form": ["lookahead"] * 2, "task": ["a", "a"], "other": ["a", "b"]}
    return {"step": [0, 0], "epoch": [0, 0], **names, "affinity": [0.5, 0.25]}


def test_a_task_that_shares_nothing_is_among_the_affinities(tmp_path):
    found = read_affinity(written(tmp_path, "affinity", AFFINITY, affinities()))
    assert found.tasks == ("a", "b")
    np.testing.assert_array_equal(found.values, [[0.5, 0.25], [np.nan, np.nan]])


@pytest.mark.parametrize(
    "notes",
    [
        {"shared_parameters": "many"},
        {"task_parameters": "{"},
        {"task_parameters": "3"},
        {"task_parameters": json.dumps({"a": None})},
        {"task_parameters": b"\xff"},
    ],
)
def test_damaged_notes_are_named(tmp_path, notes):
    run = written(tmp_path, "affinity", AFFINITY, affinities(), notes)
    with pytest.raises(
        UserError, match=r"affinity\.parquet: must have numbers of parameters in its metadata"
    ):
        read_affinity(run)


def mutated(content, draw):
    changed = bytearray(content)
    for place in draw.integers(len(content), size=3):
        changed[place] = draw.integers(256)
    return bytes(changed)


def what_is_said(run):
    try:
        read_gradients(run)
    except UserError as error:
        return str(error)
    return None


def test_a_mutated_file_is_read_or_named_in_one_line(tmp_path):
    count = 40
    names = {"group": ["shared"] * count, "task": ["parity", "digit"] * 20, "other": ["parity"] * count}
    columns = {"step": range(count), "epoch": [0] * count, **names, "inner": np.linspace(0, 1, count)}
    file = written(tmp_path, "gradients", GRADIENTS, columns) / "records" / "gradients.parquet"
    whole, draw, said = file.read_bytes(), np.random.default_rng(0), []
    for _ in range(200):
        file.write_bytes(mutated(whole, draw))
        said.append(what_is_said(tmp_path))
    named = list(filter(None, said))
    assert len(named) > 100
    assert all("gradients.parquet" in line and "\n" not in line and len(line) < 400 for line in named)


def test_gradients_that_overflowed_have_no_cosine_and_no_conflict():
    values = np.array([[[np.inf, -np.inf], [-np.inf, 1e308]], [[1e308, -1e300], [-1e300, 1e308]]])
    steps = np.arange(2)
    found = Gramians(("a", "b"), "shared", steps, steps, values)
    assert np.isnan(found.cosines[0, 0, 1])
    np.testing.assert_array_equal(found.conflict_rate, [np.nan, 1.0])
