"""What the toy problems share: all weightings, and paths of a bare weighting from several starts."""

import argparse
import functools
import inspect
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeVar

import torch
from _table import RESULTS, write_table
from torch import Tensor, nn

from polytask import weighting as weightings
from polytask.weighting import (
    MGDA,
    GramianWeighting,
    JacobianAggregator,
    LossWeighting,
    SolverWarning,
    Weighting,
)

Result = TypeVar("Result")
Make = Callable[[], Weighting]


def all_weightings(weights: Mapping[str, float]) -> dict[str, Make]:
    """Every public weighting with its defaults, those given losses first.

    A method that must be given weights is given these; one that wraps another wraps MGDA. Adapters, which
    must be given another package's ``method``, are left out.
    """
    given: dict[str, Callable[[], Any]] = {"weights": lambda: weights, "weighting": MGDA}
    public = [getattr(weightings, name) for name in sorted(weightings.__all__, key=str.casefold)]
    return {
        found.__name__: _make(found, given)
        for base in (LossWeighting, GramianWeighting, JacobianAggregator)
        for found in public
        if issubclass(found, base) and not inspect.isabstract(found) and "method" not in _required(found)
    }


def _required(found: type[Weighting]) -> list[str]:
    arguments = inspect.signature(found).parameters.values()
    return [argument.name for argument in arguments if argument.default is argument.empty]


def _make(found: type[Weighting], given: Mapping[str, Callable[[], Any]]) -> Make:
    makers = {name: given[name] for name in _required(found)}
    return lambda: found(**{name: maker() for name, maker in makers.items()})


def update(weighting: Weighting, jacobian: Tensor, losses: Tensor) -> Tensor:
    """The update of a bare weighting, ``(parameters,)``; what it learns gets its gradient too."""
    if isinstance(weighting, LossWeighting):
        leaf = losses.detach().requires_grad_()
        weighting(leaf).backward()
        return jacobian.mT @ leaf.grad
    if isinstance(weighting, GramianWeighting):
        return jacobian.mT @ weighting(jacobian @ jacobian.mT, losses=losses)
    return weighting(jacobian, losses=losses)


def unsolved(weighting: Weighting) -> int:
    """In how many steps since it was last asked a ``deferred`` weighting found no weights."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SolverWarning)
        weighting.check()
    return sum(int(str(warning.message).rpartition("; ")[2].split()[0]) for warning in caught)


class Walker:
    """One weighting on its way from one start."""

    def __init__(self, make: Make, tasks: int) -> None:
        self.weighting = make()
        self.weighting.setup([f"task{i}" for i in range(tasks)])
        self.weighting.deferred = True
        self.seen: list[Tensor] = []
        self.arrived = False

    def step(self, losses: Tensor, jacobian: Tensor) -> Tensor:
        """The update, 0 once it has arrived."""
        if self.arrived:
            return torch.zeros_like(jacobian[0])
        self.seen.append(losses)
        return update(self.weighting, jacobian, losses)

    def end_epoch(self) -> None:
        self.weighting.on_epoch_end(torch.stack(self.seen).mean(0))
        self.seen = []


class Walked(NamedTuple):
    """The points ``(steps + 1, starts, parameters)``, and how many steps found no weights."""

    path: Tensor
    unsolved: int


@dataclass(frozen=True)
class Walk:
    """A problem, walked down with Adam from all starts at once, a weighting of its own for each.

    A path ends where its point has stayed within ``arrived`` for two epochs.

    Attributes:
        losses: From points ``(starts, parameters)`` to losses ``(starts, tasks)``.
        starts: Where from.
        steps: How many at the most.
        lr: Adam's, for the points and for what a weighting has an optimizer step.
        betas: Adam's.
        epoch: Steps after which the `on_epoch_end` of weightings is called.
    """

    losses: Callable[[Tensor], Tensor]
    starts: Tensor
    steps: int
    lr: float
    betas: tuple[float, float]
    arrived: float
    epoch: int = 100

    def run(self, make: Make) -> "Walked":
        """Down with one weighting."""
        torch.manual_seed(0)
        points = nn.Parameter(self.starts.clone())
        walkers = [Walker(make, self.losses(self.starts).shape[-1]) for _ in self.starts]
        learned = [parameter for walker in walkers for parameter in walker.weighting.parameters()]
        optimizer = torch.optim.Adam([points, *learned], lr=self.lr, betas=self.betas)
        path = [self.starts]
        while len(path) <= self.steps and not all(walker.arrived for walker in walkers):
            optimizer.zero_grad()
            path.append(self._step(points, walkers, optimizer))
            if (len(path) - 1) % self.epoch == 0:
                self._end_epoch(walkers, torch.stack(path[-2 * self.epoch :]))
        return Walked(torch.stack(path), sum(unsolved(walker.weighting) for walker in walkers))

    def _step(self, points: nn.Parameter, walkers: list[Walker], optimizer: torch.optim.Optimizer) -> Tensor:
        values = self.losses(points)
        rows = [torch.autograd.grad(task.sum(), points, retain_graph=True)[0] for task in values.unbind(-1)]
        losses, jacobians = values.detach(), torch.stack(rows, 1)
        updates = [walker.step(*given) for walker, *given in zip(walkers, losses, jacobians, strict=True)]
        points.grad = torch.stack(updates)
        before = points.detach().clone()
        optimizer.step()
        with torch.no_grad():
            # Adam's momentum would carry on what has arrived.
            still = torch.tensor([walker.arrived for walker in walkers])
            points.copy_(torch.where(still[:, None], before, points))
            if walkers[0].weighting.remeasures:
                losses = self.losses(points)
        for walker, after in zip(walkers, losses, strict=True):
            if not walker.arrived:
                walker.weighting.after_step(after)
        return points.detach().clone()

    def _end_epoch(self, walkers: list[Walker], last: Tensor) -> None:
        near = (last.amax(0) - last.amin(0)).amax(-1) < self.arrived
        for walker, stays in zip(walkers, near.tolist(), strict=True):
            if not walker.arrived:
                walker.end_epoch()
                walker.arrived = stays and len(last) == 2 * self.epoch


def in_processes(run: Callable[[str], Result], names: Iterable[str]) -> dict[str, Result]:
    """What ``run`` gives by name, in processes of one thread each, as many as there are cores."""
    found = {}
    # A fork of a process in which torch has begun threads may hang.
    with ProcessPoolExecutor(
        mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for name, sent in zip(names, pool.map(functools.partial(_send, run), names), strict=True):
            found[name] = pickle.loads(sent)
            print(name, flush=True)
    return found


def steps_given(description: str | None, default: int) -> int:
    """The value of ``--steps`` on the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=default)
    return int(parser.parse_args().steps)


def _send(run: Callable[[str], Any], name: str) -> bytes:
    # A tensor would travel as shared memory that its process must outlive.
    return pickle.dumps(run(name))


def keep(name: str, title: str, header: list[str], rows: list[list[str]], notes: list[str]) -> None:
    """The table, what it says and the picture, in ``results/<name>.md``."""
    write_table(name, title, header, rows)
    text = "\n".join(["", *notes, "", f"![{title}]({name}.png)", ""])
    with (RESULTS / f"{name}.md").open("a") as file:
        file.write(text)
