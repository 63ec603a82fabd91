"""Who reads records does not wait for torch, and every lazy name is there."""

import importlib
import subprocess
import sys

import pytest

from tests.report_folders import write_comparison, write_run


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["report", "comparison"], ["report", "run"], ["group", "--run", "run", "--groups", "2"]],
    ids=lambda words: "-".join(words[:2]),
)
def test_reading_records_imports_neither_torch_nor_lightning(tmp_path, words):
    write_comparison(tmp_path / "comparison")
    write_run(tmp_path / "run")
    program = (
        "import sys; from polytask.cli import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'torch', 'pytorch_lightning'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("room", ["polytask.compare", "polytask.diagnostics"])
def test_lazy_names_are_the_public_ones(room):
    module = importlib.import_module(room)
    assert sorted(module._WHERE) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__module__.startswith(room)
    with pytest.raises(AttributeError, match=rf"module '{room}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018
