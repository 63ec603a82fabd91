"""What a command, a loaded model or a reader of records imports; nothing is timed."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report_folders import write_comparison, write_run

# Packages that polytask must not import before they are needed.
LATER = {
    "tensorboard",
    "pyarrow",
    "pandas",
    "polars",
    "sklearn",
    "jinja2",
    "plotly",
    "optuna",
    "shtab",
    "PIL",
}
LIGHTNING = {"pytorch_lightning", "lightning_fabric", "torchmetrics", "tensorboard"}
PREDICT = """
import json, sys
import numpy as np
import polytask
outputs = polytask.load(sys.argv[1]).predict(np.zeros((2, 2)))
assert outputs["shape"].shape == (2, 3)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
# What Lightning and torchmetrics import comes first, and is not counted.
CHECK = """
import json, sys
import pytorch_lightning, torchmetrics
before = {name.split(".")[0] for name in sys.modules}
from polytask.cli import main
assert main(["check", "config.yaml"]) == 0
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules} - before)))
"""


def imported(program: str, *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def run(demo: Path, cli) -> Path:
    done = cli("fit", "config.yaml", "--quiet")
    assert done.code == 0, done.err
    return done.run


@pytest.mark.slow
def test_a_loaded_model_predicts_without_lightning(run):
    assert not (LIGHTNING | LATER) & imported(PREDICT, str(run))


@pytest.mark.slow
def test_check_imports_what_the_config_names_only(demo):
    assert not LATER & imported(CHECK)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["report", "comparison"], ["report", "run"], ["group", "--run", "run", "--groups", "2"]],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_reading_records_imports_neither_torch_nor_lightning(tmp_path, arguments):
    write_comparison(tmp_path / "comparison")
    write_run(tmp_path / "run")
    program = (
        "import sys; from polytask.cli import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'torch', 'pytorch_lightning'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "room",
    ["polytask", "polytask.compare", "polytask.data", "polytask.diagnostics", "polytask.system"],
)
def test_lazy_names_are_the_public_ones(room):
    module = importlib.import_module(room)
    for name in set(module.__all__) - {"RunError", "UserError", "__version__"}:
        assert getattr(module, name).__module__.startswith(room)
    with pytest.raises(AttributeError, match=rf"module '{room}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_the_collector_works_again_after_imports():
    import gc

    import polytask

    assert polytask.System
    assert gc.isenabled()
