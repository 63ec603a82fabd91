"""Two processes record what one process records of the joined batch, labels missing in unequal numbers."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from polytask.cli import main

RECORDERS = [
    {"_target_": "polytask.diagnostics.GradientRecorder", "every": 1, "groups": "layers"},
    {"_target_": "polytask.diagnostics.Affinity", "every": 1},
    {"_target_": "polytask.diagnostics.WeightRecorder", "every": 1},
    {"_target_": "polytask.diagnostics.LossRecorder", "every": 1},
]


@pytest.mark.parametrize("weighting", [pytest.param("Equal", marks=pytest.mark.long), "UPGrad"])
def test_two_processes_record_what_one_does(tmp_path, monkeypatch, forkserver, weighting):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "demo"]) == 0
    file = tmp_path / "demo" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["trainer"] = {"max_epochs": 3, "accelerator": "cpu", "callbacks": RECORDERS}
    config["system"]["criterion"]["weighting"] = {"_target_": f"polytask.weighting.{weighting}"}
    config["system"]["optimizer"] = {"_target_": "torch.optim.SGD", "lr": 0.01}
    file.write_text(yaml.safe_dump(config))
    words = ["fit", "demo/config.yaml", "--quiet", "system.dataloaders.train.shuffle=false"]
    size = "system.dataloaders.train.batch_size"
    assert main([*words, f"{size}=1024", "--run-dir", "one"]) == 0
    parallel = [f"{size}=512", "trainer.devices=2", "trainer.strategy=ddp", "--run-dir", "two"]
    done = forkserver.run("polytask", *words, *parallel, cwd=tmp_path, warnings="default")
    assert done.returncode == 0, done.stderr
    names = ("affinity", "gradients", "losses", "weights")
    for one, two in (
        [pq.read_table(f"{run}/records/{name}.parquet") for run in ("one", "two")] for name in names
    ):
        values = [field.name for field in one.schema if field.type == pa.float64()]
        assert one.drop_columns(values).equals(two.drop_columns(values))
        for name in values:
            assert two[name].to_pylist() == pytest.approx(one[name].to_pylist(), rel=1e-3, abs=1e-5)
