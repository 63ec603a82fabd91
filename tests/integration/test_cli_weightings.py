"""Every weighting through the command line: trained, stopped, resumed."""

import csv
import math

import pytest
import torch

from tests.cases import WEIGHTINGS

LOADER = "      batch_size: 4\n      shuffle: true\n"
DATASET = "{_target_: data.Points, rows: 24}"
TEMPLATE = "demo2"


def weighting(_method, /, **options):
    parts = [
        f"_target_: polytask.weighting.{_method}",
        *(f"{key}: {value}" for key, value in options.items()),
    ]
    return f"system.criterion.weighting={{{', '.join(parts)}}}"


# What a method cannot be built without.
GIVEN = {
    "Fixed": {"weights": "{shape: 1.0, height: 2.0}"},
    "CRMOGM": {"weighting": "{_target_: polytask.weighting.PCGrad}"},
    "TorchJDWeighting": {"method": "{_target_: torchjd.aggregation.UPGrad}"},
    "TorchJDAggregator": {"method": "{_target_: torchjd.aggregation.GradDrop}"},
}
METHODS = {case.method: case.build().batches_per_step for case in WEIGHTINGS}


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", METHODS)
def test_the_template_trains_with_it(cli, demo, method):
    assert cli("init", TEMPLATE).code == 0
    change = weighting(method, **GIVEN.get(method, {}))
    window = f"trainer.accumulate_grad_batches={METHODS[method]}"
    words = (
        window,
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=4",
        "--quiet",
    )
    result = cli("fit", f"{TEMPLATE}/config.yaml", change, *words)
    assert (result.code, result.err) == (0, "")
    logged = rows(result.run)
    weights = [
        float(row[f"weights/{task}"])
        for row in logged
        for task in ("shape", "height")
        if row[f"weights/{task}"]
    ]
    assert len(weights) >= 2
    assert all(weight >= 0 for weight in weights)
    (loss,) = [float(row["val/loss/shape/epoch"]) for row in logged if row.get("val/loss/shape/epoch")]
    assert loss < math.log(3)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("UW", {"task_types": "{shape: classification}"}),
        ("DWA", {}),
        ("FAMO", {"lr": 0.1}),
        ("RLW", {}),
        ("STCH", {"mu": 0.5}),
        ("GradNorm", {}),
        ("MoCo", {}),
        ("PCGrad", {}),
    ],
)
def test_it_resumes_bit_for_bit_in_the_middle_of_an_epoch(cli, demo, method, options):
    file = demo / "config.yaml"
    text = file.read_text().replace(DATASET, "{_target_: data.Interrupting, rows: 24, reads: 62}")
    file.write_text(text.replace("max_epochs: 2", "max_epochs: 3"))
    change = weighting(method, **options)
    with pytest.raises(SystemExit):
        cli("fit", "config.yaml", change)
    resumed = cli("fit", "config.yaml", change, "--resume")
    assert resumed.code == 0
    assert "at step 16" in resumed.out
    whole = cli("fit", "config.yaml", change)
    one, other = (
        torch.load(result.run / "checkpoints/last.ckpt", weights_only=True) for result in (resumed, whole)
    )
    assert one["global_step"] == other["global_step"] == 18
    state = [name for name in one["state_dict"] if name.startswith("criterion.weighting.")]
    assert state
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert rows(resumed.run) == rows(whole.run)
    weights = {row["weights/shape"] for row in rows(whole.run) if row["weights/shape"]}
    # MoCo makes the update itself: its heads see no weight.
    assert len(weights) > 1 or method == "MoCo"


def test_a_bound_that_is_reached_is_one_line_and_2(cli, demo):
    change = weighting("FAMO", lower_bounds="{height: 100.0}")
    result = cli("fit", "config.yaml", change)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "FAMO: the losses of task 'height' must stay above 100" in result.err


def test_one_that_takes_several_batches_says_what_to_set(cli, demo):
    result = cli("fit", "config.yaml", weighting("MoDo"))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "trainer.accumulate_grad_batches: must be 3 with MoDo" in result.err


def test_options_of_gradients_are_checked_before_data_is_touched(cli, demo):
    untouched = "system.dataloaders.train.dataset._target_=data.Untouchable"
    result = cli("check", "config.yaml", weighting("MGDA"), "system.level=representations", untouched)
    assert result.code == 2
    assert "system.level: must be one of 'parameters', 'representation', 'last_shared' or null" in result.err
    assert not (demo / "touched").exists()


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("UncertaintyWeighting", ["task_types={shape: classification}"]),
        ("DynamicWeightAverage", ["temperature=1.0"]),
    ],
)
def test_a_preset_trains(cli, demo, preset, options):
    changes = [f"system.criterion.{option}" for option in options]
    result = cli("fit", "config.yaml", f"system.criterion._target_=polytask.losses.{preset}", *changes)
    assert result.code == 0
    assert any(row["weights/shape"] for row in rows(result.run))
