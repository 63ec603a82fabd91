"""What is written of predictions."""

from polytask.adapters._base import TransformAdapter


class LoggingAdapter(TransformAdapter):
    """What is written of inputs, predictions and targets, for example in ``predictions/``.

    Args:
        input_transforms: Applied to the inputs: a callable, a list of them, or a mapping by task.
        pred_transforms: Likewise for the predictions.
        target_transforms: Likewise for the targets.

    Raises:
        UserError: If a transform is not callable.

    Example:
        >>> import torch
        >>> adapter = LoggingAdapter(pred_transforms={"digit": lambda scores: scores.argmax(dim=1)})
        >>> adapter.transformed("digit", None, torch.tensor([[0.1, 0.9]]), None)[1]
        tensor([1])
    """
