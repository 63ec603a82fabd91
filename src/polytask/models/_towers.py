"""Copies of a backbone, one for each task, that exchange features at taps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from polytask._errors import UserError
from polytask._tasks import TaskModules, check_known
from polytask.models._argument_checks import check_module
from polytask.models._base import ByTask, Heads
from polytask.models._taps import StagedForward, Taps, check_taps

BackboneByTask = nn.Module | Mapping[str, nn.Module]


class Mixing(nn.Module, ABC):
    """The exchange between towers at one tap.

    Args:
        tap: The module whose features are mixed, for messages.
    """

    def __init__(self, tap: str) -> None:
        super().__init__()
        self.tap = tap

    def sources(self, tower: int, towers: int) -> Iterable[int]:
        """The towers whose features a tower receives a mixture of; here, all.

        Args:
            tower: The tower's index.
            towers: The number of towers.
        """
        return range(towers)

    @abstractmethod
    def forward(self, features: Sequence[Tensor], tower: int) -> Tensor:
        """The features that a tower continues with.

        Args:
            features: Those of its `sources`, all of one shape.
            tower: The tower's index.
        """


class Towers(ByTask):
    """A tower for each task, made of aligned backbones, and a head on each.

    A tower whose task is not requested runs only as far as the others need its features.

    Args:
        backbone: A module that is copied for each task, or by task modules of the same structure.
        heads: One module per task.
        taps: Names of the backbone's modules.
        unit: A callable that returns the mixing behind a tap, for its name and the tasks.
    """

    def __init__(
        self, backbone: BackboneByTask, heads: Heads, taps: Taps, unit: Callable[[str, Sequence[str]], Mixing]
    ) -> None:
        super().__init__(heads)
        self.backbones = TaskModules(_by_task(backbone, self.task_names), "backbone")
        for task, tower in self.backbones.items():
            self.taps = check_taps(
                tower, taps, "taps" if isinstance(backbone, nn.Module) else f"taps ({task})"
            )
        self.units = nn.ModuleList(unit(tap, self.task_names) for tap in self.taps)

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """By task, the output of its tower.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        towers = TowersForward(self.backbones, self.taps, self.units, x)
        chosen = self.task_names if tasks is None else tasks
        return {task: towers.output(self.task_names.index(task)) for task in chosen}


class TowersForward:
    """One forward of all towers, each only as far as needed.

    Args:
        towers: The backbones.
        taps: Names of their modules.
        units: For each tap the mixing behind it.
        x: The input.
    """

    def __init__(self, towers: TaskModules, taps: Sequence[str], units: nn.ModuleList, x: Any) -> None:
        self.forwards = [StagedForward(tower, taps, x) for _, tower in towers.items()]
        self.units = dict(zip(taps, units, strict=True))
        self._stops: list[list[tuple[str | None, Any]]] = [[] for _ in self.forwards]
        self._mixed: list[list[Tensor]] = [[] for _ in self.forwards]

    def output(self, tower: int) -> Any:
        """The output of a tower.

        Args:
            tower: The tower's index.
        """
        tap, value = self._at(tower, 0)
        while tap is not None:
            tap, value = self._at(tower, len(self._stops[tower]))
        return value

    def mixed(self, tower: int, stop: int) -> Tensor:
        """The features that a tower continues with after a stop.

        Args:
            tower: The tower's index.
            stop: The stop's number, from 0.
        """
        done = self._mixed[tower]
        while len(done) <= stop:
            done.append(self._mix(tower, len(done)))
        return done[stop]

    def _at(self, tower: int, stop: int) -> tuple[str | None, Any]:
        stops = self._stops[tower]
        while len(stops) <= stop and not (stops and stops[-1][0] is None):
            if stops:
                self.forwards[tower].resume(self.mixed(tower, len(stops) - 1))
            stops.append(self.forwards[tower].advance())
        return stops[min(stop, len(stops) - 1)]

    def _mix(self, tower: int, stop: int) -> Tensor:
        tap, _ = self._at(tower, stop)
        assert tap is not None
        unit = self.units[tap]
        assert isinstance(unit, Mixing)
        sources = list(unit.sources(tower, len(self.forwards)))
        found = [self._at(source, stop) for source in sources]
        for source, (other, value) in zip(sources, found, strict=True):
            _check_aligned(tap, tower, source, other, value, found[0][1])
        mixed: Tensor = unit([value for _, value in found], tower)
        return mixed


def _check_aligned(tap: str, tower: int, source: int, other: str | None, value: Any, first: Any) -> None:
    if other != tap:
        rule = f"tower {source} must call the same taps in the same order as tower {tower}"
        raise UserError(f"tap '{tap}'", rule, "its end" if other is None else f"tap '{other}'")
    if not isinstance(value, Tensor):
        raise UserError(f"tap '{tap}'", "must return one tensor", f"a {type(value).__name__}")
    if value.shape != first.shape:
        found = f"{tuple(first.shape)} and {tuple(value.shape)}"
        raise UserError(f"tap '{tap}'", "the towers' features must have one shape", found)


def _by_task(backbone: BackboneByTask, tasks: Sequence[str]) -> dict[str, nn.Module]:
    if not isinstance(backbone, Mapping | nn.ModuleDict):
        module = check_module(backbone, "backbone")
        return {task: deepcopy(module) for task in tasks}
    check_known(backbone, tasks, "backbone")
    for task in tasks:
        if task not in backbone:
            raise UserError(f"backbone.{task}", "is required, unless one module is copied for all", "none")
    return {task: backbone[task] for task in tasks}
