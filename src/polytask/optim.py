"""Optimizers and schedulers before their parameters are known, and parameter groups."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from polytask._errors import Reason, UserError, hint
from polytask._tasks import PREFIX, TaskModules

Group = dict[str, Any]


def named_parameters(model: nn.Module, criterion: nn.Module | None = None) -> dict[str, nn.Parameter]:
    """Trainable parameters by the names that groups use.

    The model's parameters keep their names; modules stored by task lose the prefix ``task_``
    (``heads.digit.weight``); the criterion's names begin with ``weighting`` or ``criterion``.

    Args:
        model: The model.
        criterion: A criterion, which may have parameters.

    Example:
        >>> list(named_parameters(nn.Sequential(nn.Linear(2, 1))))
        ['0.weight', '0.bias']

    Raises:
        UserError: If a parameter of the model has the name of one of the criterion.
    """
    named = dict(_named(model, "", set()))
    known = {id(parameter) for parameter in named.values()}
    for name, parameter in _named(criterion, "", known) if criterion is not None else ():
        name = name if name.startswith("weighting.") else f"criterion.{name}"
        if name in named:
            raise UserError(
                "model", f"'{name}' is a parameter of the criterion too", None, "Rename the model's module"
            )
        named[name] = parameter
    return named


def _named(module: nn.Module, prefix: str, known: set[int]) -> Iterator[tuple[str, nn.Parameter]]:
    """Trainable parameters, each once, their names without the prefix of modules stored by task."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.requires_grad and id(parameter) not in known:
            known.add(id(parameter))
            yield prefix + name, parameter
    by_task = isinstance(module, TaskModules)
    for name, child in module.named_children():
        yield from _named(child, f"{prefix}{name.removeprefix(PREFIX) if by_task else name}.", known)


def parameter_groups(
    model: nn.Module,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    criterion: nn.Module | None = None,
) -> list[Group]:
    """Parameter groups for an optimizer, chosen by dotted prefixes of parameter names.

    A parameter belongs to the group with the longest prefix of its name. All other parameters
    form the group ``rest``, which comes first and has the optimizer's own options.

    Args:
        model: The model; ``backbone``, ``heads.digit`` and the like are prefixes of its names.
        groups: Options such as ``lr`` by prefix; ``weighting`` and ``criterion`` mean the
            criterion's parameters.
        criterion: A criterion, which may have parameters.

    Raises:
        UserError: If groups or options are no mapping, a prefix fits no parameter, or nothing is
            trainable.

    Example:
        >>> model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> [(g["name"], g.get("lr")) for g in parameter_groups(model, {"backbone": {"lr": 1e-4}})]
        [('rest', None), ('backbone', 0.0001)]
    """
    named = named_parameters(model, criterion)
    if not named:
        raise UserError("optimizer", "requires parameters to train", "none that requires a gradient")
    groups = {} if groups is None else groups
    _check_groups(groups)
    rest: list[nn.Parameter] = []
    chosen: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in groups}
    for name, parameter in named.items():
        fitting = [prefix for prefix in groups if f"{name}.".startswith(f"{prefix}.")]
        (chosen[max(fitting, key=len)] if fitting else rest).append(parameter)
    for prefix in groups:
        if not any(f"{name}.".startswith(f"{prefix}.") for name in named):
            raise UserError(
                f"optimizer.groups.{prefix}",
                "must be a prefix of parameter names",
                "no trainable parameter with this prefix",
                hint(prefix, _prefixes(named)),
            )
    first = [{"params": rest, "name": "rest"}] if rest else []
    return first + [
        {"params": parameters, "name": prefix, **groups[prefix]}
        for prefix, parameters in chosen.items()
        if parameters
    ]


def _check_groups(groups: Any) -> None:
    if not isinstance(groups, Mapping):
        rule = "must be a mapping from a prefix of parameter names to options"
        raise UserError("optimizer.groups", rule, repr(groups), "Write for example {backbone: {lr: 1e-4}}")
    for prefix, options in groups.items():
        _check_options(options, f"optimizer.groups.{prefix}")


def _check_options(options: Any, where: str) -> None:
    if not isinstance(options, Mapping):
        raise UserError(where, "must be a mapping of options", repr(options), "Write for example {lr: 1e-4}")
    for option in {"params", "name"} & options.keys():
        raise UserError(f"{where}.{option}", "must not be an option: the group sets it", None, "Remove it")


