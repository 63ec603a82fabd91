"""Import paths of version 0.1.0 that its README, documentation and examples name go on working."""

from pathlib import Path

import pytest

LINES = (Path(__file__).parents[1] / "data" / "version_0_1_0" / "imports.txt").read_text().splitlines()


@pytest.mark.parametrize("line", LINES)
def test_an_import_of_the_former_documentation_works(line: str) -> None:
    exec(line, {})
