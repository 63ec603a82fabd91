"""The kinds of rows, the names of the baselines, and the files in a comparison's folder."""

from typing import Final, Literal

Kind = Literal["method", "single_task", "plain_sum"]
SINGLE: Final = "single_task"
SUM: Final = "plain_sum"
DEFINITION: Final = "comparison.yaml"
RESULTS: Final = "results.parquet"
RUNS: Final = "runs"
# In the folder of a run whose training has ended.
COST: Final = "cost.json"


def row_name(method: str, architecture: str) -> str:
    """The name of a row in remarks.

    Args:
        method: The row's method.
        architecture: The name of its model.

    Example:
        >>> row_name("single_task", "base")
        'single_task-base'
    """
    return f"{method}-{architecture}"


def candidate_name(method: str, architecture: str, task: str | None = None) -> str:
    """The name in the folders of a row; each task of the single-task models has its own.

    Args:
        method: The row's method.
        architecture: The name of its model.
        task: The task, for a single-task model.

    Example:
        >>> candidate_name("single_task", "base", "digit")
        'single_task_digit-base'
    """
    return row_name(method if task is None else f"{method}_{task}", architecture)


def trial_run(candidate: str, number: int) -> str:
    """The run of a trial.

    Args:
        candidate: A `candidate_name`.
        number: The trial's number, from 0.

    Example:
        >>> trial_run("uw-base", 0)
        'uw-base-trial0'
    """
    return f"{candidate}-trial{number}"


def seed_run(candidate: str, seed: int) -> str:
    """The run of one seed, of those that are compared.

    Args:
        candidate: A `candidate_name`.
        seed: The seed.

    Example:
        >>> seed_run("uw-base", 3)
        'uw-base-seed3'
    """
    return f"{candidate}-seed{seed}"
