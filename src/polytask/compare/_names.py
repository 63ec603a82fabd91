"""The kinds of rows, and the names of the baselines."""

from typing import Final, Literal

Kind = Literal["method", "single_task", "plain_sum"]
SINGLE: Final = "single_task"
SUM: Final = "plain_sum"
