"""A run that is interrupted from outside goes on as if it had not been; in this process and in its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

LOADER = "      batch_size: 4\n      shuffle: true\n"
DATASET = "{_target_: data.Points, rows: 24}"


def configure(demo: Path, workers: int, reads: int, epochs: int = 3) -> None:
    file = demo / "config.yaml"
    dataset = f"{{_target_: data.Interrupting, rows: 24, reads: {reads}}}"
    text = file.read_text().replace(DATASET, dataset).replace("max_epochs: 2", f"max_epochs: {epochs}")
    file.write_text(text.replace(LOADER, f"{LOADER}      num_workers: {workers}\n"))


def last(run: Path) -> dict:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def only_run() -> Path:
    (run,) = Path("runs/demo").iterdir()
    return run


def stopped(cli, *words) -> str:
    """Run until the data set interrupts; what was printed after it."""
    with pytest.raises(SystemExit) as exit:
        cli("fit", "config.yaml", *words)
    return str(exit.value.code)


@pytest.mark.parametrize(
    ("workers", "reads", "step"),
    [
        pytest.param(0, 5, 2, id="in_the_first_epoch"),
        pytest.param(0, 24, 6, id="at_the_end_of_an_epoch"),
        pytest.param(0, 40, 10, id="in_the_second_epoch"),
        pytest.param(2, 4, None, id="with_workers"),
        pytest.param(2, 10, None, id="with_workers_at_the_end_of_an_epoch"),
    ],
)
def test_a_resumed_run_equals_one_that_was_never_stopped(cli, demo, workers, reads, step):
    configure(demo, workers, reads)
    assert stopped(cli) == "130"
    run = only_run()
    at = last(run)["global_step"]
    assert step is None or at == step
    assert at < 18
    resumed = cli("fit", "config.yaml", "--resume")
    assert resumed.code == 0
    assert f"resuming {run} at step {at}" in resumed.out
    assert resumed.run == run

    whole = cli("fit", "config.yaml")
    assert whole.run != run
    one, other = last(run), last(whole.run)
    assert one["global_step"] == other["global_step"] == 18
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(one[key], other[key]), key
    assert (run / "metrics.csv").read_text() == (whole.run / "metrics.csv").read_text()


def test_a_second_ctrl_c_ends_the_run_at_once(cli, demo):
    configure(demo, 0, 9)
    result = cli("fit", "config.yaml", "system.dataloaders.train.dataset.times=2")
    assert (result.code, result.err) == (130, "error: interrupted\n")


def test_a_run_may_be_resumed_for_longer_by_its_folder(cli, demo):
    run = cli("fit", "config.yaml").run
    refused = cli("fit", "config.yaml", "trainer.max_epochs=4", "--resume")
    assert (refused.code, "trainer.max_epochs" in refused.err) == (2, True)
    longer = cli("fit", "--resume", "--run-dir", run, "trainer.max_epochs=4")
    assert "changed since: trainer.max_epochs" in longer.out
    whole = cli("fit", "config.yaml", "trainer.max_epochs=4")
    assert equal(last(run)["state_dict"], last(whole.run)["state_dict"])


def test_a_finished_run_has_nothing_to_go_on_with(cli, demo):
    run = cli("fit", "config.yaml").run
    before = last(run)["state_dict"]
    result = cli("fit", "config.yaml", "--resume")
    assert result.code == 0
    assert equal(last(run)["state_dict"], before)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("system.model.width=6", "another architecture"),
        ("optimizer._target_=torch.optim.Adam", "must be resumed with the same optimizer, got Adam"),
        ("optimizer.groups={backbone: {lr: 0.01}}", "must be resumed with the same optimizer"),
        ("system.dataloaders.train.batch_size=6", "the same number of batches"),
    ],
)
def test_what_cannot_be_resumed_leaves_the_run_as_it_was(cli, demo, change, named):
    run = cli("fit", "config.yaml").run
    before = last(run)["state_dict"]
    kept = (run / "config.yaml").read_text()
    result = cli("fit", "--resume", "--run-dir", run, change, "trainer.max_epochs=4")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert named in result.err
    assert equal(last(run)["state_dict"], before)
    assert (run / "config.yaml").read_text() == kept


def test_ctrl_c_in_a_process_of_its_own_saves_and_says_how_to_go_on(cli, demo):
    configure(demo, workers=1, reads=10**9, epochs=3)
    held = "trainer.callbacks=[{_target_: data.Held}]"
    command = [sys.executable, "-m", "polytask", "fit", "config.yaml", held]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        lines = iter(process.stdout.readline, "")
        first = next(line for line in lines if line.startswith("epoch"))
        # The whole group, workers too, as a terminal does.
        os.killpg(process.pid, signal.SIGINT)
        # Its input ends here; until then it could not end before the signal reached it.
        out, err = process.communicate(timeout=600)
    assert first.startswith("epoch 1/3")
    assert process.returncode == 130
    assert err == ""
    run = only_run()
    assert f"polytask fit --resume --run-dir {run}" in out
    assert "stopped by SIGINT" in out
    assert last(run)["global_step"] == 7

    assert cli("fit", "--resume", "--run-dir", run).code == 0
    whole = cli("fit", "config.yaml", held)
    assert equal(last(run)["state_dict"], last(whole.run)["state_dict"])


def test_a_run_in_float64_loads_all_digits(cli, demo):
    words = "fit", "config.yaml", "trainer.precision=64-true"
    assert cli(*words, "--run-dir", "whole").code == 0
    assert cli(*words, "trainer.max_epochs=1", "--run-dir", "resumed").code == 0
    assert cli(*words, "--run-dir", "resumed", "--resume").code == 0
    assert last(Path("whole"))["state_dict"]["model.heads.shape.weight"].dtype == torch.float64
    assert equal(last(Path("resumed"))["state_dict"], last(Path("whole"))["state_dict"])
    # A fit without steps writes the weights that it loaded.
    loaded = "trainer.limit_train_batches=0", "system.optimizer.lr=0", "--ckpt", "whole/checkpoints/last.ckpt"
    assert cli(*words, *loaded[1:], "--run-dir", "loaded").code == 0
    assert equal(last(Path("loaded"))["state_dict"], last(Path("whole"))["state_dict"])
