"""The arguments with which a criterion or a metric is called."""

from typing import Any

from polytask._errors import UserError

Argument = int | str | None


class CallArguments:
    """Prediction, target and inputs as positional and keyword arguments.

    Args:
        pred_argument: The prediction's position or keyword; None leaves it out.
        target_argument: Likewise for the target.
        input_argument: Likewise for the inputs.
        owner: The adapter's class, for messages.

    Raises:
        UserError: If positions leave a gap, or two arguments have the same keyword.

    Example:
        >>> CallArguments("preds", 0, None, "MetricsAdapter").of("inputs", "prediction", "target")
        (['target'], {'preds': 'prediction'})
    """

    def __init__(
        self, pred_argument: Argument, target_argument: Argument, input_argument: Argument, owner: str
    ) -> None:
        given = (pred_argument, target_argument, input_argument)
        positions = sorted((key, i) for i, key in enumerate(given) if isinstance(key, int))
        self._positional = [i for _, i in positions]
        self._named = {key: i for i, key in enumerate(given) if isinstance(key, str)}
        if [key for key, _ in positions] != list(range(len(positions))):
            rule = "positions of arguments must be 0, 1, … without gaps"
            raise UserError(owner, rule, [key for key, _ in positions])
        if len(self._named) < sum(isinstance(key, str) for key in given):
            raise UserError(owner, "keywords of arguments must be unique", list(given))
        self.has_inputs = input_argument is not None

    def of(self, inputs: Any, pred: Any, target: Any) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments of a call.

        Args:
            inputs: The model's inputs.
            pred: The prediction.
            target: The target.
        """
        values = (pred, target, inputs)
        return [values[i] for i in self._positional], {name: values[i] for name, i in self._named.items()}
