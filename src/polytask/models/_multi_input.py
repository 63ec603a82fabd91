"""One encoder for each named input."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from polytask._errors import UserError, hint
from polytask._tasks import check_known
from polytask.models._argument_checks import check_mapping, check_module
from polytask.models._base import Heads, MultiTaskModel

Fusion = Literal["concat", "sum", "mean"]
_FUSE: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "concat": lambda parts: torch.cat(parts, dim=1),
    "sum": lambda parts: torch.stack(parts).sum(0),
    "mean": lambda parts: torch.stack(parts).mean(0),
}


class MultiInput(MultiTaskModel):
    r"""One encoder for each named input, a shared part behind them, and one head per task.

    ``output[t] = heads[t](shared(fuse(e_1(x_1), ..., e_n(x_n))))`` over the inputs of task *t*, in the
    encoders' order. The model takes a dict of inputs. If tasks take different inputs (images for one, a table
    for another), an input that no task of a batch takes may be missing from the batch. Inputs with the same
    encoder and rows of one shape are encoded in one call.

    Args:
        encoders: By input a module; several inputs may have the same one.
        heads: One module per task. A dict names the tasks; the tasks of a list are called ``task0``,
            ``task1`` and so on.
        shared: The part that all tasks share; None means no such part.
        fusion: How the encoders' representations become one: ``concat`` along dimension 1, ``sum`` or
            ``mean``.
        inputs: By task the inputs that it takes; all of them for the other tasks.

    Shape:
        - Input: a dict of ``(rows, ...)``, as the encoders take them.
        - Encoders return ``(rows, features, ...)``; the same features for ``sum`` and ``mean``.
        - Output: for each task, what its head returns; see `MultiTaskModel.forward`.

    Raises:
        UserError: If an encoder, the shared part or a head is not a module, a task or an input is
            unknown, or an input is not in the batch.

    Example:
        >>> import torch
        >>> from polytask.models import MLP, MultiInput, SimpleCNN
        >>> encoders = {"camera": SimpleCNN(3, 16, 8), "speed": MLP(4, [8], 16)}
        >>> heads = {"brake": torch.nn.Linear(32, 2), "steer": torch.nn.Linear(32, 1)}
        >>> model = MultiInput(encoders, heads)
        >>> batch = {"camera": torch.rand(5, 3, 8, 8), "speed": torch.rand(5, 4)}
        >>> {task: tuple(output.shape) for task, output in model(batch).items()}
        {'brake': (5, 2), 'steer': (5, 1)}
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        heads: Heads,
        shared: nn.Module | None = None,
        fusion: Fusion = "concat",
        inputs: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(heads)
        given = {name: check_module(own, f"encoders.{name}") for name, own in _filled(encoders).items()}
        # Each encoder once, whatever the names of the inputs are and however many share it.
        unique = list(dict.fromkeys(given.values()))
        self.encoders = nn.ModuleList(unique)
        self.encoder_indices = {name: unique.index(encoder) for name, encoder in given.items()}
        self.shared = nn.Identity() if shared is None else check_module(shared, "shared")
        if fusion not in _FUSE:
            rule = f"must be one of {', '.join(_FUSE)}"
            raise UserError("fusion", rule, repr(fusion), hint(str(fusion), _FUSE))
        self.fusion = fusion
        self.inputs = self._inputs(inputs or {})

    def _inputs(self, given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        check_known(check_mapping(given, "inputs"), self.task_names, "inputs")
        found = {}
        for task in self.task_names:
            named = given.get(task, tuple(self.encoder_indices))
            if isinstance(named, str) or not named:
                raise UserError(f"inputs.{task}", "must be a list of at least one input", repr(named))
            for name in named:
                if name not in self.encoder_indices:
                    fix = hint(str(name), self.encoder_indices, "Inputs")
                    raise UserError(f"inputs.{task}", "must name inputs of the model", repr(name), fix)
            found[task] = tuple(name for name in self.encoder_indices if name in named)
        return found

    def represent(self, x: Any, tasks: Sequence[str] | None = None) -> Any:
        """The output of the shared part, for each group of inputs that the tasks take.

        Args:
            x: A dict of inputs.
            tasks: The tasks it is needed for; all if None.
        """
        groups = list(dict.fromkeys(self.inputs[task] for task in tasks or self.task_names))
        encoded = self._encoded(
            x, [name for name in self.encoder_indices if any(name in group for group in groups)]
        )
        fuse = _FUSE[self.fusion]
        return {group: self.shared(fuse([encoded[name] for name in group])) for group in groups}

    def for_task(self, representation: Any, task: str) -> Any:
        """The representation of the inputs that a task takes.

        Args:
            representation: What `represent` returned.
            task: The name of one of the tasks it was computed for.
        """
        return representation[self.inputs[task]]

    def _encoded(self, x: Any, names: Sequence[str]) -> dict[str, Tensor]:
        alike: dict[tuple[int, torch.Size], list[str]] = {}
        for name in names:
            alike.setdefault((self.encoder_indices[name], _part(x, name).shape[1:]), []).append(name)
        encoded: dict[str, Tensor] = {}
        for (index, _), group in alike.items():
            encoded.update(
                zip(group, _together(self.encoders[index], [x[name] for name in group]), strict=True)
            )
        return encoded


def _together(encoder: nn.Module, parts: list[Tensor]) -> Sequence[Tensor]:
    if len(parts) == 1:
        return [encoder(parts[0])]
    encoded: Tensor = encoder(torch.stack(parts).flatten(0, 1))
    return list(encoded.reshape(len(parts), parts[0].shape[0], *encoded.shape[1:]))


def _filled(encoders: object) -> Mapping[str, nn.Module]:
    if not (given := check_mapping(encoders, "encoders")):
        raise UserError("encoders", "at least one encoder is required", "none")
    return given


def _part(x: Any, name: str) -> Tensor:
    if not isinstance(x, Mapping):
        raise UserError("inputs", f"must be a dict with '{name}'", f"a {type(x).__name__}")
    if name not in x:
        fix = hint(name, map(str, x), "In the batch")
        raise UserError("inputs", f"must be a dict with '{name}'", "a dict without it", fix)
    part: Tensor = x[name]
    return part
