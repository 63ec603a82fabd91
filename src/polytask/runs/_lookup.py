"""Which config, run and checkpoint a command names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polytask import runs
from polytask._errors import UserError
from polytask.config import Config, closest, shaping
from polytask.runs import Run
from polytask.runs._checkpoints import CONFIG, read_checkpoint

_NAMED = ("best", "last")


@dataclass(frozen=True)
class Selection:
    """What a command names, and how the config, the run and the checkpoint are found from it.

    Attributes:
        files: The config's files, merged from left to right.
        overrides: ``key=value`` strings.
        allow: Dotted names that targets may use in addition to those of the known kinds.
        project: The folder that a checkpoint's modules come from.
        checkpoint: ``best``, ``last`` or a checkpoint's file.
        run_dir: A run's folder, or a folder of runs.

    Example:
        >>> Selection(files=["digits/config.yaml"]).checkpoint is None
        True
    """

    files: Sequence[str | Path] = ()
    overrides: Sequence[str] = ()
    allow: Sequence[str] = ()
    project: Path | None = None
    checkpoint: str | None = None
    run_dir: Path | None = None

    def read_config(self) -> Config:
        """The config of the files, or else that of the newest run in ``run_dir``.

        Raises:
            UserError: If neither is named, or the config cannot be read.
        """
        if self.files:
            return Config.read(self.files, self.overrides, allow=self.allow)
        if self.run_dir is not None:
            return saved_config(runs.latest(self.run_dir), self.overrides, self.allow)
        raise UserError(
            "polytask", "a config file is required", "none", "Write it after the command: config.yaml"
        )

    def find_run(
        self, config: Config, checkpoint: str, root: Path | None = None, *, whole: bool = False
    ) -> Run:
        """The run of a config, by what shaped its weights; a run named by its own folder fits any config.

        Of several runs, it is the one whose config differs in the fewest other keys, and the newest of those.

        Args:
            config: The config.
            checkpoint: ``best`` or ``last``, which the run must have.
            root: The folder of runs; ``runs/<project>`` if None.
            whole: Whether no key may differ, since the run continues.

        Raises:
            UserError: If there is none, with the newest one.
        """
        root = root or Path("runs") / project_name(config, self.files)
        is_run = (root / runs.CONFIG).exists()
        plain = config.plain

        def misfits(own: dict[str, Any], differing: list[str]) -> list[str]:
            return differing if whole else shaping(differing, own, plain)

        def distance(run: Run) -> int | None:
            own = saved_config(run).plain
            differing = closest(own, plain)
            return len(differing) if is_run or not misfits(own, differing) else None

        def differences(run: Run) -> str:
            own = saved_config(run).plain
            return ", ".join(misfits(own, closest(own, plain))[:5])

        return runs.newest(root, checkpoint, distance, differences)

    def find_checkpoint(self) -> "Found":
        """The checkpoint to load, its run, and the config: of the files if given, else the checkpoint's.

        Raises:
            UserError: If there is no such checkpoint, or no config.
        """
        name = self.checkpoint or "best"
        if name in _NAMED:
            config = self.read_config()
            run = self.find_run(config, name, self.run_dir)
            return Found(run.checkpoint(name), run, config, differing(run, config))
        path = Path(name)
        folder = path.resolve().parent
        run = Run(folder.parent if path.parent.name == "checkpoints" else folder)
        return Found(path, run, self.read_config() if self.files else self._config_in(path), [])

    def _config_in(self, path: Path) -> Config:
        values = read_checkpoint(path).get(CONFIG)
        if values is None:
            rule, fix = "the checkpoint must contain a config", "Name a config file with --config"
            raise UserError(f"--ckpt {path}", rule, "none", fix)
        return Config.from_plain(
            values, where=str(path), overrides=self.overrides, allow=self.allow, project=self.project
        )

    def initial_weights(self, config: Config) -> Path | None:
        """The checkpoint that a new run starts from; ``run_dir`` is the new run's folder here.

        Args:
            config: The new run's config.

        Returns:
            None if no checkpoint is named.

        Raises:
            UserError: If no run with this config has it.
        """
        if self.checkpoint not in _NAMED:
            return None if self.checkpoint is None else Path(self.checkpoint)
        return self.find_run(config, self.checkpoint).checkpoint(self.checkpoint)


@dataclass(frozen=True)
class Found:
    """A checkpoint, and what it is loaded for.

    Attributes:
        path: The checkpoint.
        run: Its run.
        config: The config that it is loaded for.
        differing: The keys in which that differs from the run's own, if the run was found by its config.
    """

    path: Path
    run: Run
    config: Config
    differing: list[str]


def differing(run: Run, config: Config) -> list[str]:
    """The keys in which a config differs from a run's own.

    Args:
        run: The run.
        config: The config.
    """
    return closest(saved_config(run).plain, config.plain)


def saved_config(run: Run, overrides: Sequence[str] = (), allow: Sequence[str] = ()) -> Config:
    """A run's own config.

    Args:
        run: The run.
        overrides: ``key=value`` strings.
        allow: Dotted names that targets may use in addition to those of the known kinds.

    Raises:
        UserError: If it cannot be read.
    """
    return Config.read([run.config], overrides, allow=allow)


def project_name(config: Config, files: Sequence[str | Path]) -> str:
    """What a run's folder is named after: the project's folder, or else the first config file.

    Args:
        config: The config.
        files: The files that it was read from.
    """
    if config.project is not None:
        return config.project.name
    return Path(files[0]).stem if files else "project"
