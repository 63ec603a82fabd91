"""One batch of every stage, which shows that model, data, losses and metrics fit each other."""

from dataclasses import dataclass

from polytask._lightning._interrupts import interrupts
from polytask._lightning._noise import SILENT
from polytask.config import Config
from polytask.data._loader_errors import data_errors
from polytask.experiment._builders import make_loaders, make_system
from polytask.experiment._problems import raise_problems
from polytask.experiment._processes import RunProcesses
from polytask.experiment._reporter import Reporter
from polytask.runs._checkpoints import load_weights, read_checkpoint
from polytask.runs._lookup import Selection
from polytask.system import System
from polytask.system._stages import STAGES


@dataclass(frozen=True)
class Tried:
    """What one batch of every stage completed.

    Attributes:
        stages: The stages that the config has data for.
        unlabelled: The tasks that had no label in the batch of the training.
    """

    stages: list[str]
    unlabelled: list[str]


def dry_run(selection: Selection, reporter: Reporter) -> Tried:
    """Train, validate, test and predict on one batch each; nothing is written.

    Args:
        selection: Which config, and which checkpoint the weights come from.
        reporter: Receives what happens meanwhile.

    Raises:
        UserError: If the config, the checkpoint or the data cannot be used.
    """
    with interrupts():
        config = selection.read_config()
        raise_problems(config, bool(selection.files))
        given = {**SILENT, "fast_dev_run": 1, "callbacks": []}
        epochs = config.plain["trainer"].get("max_epochs", 1)
        trainer = config.build("trainer", {**given, "max_epochs": epochs})
        processes = RunProcesses(trainer)
        reporter.started(processes.is_first)
        system = processes.on_each(lambda: _prepared(selection, config))
        stages = [stage for stage in STAGES if stage in system.dataloaders]
        unlabelled: list[str] = []
        with processes.ending_together(), data_errors(system.dataloaders):
            if "train" in stages:
                trainer.fit(system)
                if system.task_backward is not None:
                    unlabelled = [name for name in system.names if name not in system.labelled_tasks]
            if "test" in stages:
                trainer.test(system, verbose=False)
            if "predict" in stages:
                trainer.predict(system, return_predictions=False)
    return Tried(stages, unlabelled)


def _prepared(selection: Selection, config: Config) -> System:
    system = make_system(config, make_loaders(config, ("train", "val")))
    weights = selection.initial_weights(config)
    if weights is not None:
        load_weights(system, read_checkpoint(weights), str(weights))
    system.dataloaders = make_loaders(config, STAGES)
    return system
