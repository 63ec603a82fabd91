"""What fit, validate and test print."""

import io
import re

from rich.console import Console

from polytask.cli._run_commands import results_table


def test_the_table_has_a_row_for_each_task_and_a_column_for_each_metric():
    values = {
        "test/loss/low/epoch": 0.5,
        "test/loss/high/epoch": 1.5,
        "test/loss/total/epoch": 2.0,
        "test/low/Accuracy/epoch": 0.25,
        "test/high/F1Score/epoch": float("nan"),
        "test/noisy/loss/low/epoch": 3.0,
        "test/noisy/low/Accuracy/epoch": 0.125,
        "val/loss/low/epoch": 9.0,
        "test/loss/low/step": 9.0,
        "lr": 9.0,
    }
    text = io.StringIO()
    Console(file=text, width=60).print(results_table(values, "test", ["low", "high"]))
    cells = [
        re.split(r"\s*[│┃]\s*", line)[1:-1] for line in text.getvalue().splitlines() if re.match("[│┃]", line)
    ]
    assert cells == [
        ["test", "loss", "Accuracy", "F1Score"],
        ["low", "0.5000", "0.2500", ""],
        ["high", "1.5000", "", "–"],
        ["total", "2.0000", "", ""],
        ["noisy/low", "3.0000", "0.1250", ""],
    ]
