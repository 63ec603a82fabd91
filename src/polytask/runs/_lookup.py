"""Which config, run and checkpoint the words of a command mean."""

import argparse
from pathlib import Path

from polytask import runs
from polytask._errors import UserError
from polytask.config import Config, closest
from polytask.runs import Run
from polytask.runs._checkpoints import CONFIG, read_checkpoint


def read_config(options: argparse.Namespace) -> Config:
    """The config that is named, else that of the run that is."""
    if options.config:
        return Config.read(options.config, options.overrides, allow=options.allow)
    if options.run_dir is not None:
        return saved_config(runs.latest(options.run_dir), options)
    raise UserError(f"polytask {options.command}", "needs a config", "none", "Write for example config.yaml")


def saved_config(run: Run, options: argparse.Namespace | None = None) -> Config:
    """A run's own config, with the overrides of a command where its options are given."""
    if options is None:
        return Config.read([run.config])
    return Config.read([run.config], options.overrides, allow=options.allow)


def find_run(options: argparse.Namespace, config: Config, checkpoint: str, root: Path | None) -> Run:
    """The newest run with the config in hand; a run that is named need not have it."""
    root = root or Path("runs") / project_name(config, options)
    named = (root / runs.CONFIG).exists()

    def fits(run: Run) -> bool:
        return named or not closest(saved_config(run).plain, config.plain)

    def differences(run: Run) -> str:
        return ", ".join(closest(saved_config(run).plain, config.plain)[:5])

    return runs.newest(root, checkpoint, fits, differences)


def find_checkpoint(options: argparse.Namespace, config: Config | None) -> tuple[Path, Run, Config]:
    """The checkpoint to load, its run, and the config: the one in hand, else the checkpoint's."""
    name = options.ckpt or "best"
    if name in ("best", "last"):
        config = config or read_config(options)
        run = find_run(options, config, name, options.run_dir)
        return run.checkpoint(name), run, config
    path = Path(name)
    run = Run(path.resolve().parent.parent if path.parent.name == "checkpoints" else path.resolve().parent)
    if config is None:
        values = read_checkpoint(path).get(CONFIG)
        if values is None:
            raise UserError(
                f"--ckpt {path}", "the checkpoint carries no config", None, "Name one with --config"
            )
        config = Config.from_plain(
            values, where=str(path), overrides=options.overrides, allow=options.allow, project=options.project
        )
    return path, run, config


def project_name(config: Config, options: argparse.Namespace) -> str:
    """What a run's folder is named after: the project's folder, else the config file."""
    if config.project is not None:
        return config.project.name
    return Path(options.config[0]).stem if options.config else "project"


def initial_weights(options: argparse.Namespace, config: Config) -> Path:
    """The checkpoint that a new run starts from; ``--run-dir`` names the new run and not where to look."""
    if options.ckpt not in ("best", "last"):
        return Path(options.ckpt)
    root = Path("runs") / project_name(config, options)
    return find_run(options, config, options.ckpt, root).checkpoint(options.ckpt)
