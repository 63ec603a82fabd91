"""Copies of a backbone side by side, one for each task, that exchange features at taps."""

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

Backbone = nn.Module | Mapping[str, nn.Module]


class Mixing(nn.Module, ABC):
    """What the towers exchange at one tap.

    Args:
        tap: The module whose features are mixed, for messages.
    """

    def __init__(self, tap: str) -> None:
        super().__init__()
        self.tap = tap

    def sources(self, tower: int, towers: int) -> Iterable[int]:
        """Which towers' features a tower is handed a mixture of; here, those of all.

        Args:
            tower: The tower's place.
            towers: How many there are.
        """
        return range(towers)

    @abstractmethod
    def forward(self, features: Sequence[Tensor], tower: int) -> Tensor:
        """What a tower goes on with.

        Args:
            features: Those of its `sources`, all of one shape.
            tower: The tower's place.
        """


class Towers(ByTask):
    """A tower for each task, of aligned backbones, and a head on each.

    A tower that nobody asks for runs as far as the others need its features, and no further.

    Args:
        backbone: A module that is copied for each task, or by task modules of the same form.
        heads: One module per task.
        taps: Names of the backbone's modules.
        unit: From a tap and the tasks to the mixing behind it.
    """

    def __init__(
        self, backbone: Backbone, heads: Heads, taps: Taps, unit: Callable[[str, Sequence[str]], Mixing]
    ) -> None:
        super().__init__(heads)
        self.backbones = TaskModules(_by_task(backbone, self.task_names), "backbone")
        for task, tower in self.backbones.items():
            self.taps = check_taps(
                tower, taps, "taps" if isinstance(backbone, nn.Module) else f"taps ({task})"
            )
        self.units = nn.ModuleList(unit(tap, self.task_names) for tap in self.taps)

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """By task, what its tower returns.

        Args:
            x: A batch of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        towers = TowersForward(self.backbones, self.taps, self.units, x)
        chosen = self.task_names if tasks is None else tasks
        return {task: towers.output(self.task_names.index(task)) for task in chosen}


class TowersForward:
    """One forward of all towers, each as far as somebody needs it.

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
        """What a tower returns at its end.

        Args:
            tower: The tower's place.
        """
        tap, value = self._at(tower, 0)
        while tap is not None:
            tap, value = self._at(tower, len(self._stops[tower]))
        return value

    def mixed(self, tower: int, stop: int) -> Tensor:
        """What a tower goes on with after a stop.

        Args:
            tower: The tower's place.
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
        places = list(unit.sources(tower, len(self.forwards)))
        found = [self._at(place, stop) for place in places]
        for place, (other, value) in zip(places, found, strict=True):
            _check_aligned(tap, tower, place, other, value, found[0][1])
        mixed: Tensor = unit([value for _, value in found], tower)
        return mixed


def _check_aligned(tap: str, tower: int, place: int, other: str | None, value: Any, first: Any) -> None:
    if other != tap:
        rule = f"tower {place} has to come by the same taps in the same order as tower {tower}"
        raise UserError(f"tap '{tap}'", rule, "its end" if other is None else f"tap '{other}'")
    if not isinstance(value, Tensor):
        raise UserError(f"tap '{tap}'", "has to return one tensor", f"a {type(value).__name__}")
    if value.shape != first.shape:
        found = f"{tuple(first.shape)} and {tuple(value.shape)}"
        raise UserError(f"tap '{tap}'", "the towers' features need one shape", found)


def _by_task(backbone: Backbone, tasks: Sequence[str]) -> dict[str, nn.Module]:
    if not isinstance(backbone, Mapping | nn.ModuleDict):
        module = check_module(backbone, "backbone")
        return {task: deepcopy(module) for task in tasks}
    check_known(backbone, tasks, "backbone")
    for task in tasks:
        if task not in backbone:
            raise UserError(
                f"backbone.{task}", "every task needs one, or one module is copied for all", "none"
            )
    return {task: backbone[task] for task in tasks}
