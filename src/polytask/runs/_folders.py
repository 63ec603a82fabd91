"""Run folders: created, locked and found."""

import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from polytask._errors import Reason, UserError
from polytask._files import locked

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Args:
        folder: ``runs/<project>/<time>-<id>``, or the folder of ``--run-dir``.
        made: The folders that were created for it, from the innermost on; None for an existing run.

    Example:
        >>> Run(Path("runs/digits/20260101-120000-abc123")).checkpoint("last").name
        'last.ckpt'
    """

    folder: Path
    made: tuple[Path, ...] | None = None

    @contextmanager
    def kept_if_begun(self) -> Iterator[None]:
        """Restore the folder if a user's mistake ends the run.

        A new run's folder is removed if there is no checkpoint yet; an existing run's config is restored.
        """
        config = self.config.read_text() if self.made is None else None
        try:
            yield
        except UserError:
            if config is not None:
                self.config.write_text(config)
            elif self.made is not None and not any(self.checkpoints.glob("*.ckpt")):
                self._discard(self.made)
            raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other trainings.

        Raises:
            UserError: If another process trains in it.
        """
        rule, fix = "must not be used by another training", "Wait for it to end, or stop it"
        with locked(self.folder, UserError(str(self.folder), rule, "one that is running", fix)):
            yield

    def _discard(self, made: Iterable[Path]) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _remove(made)

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.folder / CONFIG

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    @property
    def predictions(self) -> Path:
        """The folder of predictions."""
        return self.folder / "predictions"

    def checkpoint(self, name: str) -> Path:
        """The checkpoint ``best`` or ``last``; without validation the best is the last."""
        path = self.checkpoints / f"{name}.ckpt"
        if name == "best" and not path.exists():
            return self.checkpoints / "last.ckpt"
        return path


def create(project: str, folder: Path | None = None) -> Run:
    """Create the folder of a new run.

    Args:
        project: The project's name, for ``runs/<project>/``.
        folder: The folder, if the user names one.

    Raises:
        UserError: If it cannot be created, or has a run already.
    """
    if folder is None:
        name = f"{datetime.now():%Y%m%d-%H%M%S-%f}"[:-3] + f"-{secrets.token_hex(3)}"
        folder = Path("runs") / project / name
    elif (folder / CONFIG).exists():
        raise UserError(
            f"--run-dir {folder}",
            "must be a new or an empty folder",
            "the folder of a run",
            "Name another one, or continue it with --resume",
        )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--run-dir {folder}", "must be a new or an empty folder", None, "Name another one")
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        (folder / "checkpoints").mkdir(parents=True)
    except OSError as error:
        _remove(made)
        raise UserError(
            str(folder),
            "the run's folder cannot be created",
            Reason.said(error),
            "Name another with --run-dir",
        ) from error
    return Run(folder, tuple(made))


def _remove(folders: Iterable[Path]) -> None:
    """Remove the folders, from the innermost on, unless another process has written to them."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def existing(root: Path) -> list[Run]:
    """All runs in a folder, the newest first; the folder itself if it is a run.

    Args:
        root: A run, or a folder with runs up to three levels below it.
    """
    if (root / CONFIG).exists():
        return [Run(root)]
    found = {path.parent for depth in range(1, 4) for path in root.glob("*/" * depth + CONFIG)}
    return [Run(folder) for folder in sorted(found, key=lambda folder: folder.name, reverse=True)]


def latest(root: Path) -> Run:
    """The newest run in a folder.

    Args:
        root: A run, or a folder with runs.

    Raises:
        UserError: If there is none.
    """
    found = existing(root)
    if not found:
        holds = "no run in it" if root.exists() else "no such folder"
        raise UserError(f"--run-dir {root}", "must be a run, or a folder of runs", holds, "Name another one")
    return found[0]


def newest(
    root: Path, checkpoint: str, distance: Callable[[Run], int | None], differences: Callable[[Run], str]
) -> Run:
    """The run that has the checkpoint and is most like the given config; the newest of equal ones.

    Args:
        root: A run, or a folder with runs.
        checkpoint: ``best`` or ``last``.
        distance: In how many keys a run's config differs from the given one; None if the run does not fit.
        differences: The keys because of which a run does not fit.

    Raises:
        UserError: If there is none; names the newest run.
    """
    if not root.exists():
        raise UserError(
            str(root), "there is no such folder of runs", None, "Run `polytask fit` first, or name --ckpt"
        )
    runs = existing(root)
    found: tuple[int, Run] | None = None
    without = None
    for run in runs:
        away = distance(run)
        if away is None:
            continue
        if not run.checkpoint(checkpoint).exists():
            without = without or run
        elif found is None or away < found[0]:
            found = away, run
        if found is not None and found[0] == 0:
            break
    if found is not None:
        return found[1]
    rule = f"no run with this config has a checkpoint '{checkpoint}'"
    if without is not None:
        fix = "Run `polytask fit`, or name --ckpt"
        raise UserError(str(root), rule, f"{without.folder} without one", fix)
    if runs:
        nearest = f"the newest run {runs[0].folder}, which differs in {differences(runs[0])}"
        raise UserError(str(root), rule, nearest, "Name --run-dir or --ckpt, or run `polytask fit`")
    raise UserError(str(root), rule, "no runs", "Run `polytask fit` first, or name --ckpt")
