"""The voice: user-visible strings and documentation use the field's terms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "examples", "benchmarks", "docs", "scripts")
CODE = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "_build" not in path.parts
)
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
    if "_build" not in page.parts and "generated" not in page.parts
)

# What to say instead of each of them.
BANNED = {
    r"(?<!in )(?<!in-)(?<!take )(?<!takes )\bplaces?\b": "indices, positions or locations",
    r"\bwords\b": "arguments",
    r"\btexts\b": "strings",
    r"\bbeside\b": "auxiliary, next to, in addition to",
    r"\bforeign\b": "third-party",
    r"\bheed(s|ed|ing)?\b": "honour",
    r"\bstrange\b": "unknown",
    r"\bbr(oke|oken|eaks?) down\b": "failed",
    r"\bclaimed\b": "locked",
    r"\bdraws?\b": "random numbers, samples",
    r"\bremeasures?\b": "recompute",
    r"\btakes? up what\b": "load_state_dict",
    r"\bwalks?\b": "iterates over",
    r"\blooks? on\b": "observes",
    r"\bsomebody\b": "name who or what",
    r"\bnobody\b": "name who or what",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bFound\b": "got",
    r"\bso many\b": "that many, or a number",
    r"\bis told\b": "receives",
    r"\bare told\b": "receive",
    r"\bis asked\b": "is requested",
    # A sentence that begins with a condition of place.
    r"\bWhere (?:an?|they|it|there|files?|no|none)\b": "if",
    r"\bWhere (?:the|one|all|both) \w+\s(?:is|are|has)\b[^.:]*, ": "if",
}
PATTERN = re.compile("|".join(f"(?:{word})" for word in BANNED))


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings and string literals of a module that have more than one word, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def without_code(text: str) -> str:
    """Prose alone: no fenced blocks, no inline code, no doctest lines, no math."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^\s*(>>>|\.\.\.) .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"``[^`]+``|`[^`]+`|\]\([^)]*\)", "", text)


def banned(text: str) -> list[str]:
    return [match.group(0) for match in PATTERN.finditer(without_code(text))]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_strings_use_the_terms_of_the_field(path: Path) -> None:
    assert {line: found for line, text in strings(path) if (found := banned(text))} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_use_the_terms_of_the_field(page: Path) -> None:
    assert banned(page.read_text()) == []


def test_the_pattern_finds_what_it_is_for() -> None:
    assert banned("A foreign loss is told so. `words` and ``places`` are code.") == ["foreign", "is told"]
    assert banned("Where a file is missing, it is made. Where the file\nis old, too.") == [
        "Where a",
        "Where the file\nis old, ",
    ]
    assert banned("Where jobs run: here. Where the runs are kept. The page says where a run is.") == []
