"""Sharing schemes from a config: trained, stopped, resumed, with parameter groups of their own."""

import csv

import pytest
import torch
import yaml

HEADS = {
    "shape": {"_target_": "polytask.models.TaskHead", "input_dim": 4, "output_dim": 3},
    "height": {"_target_": "polytask.models.RegressionHead", "input_dim": 4},
}
BACKBONE = {"_target_": "polytask.models.MLP", "input_dim": 2, "hidden_dims": [6], "output_dim": 4}
TOWERS = {"backbone": BACKBONE, "heads": HEADS}
NETWORK = {"_target_": "polytask.models.MLP", "input_dim": 2, "hidden_dims": [6]}
SCHEMES = {
    "CrossStitch": {**TOWERS, "taps": ["layers.activation1"]},
    "NDDR": {**TOWERS, "taps": {"layers.activation1": 6}},
    "Sluice": {**TOWERS, "taps": ["layers.linear1"], "orthogonality": 0.1},
    # So few steps need a temperature that falls fast.
    "LearningToBranch": {**TOWERS, "taps": ["layers.activation1"], "decay": 0.5},
    "SoftParameterSharing": {
        "task_networks": {"shape": {**NETWORK, "output_dim": 3}, "height": {**NETWORK, "output_dim": 1}},
        "sharing_strength": 0.1,
    },
    "create_soft_sharing_model": {
        "input_dim": 2,
        "task_configs": {
            "shape": {"output_dim": 3, "hidden_dims": [6]},
            "height": {"output_dim": 1, "hidden_dims": [6]},
        },
        "penalty": "trace_norm",
    },
}
PENALISED = ("Sluice", "SoftParameterSharing", "create_soft_sharing_model")


def configure(demo, scheme, **system):
    file = demo / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["trainer"]["log_every_n_steps"] = 1
    config["system"] |= {"model": {"_target_": f"polytask.models.{scheme}", **SCHEMES[scheme]}, **system}
    file.write_text(yaml.safe_dump(config, sort_keys=False))


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("scheme", [*PENALISED, "CrossStitch", "NDDR"])
def test_it_trains_and_shows_what_its_total_is_made_of(cli, demo, scheme):
    configure(demo, scheme)
    result = cli("fit", "config.yaml", "--quiet", "trainer.max_epochs=1")
    assert (result.code, result.err) == (0, "")
    logged = rows(result.run)
    assert ("val/loss/sharing/epoch" in logged[0]) == (scheme in PENALISED)
    names = ["shape", "height", *(["sharing"] if scheme in PENALISED else [])]
    for form in ("train/loss/{}/step", "val/loss/{}/epoch"):
        shown = [row for row in logged if row[form.format("total")]]
        assert shown
        for row in shown:
            parts = sum(float(row[form.format(name)]) for name in names)
            assert float(row[form.format("total")]) == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize("scheme", ["LearningToBranch", "SoftParameterSharing"])
def test_it_resumes_bit_for_bit_in_the_middle_of_an_epoch(cli, demo, scheme):
    configure(demo, scheme)
    dataset = "system.dataloaders.train.dataset={_target_: data.Interrupting, rows: 24, reads: 38}"
    with pytest.raises(SystemExit):
        cli("fit", "config.yaml", dataset)
    resumed = cli("fit", "config.yaml", dataset, "--resume")
    assert resumed.code == 0, resumed.err
    whole = cli("fit", "config.yaml", dataset)
    one, other = (
        torch.load(result.run / "checkpoints/last.ckpt", weights_only=True) for result in (resumed, whole)
    )
    assert one["global_step"] == other["global_step"] == 12
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    assert rows(resumed.run) == rows(whole.run)


def test_units_may_learn_at_a_rate_of_their_own(cli, demo):
    groups = {"units": {"lr": 1.0}, "backbones.shape": {"lr": 0.0}}
    configure(demo, "CrossStitch", optimizer={"_target_": "torch.optim.SGD", "lr": 0.1, "groups": groups})
    result = cli("fit", "config.yaml", "--quiet", "trainer.max_epochs=1")
    assert (result.code, result.err) == (0, "")
    rates = {key for key in rows(result.run)[0] if key.startswith("lr/")}
    assert rates == {"lr/rest", "lr/units", "lr/backbones.shape"}


def test_a_wrong_tap_is_named_before_training(cli, demo):
    configure(demo, "CrossStitch")
    result = cli("fit", "config.yaml", "--quiet", "system.model.taps=[layers.activation2]")
    assert result.code == 2
    assert (
        "must be a module of MLP, got 'layers.activation2'. Did you mean 'layers.activation1'?" in result.err
    )
