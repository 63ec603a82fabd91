"""The environment of a run, kept in its folder: versions, platform, device and commit."""

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from polytask._errors import Reason, UserError
from polytask._files import write_text

FILE = "environment.json"
PACKAGES = ("polytask", "torch", "pytorch-lightning", "torchmetrics", "numpy")
_PATIENCE = 10.0
# Does not run the hook that a repository's settings may name.
_DESCRIBE = ("-c", "core.fsmonitor=false", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")

Environment = dict[str, str]


def environment(device: str, project: Path) -> Environment:
    """The environment of this process, as strings.

    Args:
        device: The name of the device.
        project: The folder whose commit is recorded.

    Example:
        >>> [*environment("cpu", Path("/"))][:4]
        ['device', 'system', 'Python', 'polytask']
    """
    commit = _commit(project)
    return {"device": device, **versions(), **({} if commit is None else {"commit": commit})}


def versions() -> Environment:
    """The versions of the system, Python and the packages.

    Example:
        >>> versions()["torch"] == version("torch")
        True
    """
    own = {"system": platform.platform(), "Python": platform.python_version()}
    return own | {name: version(name) for name in PACKAGES}


def version(package: str) -> str:
    """A package's version.

    Args:
        package: Its name.

    Example:
        >>> version("no-such-package")
        'not installed'
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def keep(run: Path, found: Environment) -> None:
    """Write the environment into a run's folder, after those of the earlier trainings of the run.

    Args:
        run: The run's folder.
        found: The environment.
    """
    file = run / FILE
    known = read(run) if file.exists() else []
    if not known or known[-1] != found:
        write_text(file, json.dumps([*known, found], indent=1) + "\n")


def read(run: Path) -> list[Environment]:
    """The environments in which a run was trained, in order; empty for a run that did not record them.

    Args:
        run: The run's folder.

    Raises:
        UserError: If the file is damaged.
    """
    file = run / FILE
    if not file.exists():
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(str(file), "must be JSON", Reason.said(error), "Delete it") from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UserError(str(file), "must contain a list of environments", type(found).__name__, "Delete it")
    return [{str(key): str(value) for key, value in one.items()} for one in found]


def _commit(folder: Path) -> str | None:
    """The git commit of a folder, with ``-dirty`` if tracked files differ from it; None without git."""
    try:
        done = subprocess.run(
            ["git", *_DESCRIBE], cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None