def _prefixes(names: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        found.update({".".join(parts[:i]): None for i in range(1, min(len(parts), 3))})
    return list(found)


class OptimizerFactory:
    """An optimizer without its parameters, with options by group.

    Args:
        build: From a list of parameter groups to an optimizer, such as
            ``functools.partial(torch.optim.AdamW, lr=1e-3)``.
        groups: Options by prefix of parameter names, see `parameter_groups`.

    Raises:
        UserError: If ``build`` is not callable.

    Example:
        >>> import functools, torch
        >>> factory = OptimizerFactory(functools.partial(torch.optim.SGD, lr=0.1))
        >>> factory.optimizer(nn.Linear(2, 1)).param_groups[0]["lr"]
        0.1
    """

    def __init__(
        self,
        build: Callable[[list[Group]], Optimizer],
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        if not callable(build):
            raise UserError("optimizer", "must be a callable from parameters to an optimizer", repr(build))
        self.build = build
        self.groups = groups

    @classmethod
    def of(cls, optimizer: Any) -> "OptimizerFactory | None":
        """The factory itself, a factory of the given callable, or None.

        Args:
            optimizer: A factory, a callable from parameter groups to an optimizer, or None.

        Raises:
            UserError: If it is an optimizer already, or not callable.
        """
        if optimizer is None or isinstance(optimizer, cls):
            return optimizer
        if isinstance(optimizer, Optimizer):
            raise UserError(
                "optimizer",
                "must be a callable from parameters to an optimizer",
                f"an {type(optimizer).__name__}",
                f"Pass functools.partial(torch.optim.{type(optimizer).__name__}, lr=...)",
            )
        return cls(optimizer)

    def optimizer(self, model: nn.Module, criterion: nn.Module | None = None) -> Optimizer:
        """The optimizer of the model's and the criterion's parameters.

        Args:
            model: The model.
            criterion: A criterion, which may have parameters.

        Raises:
            UserError: If a group fits no parameter, or an option is unknown to the optimizer.
        """
        groups = parameter_groups(model, self.groups, criterion)
        optimizer = self._built(groups)
        if not isinstance(optimizer, Optimizer):
            raise UserError("optimizer", "must build a torch.optim.Optimizer", type(optimizer).__name__)
        for group in groups:
            for option in group.keys() - {"params", "name"} - optimizer.defaults.keys():
                raise UserError(
                    f"optimizer.groups.{group['name']}.{option}",
                    f"must be an option of {type(optimizer).__name__}",
                    None,
                    hint(option, optimizer.defaults),
                )
        return optimizer

    def _built(self, groups: list[Group]) -> Optimizer:
        try:
            return self.build(groups)
        except (ValueError, TypeError) as error:
            raise UserError("optimizer", "could not be built", Reason.of(error)) from error


class SchedulerFactory:
    """A learning-rate scheduler without its optimizer, and the interval of its steps.

    Args:
        build: From an optimizer to a scheduler, such as
            ``functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1)``.
        interval: ``epoch`` or ``step`` (an optimizer step).
        monitor: The log key that a plateau scheduler monitors, such as ``val/loss/total/epoch``. Such a
            scheduler steps whenever that key is logged, regardless of the interval.

    Raises:
        UserError: If the interval is neither.

    Example:
        >>> import functools, torch
        >>> factory = SchedulerFactory(functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1))
        >>> scheduler = factory.scheduler(torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=1.0))
        >>> scheduler.get_last_lr()
        [1.0]
    """

    def __init__(
        self,
        build: Callable[[Optimizer], Any],
        interval: Literal["epoch", "step"] = "epoch",
        monitor: str | None = None,
    ) -> None:
        if not callable(build):
            raise UserError("scheduler", "must be a callable from an optimizer to a scheduler", repr(build))
        if interval not in ("epoch", "step"):
            raise UserError("scheduler.interval", "must be 'epoch' or 'step'", repr(interval))
        self.build = build
        self.interval = interval
        self.monitor = monitor

    @classmethod
    def of(cls, scheduler: Any) -> "SchedulerFactory | None":
        """The factory itself, a factory of the given callable, or None.

        Args:
            scheduler: A factory, a callable from an optimizer to a scheduler, or None.
        """
        return scheduler if scheduler is None or isinstance(scheduler, cls) else cls(scheduler)

    def scheduler(self, optimizer: Optimizer) -> Any:
        """The scheduler of an optimizer; schedulers in its arguments (`SequentialLR`'s) are built first.

        Args:
            optimizer: The optimizer.
        """
        if not isinstance(self.build, functools.partial):
            return self.build(optimizer)
        positional = [_built(value, optimizer) for value in self.build.args]
        named = {name: _built(value, optimizer) for name, value in self.build.keywords.items()}
        if _is_first(self.build.func, "optimizer"):
            return self.build.func(optimizer, *positional, **named)
        return self.build.func(*positional, optimizer=optimizer, **named)


def _is_first(function: Callable[..., Any], argument: str) -> bool:
    """Whether an argument is the first of a function; an argument of another name may be meant by it."""
    return argument not in list(inspect.signature(function).parameters)[1:]


def _built(value: Any, optimizer: Optimizer) -> Any:
    if isinstance(value, SchedulerFactory):
        return value.scheduler(optimizer)
    if isinstance(value, list | tuple):
        return [_built(entry, optimizer) for entry in value]
    return value
