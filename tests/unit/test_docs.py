"""The pages keep their word: configs check, commands parse, Python runs, every public name has a page."""

import inspect
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import polytask
from polytask import cli
from tests.conftest import Cli
from tests.forkserver import ForkServer
from tests.public import public_modules, public_names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TEMPLATE = Path(polytask.__file__).parent / "cli" / "template"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.relative_to(DOCS).parts)
FENCE = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
CAPTION = re.compile(r":caption: (?P<name>\S+)\n+(?P<text>.*)", re.DOTALL)
# This page is run as a whole, in tests/integration/test_tutorial.py.
PAGES = [page for page in PAGES if page != DOCS / "tutorial" / "digits.md"]


def blocks(page: Path, kind: str) -> list[str]:
    return [match["text"] for match in FENCE.finditer(page.read_text()) if match["kind"].strip() == kind]


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(page, text, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, text in enumerate(blocks(page, kind))
    ]


def put(base: Any, part: Any) -> Any:
    """The part in the base's place; what is built from another target is replaced as a whole."""
    if not (isinstance(base, Mapping) and isinstance(part, Mapping)):
        return part
    if "_target_" in part and part["_target_"] != base.get("_target_"):
        return part
    return {**base, **{key: put(base.get(key), value) for key, value in part.items()}}


def config_file(page: Path, text: str, folder: Path) -> Path:
    """A project with the page's modules, and a config: the block, or the block put into the template's."""
    part = yaml.safe_load(text)
    whole = "project" in part
    source = ROOT / "examples" / "digits" if whole else TEMPLATE
    shutil.copytree(source, folder / "project", ignore=shutil.ignore_patterns("__pycache__", "runs"))
    for block in blocks(page, "{code-block} python"):
        match = CAPTION.match(block)
        assert match, f"{page.name}: a code-block has a caption, the file's name"
        (folder / "project" / match["name"]).write_text(match["text"])
    for key in ("optimizer", "scheduler"):
        if key in part:
            part.setdefault("system", {})[key] = part.pop(key)
    base = yaml.safe_load((TEMPLATE / "config.yaml").read_text())
    if "metrics" in part.get("system", {}):
        del base["system"]["metrics"]
    file = folder / "project" / "config.yaml"
    file.write_text(text if whole else yaml.safe_dump(put(base, part), sort_keys=False))
    return file


@pytest.mark.parametrize(("page", "text"), cases("yaml"))
def test_a_config_has_no_problems(page: Path, text: str, tmp_path: Path, cli: Cli) -> None:
    done = cli("check", config_file(page, text, tmp_path))
    assert done.code == 0, done.err


def trains(page: Path) -> bool:
    """Whether the configs of a page are trained as well: those with modules of its own, and those on data."""
    return bool(blocks(page, "{code-block} python")) or page.name == "data-per-task.md"


TRAINS = [case for case in cases("yaml") if trains(case.values[0])]


