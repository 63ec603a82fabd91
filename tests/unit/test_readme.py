"""What a visitor reads first: the examples in the README, and the first page of the documentation."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_links_every_example() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| \[(\w+)\]\(examples/(\w+)\) \|(.*)\|$", readme, re.MULTILINE)
    folders = sorted({path.parent.name for path in (ROOT / "examples").glob("*/*.*")})
    assert [name for name, _, _ in rows] == [folder for _, folder, _ in rows] == folders
    assert all(len([cell for cell in cells.split("|") if cell.strip()]) == 3 for _, _, cells in rows)


def test_the_first_page_shows_at_most_ten_lines() -> None:
    page = (ROOT / "docs" / "index.md").read_text()
    (code,) = re.findall(r"^```\{testcode\}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10


def test_the_first_page_has_the_ways_in() -> None:
    page = (ROOT / "docs" / "index.md").read_text()
    (toctree,) = re.findall(r"^```\{toctree\}\n:hidden:\n\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    rooms = ("tutorial", "how-to", "explanation", "extend", "reference")
    assert toctree.split() == [f"{room}/index" for room in rooms]
    ways = re.findall(r"^- \[.*?\]\((\S+)\)", page, re.MULTILINE)
    assert ways == [f"{room}/index.md" for room in rooms if room != "extend"]
