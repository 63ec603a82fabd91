"""How metrics are called."""

from polytask.adapters._base import CallAdapter


class MetricsAdapter(CallAdapter):
    """How metrics are called, by position or by keyword.

    Args:
        pred_argument: The predictions' position or keyword; None leaves them out.
        target_argument: Likewise for the targets.
        input_argument: Likewise for the inputs.
        input_transforms: Applied to the inputs: a callable, a list of them, or a mapping by task.
        pred_transforms: Likewise for the predictions (``{"segmentation": Argmax()}``).
        target_transforms: Likewise for the targets.

    Raises:
        UserError: If positions leave a gap, or a transform is not callable.

    Example:
        >>> adapter = MetricsAdapter(pred_argument="preds", target_argument="target")
        >>> adapter.arguments(None, 1, 2)
        ([], {'preds': 1, 'target': 2})
    """

    @property
    def passes_inputs(self) -> bool:
        """Whether the metrics are called with the model's inputs."""
        return self._arguments.has_inputs
