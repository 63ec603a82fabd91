"""Experts, adapters and frozen parts from a config: trained, their loads logged, refused in one line."""

import csv

import pytest
import yaml

HEADS = {
    "shape": {"_target_": "polytask.models.TaskHead", "input_dim": 4, "output_dim": 3},
    "height": {"_target_": "polytask.models.TaskHead", "input_dim": 4, "output_dim": 1},
}
LAYER = {"_target_": "polytask.models.MLP", "input_dim": 2, "hidden_dims": [6], "output_dim": 4}
EXPERT = {**LAYER, "_partial_": True}
SECOND = {**EXPERT, "input_dim": 4}
SCHEMES = {
    "MMoE": {"expert": EXPERT, "gate": 2, "num_experts": 3, "heads": HEADS},
    "CGC": {"expert": EXPERT, "gate": 2, "task_experts": {"shape": 1, "height": 2}, "heads": HEADS},
    "PLE": {"experts": [EXPERT, SECOND], "gates": [2, 4], "heads": HEADS},
    "DSelectK": {"expert": EXPERT, "num_experts": 3, "k": 1, "heads": HEADS},
}
CALLBACKS = [
    {"_target_": "polytask.callbacks.Freezer", "names": ["heads.shape"], "until_epoch": 1},
    {"_target_": "polytask.callbacks.LogExpertLoad"},
]


def configure(demo, scheme, arguments, callbacks=()):
    file = demo / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["system"]["model"] = {"_target_": f"polytask.models.{scheme}", **arguments}
    config["trainer"]["callbacks"] = list(callbacks)
    file.write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_experts_train_and_their_loads_are_logged(cli, demo, scheme):
    configure(demo, scheme, SCHEMES[scheme], CALLBACKS)
    result = cli("fit", "config.yaml", "--quiet", "trainer.max_epochs=2")
    assert (result.code, result.err) == (0, "")
    with (result.run / "metrics.csv").open() as file:
        rows = [
            row for row in csv.DictReader(file) if any(row[key] for key in row if key.startswith("experts/"))
        ]
    assert len(rows) == 2
    keys = [key for key in rows[0] if key.startswith("experts/height/")]
    levels = 2 if scheme == "PLE" else 1
    assert sum(float(rows[0][key]) for key in keys) == pytest.approx(levels, abs=1e-4)


@pytest.mark.parametrize("scheme", ["FiLM", "LoRA"])
def test_a_conditioned_backbone_trains_and_is_tested(cli, demo, scheme):
    arguments = {
        "FiLM": {"backbone": LAYER, "heads": HEADS, "taps": {"layers.linear1": 6}},
        "LoRA": {"backbone": LAYER, "tasks": HEADS, "rank": 2, "targets": ["linear1"]},
    }
    configure(demo, scheme, arguments[scheme])
    words = ["config.yaml", "--quiet", "trainer.max_epochs=1"]
    fitted = cli("fit", *words)
    assert (fitted.code, fitted.err) == (0, "")
    assert cli("test", *words, "--ckpt", "last").code == 0


@pytest.mark.parametrize(
    ("scheme", "arguments", "words"),
    [
        ("DSelectK", {**SCHEMES["DSelectK"], "k": 4}, ["k: must be at most the number of experts, 3"]),
        ("MMoE", {**SCHEMES["MMoE"], "expert": LAYER}, ["expert: must return a module", "_partial_: true"]),
        (
            "LoRA",
            {"backbone": LAYER, "tasks": HEADS, "rank": 3, "targets": ["linear1"]},
            ["the rank must be at most the layer's size, 2"],
        ),
        (
            "FiLM",
            {"backbone": LAYER, "heads": HEADS, "taps": {"layers.linaer1": 6}},
            ["Did you mean 'layers.linear1'"],
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(cli, demo, scheme, arguments, words):
    configure(demo, scheme, arguments)
    result = cli("fit", "config.yaml", "--quiet")
    assert result.code == 2
    assert len(result.err.strip().splitlines()) == 1
    assert all(word in result.err for word in words)


def test_a_misspelt_part_to_freeze_is_one_line_with_the_nearest(cli, demo):
    configure(demo, "MMoE", SCHEMES["MMoE"], [{**CALLBACKS[0], "names": ["expert"]}])
    result = cli("fit", "config.yaml", "--quiet")
    assert result.code == 2
    assert "Did you mean 'experts" in result.err
