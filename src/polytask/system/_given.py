"""How a change since the checkpoint takes effect in the optimizer and the scheduler of a resumed run."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from polytask._errors import Reason, UserError
from polytask._lightning._noise import Silence, silenced
from polytask.optim import OptimizerFactory, SchedulerFactory
from polytask.system._optimizers import Optimization, group_options

GIVEN = "polytask_given"
"""The key of a checkpoint for `Optimization.given`."""


class Resumption:
    """The optimizer and the scheduler of a checkpoint, compared with those that a resumed run is given.

    An option of the optimizer takes its new value. What a scheduler sets, the learning rates above all,
    becomes that of a run with the new options and the new schedule from its start: the scheduler is built
    again and stepped as often as it would have been. A plateau scheduler, whose steps depend on values that
    were logged, takes its new options and keeps its counts and the reductions that it made.

    Args:
        checkpoint: A checkpoint with `GIVEN`, of which the states are still to be loaded.
    """

    def __init__(self, checkpoint: dict[str, Any]) -> None:
        self._checkpoint = checkpoint
        self._before: dict[str, Any] = checkpoint[GIVEN]
        self._options: list[set[str]] = []
        self._schedule = False

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> "Resumption | None":
        """The resumption from a checkpoint; None if it does not say what was given, as former ones do not.

        Args:
            checkpoint: The checkpoint.
        """
        return cls(checkpoint) if GIVEN in checkpoint else None

    def prepare(self, live: Optimization, where: str) -> None:
        """Compare with what is given now, before the states are loaded.

        Args:
            live: The optimizer and the scheduler that continue.
            where: The checkpoint's name, for the message.

        Raises:
            UserError: If the optimizer has another type, or other groups.
        """
        self._check_optimizer(live, where)
        before, now = self._before, live.given
        self._options = [
            {name for name in new if name not in old or not _same(old[name], new[name])}
            for old, new in zip(before["options"], now["options"], strict=True)
        ]
        self._schedule = not _same(before["scheduler"], now["scheduler"])
        if self._schedule and not (isinstance(live.scheduler, ReduceLROnPlateau) and self._same_type(live)):
            # The state of another scheduler may have other keys.
            self._checkpoint["lr_schedulers"] = []

    def _check_optimizer(self, live: Optimization, where: str) -> None:
        saved = self._checkpoint["optimizer_states"][0]["param_groups"]
        # A callback may have added groups after these.
        before = [
            (len(group["params"]), options.get("name"))
            for group, options in zip(saved, self._before["options"], strict=False)
        ]
        now = [
            (len(group["params"]), options.get("name"))
            for group, options in zip(live.optimizer.param_groups, live.given["options"], strict=False)
        ]
        if self._before["optimizer"] != live.given["optimizer"] or before != now:
            raise UserError(
                where,
                "must be resumed with the same optimizer",
                f"{type(live.optimizer).__name__} with other options or groups",
                "Undo the change, or start a new run from the weights with --ckpt",
            )

    def _same_type(self, live: Optimization) -> bool:
        before, now = self._before["scheduler"], live.given["scheduler"]
        return before is not None and now is not None and bool(before["type"] == now["type"])

    def apply(
        self,
        live: Optimization,
        optimizers: OptimizerFactory,
        schedulers: SchedulerFactory | None,
        steps: Mapping[str, int],
        in_use: Sequence[Any],
    ) -> None:
        """Make the changes, after the states were loaded.

        Args:
            live: The optimizer and the scheduler that continue.
            optimizers: Built the optimizer.
            schedulers: Built the scheduler.
            steps: How often a scheduler has stepped in the run, by its interval.
            in_use: The schedulers that the trainer steps.

        Raises:
            UserError: If the new schedule has no such step.
        """
        if not self._schedule and not any(self._options):
            return
        if live.scheduler is not None and not any(scheduler is live.scheduler for scheduler in in_use):
            message = (
                "changes of optimizer and scheduler have no effect: a callback has replaced the scheduler"
            )
            warnings.warn(message, stacklevel=2)
        elif isinstance(live.scheduler, ReduceLROnPlateau):
            self._change_plateau(live)
        else:
            self._change_schedule(live, live.again(optimizers, schedulers), steps)

    def _change_schedule(self, live: Optimization, again: Optimization, steps: Mapping[str, int]) -> None:
        scheduled = _set_by_scheduler(again)
        if again.scheduler is not None:
            _advance(again.scheduler, steps[again.given["scheduler"]["interval"]])
        whole = self._schedule or any(options & scheduled for options in self._options)
        reached = group_options(again.optimizer)
        for group, new, changed in zip(live.optimizer.param_groups, reached, self._options, strict=False):
            group.update(new if whole else {name: new[name] for name in changed})
        if whole and live.scheduler is not None:
            live.scheduler.load_state_dict(again.scheduler.state_dict())

    def _change_plateau(self, live: Optimization) -> None:
        groups = zip(
            live.optimizer.param_groups,
            self._before["options"],
            live.given["options"],
            self._options,
            strict=False,
        )
        for group, old, new, changed in groups:
            reduced = group["lr"] / old["lr"] if old["lr"] else 1.0
            group.update({name: new[name] for name in changed})
            if "lr" in changed:
                group["lr"] = new["lr"] * reduced
        if self._same_type(live):
            before, now = self._before["scheduler"]["state"], live.given["scheduler"]["state"]
            changes = {name: now[name] for name in now if not _same(before.get(name), now[name])}
            live.scheduler.load_state_dict({**live.scheduler.state_dict(), **changes})


def _set_by_scheduler(made: Optimization) -> set[str]:
    """The options that a scheduler sets, by those that it has set before its first step."""
    if made.scheduler is None:
        return set()
    pairs = zip(made.given["options"], group_options(made.optimizer), strict=True)
    changed = {name for old, new in pairs for name in new if not _same(old.get(name), new[name])}
    return {"lr"} | changed


def _advance(scheduler: Any, steps: int) -> None:
    """Step a new scheduler; torch warns of steps that no step of the optimizer precedes."""
    with silenced(Silence.SCHEDULE):
        for _ in range(steps):
            try:
                scheduler.step()
            except ValueError as error:
                rule, fix = (
                    f"must be defined at step {steps}, where the run continues",
                    "Make the schedule longer",
                )
                raise UserError("scheduler", rule, Reason.of(error), fix) from error


def _same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal; containers are compared by what they hold."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
