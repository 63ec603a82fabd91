import subprocess
import sys
import textwrap

import pytest

from polytask import UserError
from polytask.config import Config
from polytask.config._project import VARIABLE, holds


def make(folder, value):
    folder.mkdir(exist_ok=True)
    (folder / "parts").mkdir(exist_ok=True)
    (folder / "parts" / "one.py").write_text(f"def value():\n    return {value!r}\n")
    (folder / "config.yaml").write_text("project: .\nvars: {x: {_target_: parts.one.value}}\n")
    return folder / "config.yaml"


def test_the_project_is_relative_to_the_file_that_sets_it(tmp_path, monkeypatch):
    file = make(tmp_path / "a", "a")
    (tmp_path / "later.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)

    config = Config.read(["a/config.yaml", "later.yaml"])

    assert config.project == file.parent
    assert config.plain["project"] == str(file.parent)
    assert config.build("vars.x") == "a"


def test_a_project_that_is_no_folder(write):
    config = Config.read([write("project: nowhere\nsystem: {}")])

    assert "config.yaml:1 project: must be a folder, got 'nowhere'" in str(config.problems()[0])
    with pytest.raises(UserError):
        config.build("trainer")


def test_each_config_imports_from_its_own_project(tmp_path):
    one, two = (Config.read([make(tmp_path / name, name)]) for name in ("one", "two"))

    assert one.build("vars.x") == "one"
    assert two.build("vars.x") == "two"


def test_modules_of_a_project_import_each_other(project):
    (project / "helper.py").write_text("VALUE = 5\n")
    (project / "user.py").write_text("import helper\ndef value():\n    return helper.VALUE\n")

    config = Config.from_plain({"vars": {"x": {"_target_": "user.value"}}}, where="x", project=project)

    assert config.build("vars.x") == 5


@pytest.mark.parametrize("imported_before", [True, False])
def test_the_project_hides_an_installed_package(tmp_path, monkeypatch, imported_before):
    installed = tmp_path / "site" / "parts"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    (installed / "one.py").write_text("def value():\n    return 'installed'\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    if imported_before:
        __import__("parts.one")

    assert Config.read([make(tmp_path / "a", "own")]).build("vars.x") == "own"


def test_spawned_workers_of_any_main_module_are_given_the_path(tmp_path):
    first, second = make(tmp_path / "one", 1), make(tmp_path / "two", 2)

    Config.read([first]).build("vars.x")
    Config.read([second]).build("vars.x")

    assert sys.path[-1] == str(second.parent)
    assert str(first.parent) not in sys.path


def test_a_folder_without_python_files_hides_nothing(tmp_path):
    (tmp_path / "wandb" / "run-1").mkdir(parents=True)
    (tmp_path / "wandb" / "run-1" / "log.txt").touch()
    (tmp_path / "deep" / "inner").mkdir(parents=True)
    (tmp_path / "deep" / "inner" / "net.py").touch()

    assert not holds(tmp_path, "wandb")
    assert holds(tmp_path, "deep")
    assert not holds(tmp_path, "absent")


def test_modules_of_python_are_never_hidden(tmp_path):
    (tmp_path / "random.py").write_text("")

    assert not holds(tmp_path, "random")


def test_packages_that_we_need_are_never_hidden(project):
    (project / "torch").mkdir()
    (project / "torch" / "own.py").write_text("x = print\n")

    problems = Config.from_plain(
        {"vars": {"x": {"_target_": "torch.own.x"}}}, where="x", project=project
    ).problems()

    assert any("Rename" in str(problem) for problem in problems)
    assert sys.modules["torch"].__file__ != str(project / "torch")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("context", "follows"),
    [("spawn", True), ("forkserver", True), ("fork", False)],
)
def test_workers_find_the_project(tmp_path, context, follows):
    """Also where a package of the same name comes first for everyone else."""
    site = tmp_path / "site"
    (site / "sets").mkdir(parents=True)
    (site / "sets" / "__init__.py").write_text("")
    folder = tmp_path / "project"
    (folder / "sets").mkdir(parents=True)
    (folder / "sets" / "own.py").write_text(
        "from torch.utils.data import Dataset\n"
        "class Own(Dataset):\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, index): return index\n"
    )
    (folder / "config.yaml").write_text(
        "project: .\n"
        "vars: {x: {_target_: torch.utils.data.DataLoader, dataset: {_target_: sets.own.Own},\n"
        f"           batch_size: 2, num_workers: 1, multiprocessing_context: {context}}}}}\n"
    )
    command = tmp_path / "command.py"
    command.write_text(
        textwrap.dedent(
            f"""
            from polytask.config import Config, follow_parent
            {"follow_parent()" if follows else ""}
            if __name__ == "__main__":
                loader = Config.read([{str(folder / "config.yaml")!r}]).build("vars.x")
                print([batch.tolist() for batch in loader])
            """
        )
    )

    done = subprocess.run(
        [sys.executable, str(command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
    )

    assert done.stdout == "[[0, 1], [2, 3]]\n", done.stderr


def test_a_process_that_is_no_worker_follows_nobody(tmp_path):
    make(tmp_path / "a", 1)
    program = (
        "import importlib.util\n"
        "from polytask.config import follow_parent\n"
        "follow_parent()\n"
        "print(importlib.util.find_spec('parts'))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={VARIABLE: str(tmp_path / "a")},
    )

    assert done.stdout == "None\n", done.stderr
