"""A job: one run to train or to test."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from polytask.compare._names import COST

# In the folder of a run that was tested.
TESTED = "tested.json"


@dataclass(frozen=True)
class Job:
    """One run to train or to test.

    Attributes:
        command: ``fit`` or ``test``.
        run: The run's folder.
        config: The run's config file.
        log: The file that the output of its process goes to.
        allow: Dotted names that the config may use in addition to those of the known kinds.
        threads: How many threads torch may use.
        gpus: How many GPUs its trainer uses if there are any.
        needs_gpus: Whether it cannot run without them.
    """

    command: Literal["fit", "test"]
    run: Path
    config: Path
    log: Path
    allow: tuple[str, ...] = ()
    threads: int = 1
    gpus: int = 0
    needs_gpus: bool = False

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def outcome(self) -> Path:
        """The file in which its process leaves how it ended."""
        return self.log.with_suffix(".json")

    @property
    def broken(self) -> Path:
        """A file that marks a trial that failed, which is not repeated."""
        return self.log.with_suffix(".broken")

    @property
    def is_done(self) -> bool:
        """Whether the command succeeded earlier."""
        return (self.run / (COST if self.command == "fit" else TESTED)).exists()

    def dump(self) -> str:
        """The job as an argument for another process; `parse` reads it."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def parse(cls, text: str) -> Self:
        """A job from what `dump` gave.

        Args:
            text: JSON.

        Example:
            >>> job = Job("fit", Path("run"), Path("c.yaml"), Path("fit.log"), ("mine",))
            >>> Job.parse(job.dump()) == job
            True
        """
        values = json.loads(text)
        paths = {name: Path(values[name]) for name in ("run", "config", "log")}
        return cls(**{**values, **paths, "allow": tuple(values["allow"])})
