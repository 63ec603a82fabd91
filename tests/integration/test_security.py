"""What could run code is refused by every command, with one line, before anything is built or imported."""

from pathlib import Path

import pytest
import torch

REFUSED = [
    "os.system",
    "torch.os.system",
    "builtins.eval",
    "torch.hub.load",
    "torch.load",
    "torch.utils.collect_env.run",
    "torch.utils.cpp_extension.load",
    "subprocess.run",
    "importlib.import_module",
    "polytask.cli.main",
    "pickle.load",
]


@pytest.mark.parametrize("command", ["check", "fit"])
@pytest.mark.parametrize("target", REFUSED)
def test_a_target_that_may_run_code_is_refused(cli, demo, target, command):
    before = sorted(demo.rglob("*"))
    result = cli(command, "config.yaml", f"system.model={{_target_: {target}, command: touch ran}}")
    assert result.code == 2
    assert target in result.err
    assert "system.model" in result.err
    assert sorted(path for path in demo.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.parametrize("value", ["$__import__('os')", "$open('ran', 'w')", "${eval:1}", "$(touch ran)"])
def test_an_expression_is_refused(cli, demo, value):
    text = (demo / "config.yaml").read_text()
    (demo / "config.yaml").write_text(text.replace("width: 8", f'width: "{value}"'))
    result = cli("fit", "config.yaml")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "system.model.width" in result.err
    assert not (demo / "ran").exists()
    assert not (demo / "runs").exists()


def test_a_yaml_tag_is_refused(cli, demo):
    text = (demo / "config.yaml").read_text()
    tag = "!!python/object/apply:os.system ['touch ran']"
    (demo / "config.yaml").write_text(text.replace("seed: 0", f"seed: {tag}"))
    result = cli("fit", "config.yaml")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "config.yaml:2" in result.err
    assert not (demo / "ran").exists()


def test_allow_lets_the_named_one_through_and_no_other(cli, demo):
    words = ("system.model={_target_: fractions.Fraction, numerator: 1}",)
    assert "--allow fractions" in cli("check", "config.yaml", *words).err
    # It is allowed, and then no model.
    assert (
        "model: must be a torch.nn.Module" in cli("check", "config.yaml", *words, "--allow", "fractions").err
    )
    assert "fractions" in cli("check", "config.yaml", *words, "--allow", "decimal").err


def test_the_project_of_a_checkpoint_is_not_imported_unasked(cli, demo, monkeypatch):
    run = cli("fit", "config.yaml", "--quiet").run
    with (demo / "net.py").open("a") as file:
        file.write("\nfrom pathlib import Path\nPath('imported').touch()\n")
    monkeypatch.chdir(demo.parent)
    checkpoint = demo / run / "checkpoints/last.ckpt"
    refused = cli("test", "--ckpt", checkpoint)
    assert (refused.code, "--project" in refused.err) == (2, True)
    assert not (demo.parent / "imported").exists()


def test_installed_code_that_a_config_calls_its_project_is_not_run(cli, demo):
    text = (demo / "config.yaml").read_text()
    folder = Path(torch.__file__).parent / "utils"
    (demo / "config.yaml").write_text(text.replace("project: .", f"project: {folder}"))
    result = cli("check", "config.yaml", "system.model={_target_: collect_env.run, command: touch ran}")
    assert result.code == 2
    assert "project: must be a folder of your own code" in result.err
    assert not (demo / "ran").exists()
