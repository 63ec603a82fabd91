"""A user's project in a folder of its own, for every test of the table."""

import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from tests.projects.support import Project

HERE = Path(__file__).parent
# The files of the projects are a user's, not tests.
collect_ignore_glob = ["*/*"]
PROJECTS: dict[str, tuple[str, str, Project]] = {
    f"{truth.parent.name}-{config.removesuffix('.yaml')}": (truth.parent.name, config, project)
    for truth in sorted(HERE.glob("*/truth.py"))
    for config, project in import_module(f"tests.projects.{truth.parent.name}.truth").PROJECTS.items()
}


@dataclass(frozen=True)
class Case:
    """A project that is ready to be used in the current folder.

    Args:
        config: The name of its config.
        project: What is known of it.
    """

    config: str
    project: Project


@pytest.fixture(params=PROJECTS)
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The project's files, its data and a callback that can stop it; its folder is the current one."""
    name, config, project = PROJECTS[request.param]
    reason = project.exempt.get(request.node.originalname.removeprefix("test_"))
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path / name
    shutil.copytree(HERE / name, folder, ignore=shutil.ignore_patterns("truth.py", "__pycache__"))
    modules = yaml.safe_load((folder / config).read_text())["project"]
    shutil.copy(HERE / "stopping.py", folder / modules)
    project.data(folder)
    monkeypatch.chdir(folder)
    return Case(config, project)
