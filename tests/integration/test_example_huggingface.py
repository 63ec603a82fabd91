"""A data set of Hugging Face and an iterable one of torch's, as they are."""

from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "huggingface"


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("configs", [["config.yaml"], ["config.yaml", "stream.yaml"]], ids=len)
def test_trains_and_tests(cli, tmp_path, monkeypatch, configs):
    pytest.importorskip("sklearn")
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    words = [*(str(EXAMPLE / name) for name in configs), "trainer.max_epochs=2", "--run-dir", "run"]
    assert cli("fit", *words).code == 0
    tested = cli("test", *words)
    assert tested.code == 0
    row = next(line for line in tested.out.splitlines() if "digit" in line)
    assert float(row.replace("│", " ").split()[2]) > 0.6
