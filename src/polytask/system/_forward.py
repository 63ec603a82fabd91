"""The model's call: for all tasks at once, or for the rows of each task."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polytask._errors import Reason, UserError
from polytask.adapters import LoggingAdapter
from polytask.batch import Batch, describe


def outputs_by_task(model: nn.Module, batch: Batch, names: Sequence[str]) -> Any:
    """The model's outputs by task; as the model returns them if the tasks have no names.

    If the batch carries task ids, or is made of one batch for each task, the model is called as
    ``model(inputs, i)`` with the rows of task *i*.

    Args:
        model: The model.
        batch: The batch.
        names: All tasks, in order.

    Raises:
        UserError: If the model fails on the inputs, or returns neither a dict nor a list by task.

    Example:
        >>> batch = Batch(torch.ones(2, 3), None, 2)
        >>> list(outputs_by_task(nn.Linear(3, 1), batch, ["height"]))
        ['height']
    """
    if batch.rows is None:
        return _named(_call(model, batch.inputs), names)
    outputs = {}
    for name in batch.rows:
        output = _call(model, batch.inputs_of(name), names.index(name))
        outputs[name] = output[name] if isinstance(output, Mapping) else output
    return outputs


def predictions(outputs: Any, adapter: LoggingAdapter) -> dict[str, Any]:
    """Predictions by task: the outputs after the adapter's transforms.

    Args:
        outputs: The model's outputs by task; a single output is called ``output``.
        adapter: What is predicted of an output.

    Example:
        >>> adapter = LoggingAdapter(pred_transforms={"digit": lambda scores: scores.argmax(dim=1)})
        >>> predictions({"digit": torch.tensor([[0.1, 0.9]])}, adapter)
        {'digit': tensor([1])}
    """
    by_task = outputs if isinstance(outputs, Mapping) else {"output": outputs}
    return {name: adapter.transformed(name, None, output, None)[1] for name, output in by_task.items()}


def _call(model: nn.Module, inputs: Any, task: int | None = None) -> Any:
    try:
        return model(inputs) if task is None else model(inputs, task)
    except (UserError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise UserError(
            "model",
            f"{type(model).__name__} failed on {describe(inputs)}",
            Reason.of(error),
            "Check that the batch has the inputs that the model expects; --debug shows the traceback",
        ) from error


def _named(outputs: Any, names: Sequence[str]) -> Any:
    if isinstance(outputs, Mapping) or not names:
        return outputs
    if isinstance(outputs, Tensor) and len(names) == 1:
        return {names[0]: outputs}
    if isinstance(outputs, (list, tuple)) and len(outputs) == len(names):
        return dict(zip(names, outputs, strict=True))
    raise UserError(
        "model",
        f"must return a dict by task, or a list in the order {', '.join(names)}",
        f"{len(outputs)} outputs" if isinstance(outputs, (list, tuple)) else describe(outputs),
    )
