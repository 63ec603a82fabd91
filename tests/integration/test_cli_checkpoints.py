"""Checkpoints of every make stand beside each other, hold finite weights, and belong to one process."""

import fcntl
import os
from pathlib import Path

import pytest
import torch

KEEP = "{_target_: pytorch_lightning.callbacks.ModelCheckpoint"


def with_callbacks(demo: Path, *callbacks: str) -> None:
    lines = "".join(f"\n    - {callback}" for callback in callbacks)
    config = demo / "config.yaml"
    text = config.read_text().replace(
        "  log_every_n_steps: 2", f"  log_every_n_steps: 2\n  callbacks:{lines}"
    )
    config.write_text(text)


@pytest.mark.parametrize(
    "options",
    [
        "",
        ", save_top_k: 3, monitor: val/loss/total/epoch",
        ", monitor: val/loss/total/epoch, filename: 'mine-{epoch}'",
        ", monitor: val/shape/Accuracy/epoch, mode: max",
    ],
    ids=["bare", "three", "named", "best"],
)
def test_a_users_checkpoints_stand_beside_ours(cli, demo, options):
    with_callbacks(demo, f"{KEEP}{options}}}")
    result = cli("fit", "config.yaml")
    assert (result.code, result.err) == (0, "")
    names = {path.name for path in (result.run / "checkpoints").iterdir()}
    assert {"best.ckpt", "last.ckpt"} <= names
    if options.endswith("mode: max"):
        assert names == {"best.ckpt", "last.ckpt"}
    assert cli("test", "config.yaml").code == 0


def test_nothing_that_is_not_finite_is_saved(cli, demo):
    with_callbacks(demo, f"{KEEP}, every_n_train_steps: 1, filename: step}}")
    config = demo / "config.yaml"
    later = "{_target_: data.LaterInfinite, rows: 24}"
    config.write_text(config.read_text().replace("{_target_: data.Points, rows: 24}", later))
    result = cli("fit", "config.yaml", "trainer.log_every_n_steps=1000")
    assert result.code == 1
    assert "task 'height': the loss must be finite" in result.err
    saved = list(demo.rglob("*.ckpt"))
    assert {path.name for path in saved} >= {"step.ckpt", "last.ckpt"}
    for path in saved:
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(weight.isfinite().all()) for weight in weights.values()), path


def test_one_process_trains_in_a_run(cli, demo):
    run = cli("fit", "config.yaml", "trainer.max_epochs=1").run
    before = (run / "metrics.csv").read_text()
    handle = os.open(run, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    result = cli("fit", "--resume", "--run-dir", run, "trainer.max_epochs=2")
    os.close(handle)
    assert result.code == 2
    assert "must not be used by another training" in result.err
    assert (run / "metrics.csv").read_text() == before
    assert cli("fit", "--resume", "--run-dir", run, "trainer.max_epochs=2").code == 0


def test_a_file_may_have_an_equals_sign_in_its_path(cli, demo):
    folder = demo / "a=b"
    folder.mkdir()
    text = (demo / "config.yaml").read_text().replace("project: .", "project: ..")
    (folder / "config.yaml").write_text(text)
    assert cli("check", "a=b/config.yaml").out == "no problems\n"


def test_a_check_finds_the_mistakes_of_all_parts_at_once(cli, demo):
    config = demo / "config.yaml"
    text = config.read_text()
    for old, new in (
        ("accelerator: cpu", "accelerator: gpuu"),
        ("    test: {", "    tset: {"),
        ("lr: 0.1}", "lr: 0.1, groups: {nothing: {lr: 1}}}"),
        ("  metrics:", "  on_nonfinite: jump\n  metrics:"),
        ("    task_losses:", "    loss_weights: {shap: 1.0}\n    task_losses:"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    config.write_text(text)
    result = cli("check", "config.yaml")
    assert result.code == 2
    for key in ("gpuu", "tset", "jump", "shap"):
        assert sum(key in line for line in result.err.splitlines()) == 1, (key, result.err)