@pytest.mark.parametrize(("page", "text"), [case for case in TRAINS if "text: caption" not in case.values[1]])
def test_a_config_trains(page: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = config_file(page, text, tmp_path)
    assert cli.main(["fit", str(file), "--quiet", "--dry-run", "trainer.accelerator=cpu"]) == 0


def test_extras_and_groups_that_are_named_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = {*project["project"]["optional-dependencies"]}
    named = re.compile(r"(?:polytask|['\"]?\.)\[(?P<extras>[a-z,]+)\]")
    sources = sorted((ROOT / "src").rglob("*.py"))
    texts = {path: path.read_text() for path in (*PAGES, DOCS / "tutorial" / "digits.md", *sources)}
    for path, text in texts.items():
        for match in named.finditer(text):
            assert set(match["extras"].split(",")) <= extras, f"{path}: {match[0]}"
        for group in re.findall(r"--group[ =](\w+)", text):
            assert group in project["dependency-groups"], f"{path}: {group}"
    assert any(named.search(text) for text in texts.values())


def test_the_keys_of_a_search_space_are_those_of_a_new_project(tmp_path: Path, cli: Cli) -> None:
    page = DOCS / "how-to" / "tune.md"
    (space,) = blocks(page, "text")
    file = config_file(page, "{}", tmp_path)
    for key, values in yaml.safe_load(space).items():
        value = values[0] if isinstance(values, list) else values["low"]
        assert cli("check", file, f"{key}={value}").code == 0, key


@pytest.mark.parametrize(("page", "text"), cases("sh"))
def test_a_command_parses(page: Path, text: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in text.splitlines():
        program, *words = shlex.split(line, comments=True)
        if program == "polytask":
            cli.parse(words)
        elif program == "make":
            assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words), line
        else:
            assert program in ("pip", "python", "git"), line


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), cases("python"))
def test_python_runs_beside_the_digits(page: Path, text: str, tmp_path: Path) -> None:
    assert page == ROOT / "README.md", "in docs/, Python stands in {testcode} blocks, which the build runs"
    shutil.copy(ROOT / "examples" / "digits" / "data.py", tmp_path)
    (tmp_path / "readme.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "readme.py"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_page_is_of_a_kind_that_is_checked() -> None:
    known = ("yaml", "sh", "python", "text", "bash", "{testcode}", "{testoutput}", "{code-block} python")
    known += ("{toctree}", "{literalinclude}", "{include}", "{image}", "{figure}", "{glossary}", "{eval-rst}")
    for page in PAGES:
        for match in FENCE.finditer(page.read_text()):
            assert match["kind"].strip().startswith(known), f"{page.name}: {match['kind']}"


def test_the_picture_of_a_batch_is_the_one_that_its_script_draws() -> None:
    drawn = runpy.run_path(str(DOCS / "make_batch_picture.py"))["picture"]()
    assert (DOCS / "batch.svg").read_text() == drawn, "run docs/make_batch_picture.py"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_a_link_outside_the_docs_leads_somewhere(name: str) -> None:
    """Those inside are checked by the build."""
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_command_line_page_names_every_option() -> None:
    page = (DOCS / "reference" / "command-line.md").read_text()
    top = cli.parser()
    commands_action = next(action for action in top._actions if action.dest == "command")
    assert isinstance(commands_action.choices, dict)
    for name, command in commands_action.choices.items():
        assert f"`{name}" in page
        options = [option for action in command._actions for option in action.option_strings]
        assert [option for option in options if option.startswith("--") and f"`{option}" not in page] == []


@pytest.mark.parametrize("name", public_modules())
def test_a_listed_module_shows_public_names(name: str) -> None:
    module = import_module(name)
    names = public_names(module)
    assert names
    for public in names:
        assert inspect.getdoc(getattr(module, public)), f"{name}.{public} has no docstring for its page"


def test_every_public_module_is_in_the_reference() -> None:
    package = Path(polytask.__file__).parent
    found = {"polytask"} | {
        "polytask." + path.relative_to(package).parts[0].removesuffix(".py")
        for path in [*package.glob("[a-z]*.py"), *package.glob("[a-z]*/__init__.py")]
    }
    # What the command line is made of is not called by anybody else; System is shown as polytask.System.
    internal = {f"polytask.{name}" for name in ("cli", "experiment", "arrays", "batch", "runs", "system")}
    assert set(public_modules()) == found - internal


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, forkserver: ForkServer) -> set[str]:
    """The reference pages that the build generates, by name."""
    folder = tmp_path_factory.mktemp("reference")
    options = ["--respect-module-all", "--templates", str(DOCS / "_templates"), "-o", str(folder)]
    module, page = "sphinx.ext.autosummary.generate", str(DOCS / "reference" / "index.md")
    done = forkserver.run(module, *options, page, warnings="default")
    assert done.returncode == 0, done.stderr
    return {page.stem for page in folder.glob("*.rst")}


@pytest.mark.slow
def test_every_public_name_has_a_page(pages: set[str]) -> None:
    names = {f"{name}.{public}" for name in public_modules() for public in public_names(import_module(name))}
    assert {"polytask.System", "polytask.models.MLP", "polytask.adapters.BatchAdapter"} <= names
    assert names - pages == set()
