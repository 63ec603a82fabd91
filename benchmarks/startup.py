"""What polytask costs before it does its work: CPU seconds, user and system, of whole processes.

``check``, ``fit`` to the first step, and `polytask.load` with a first prediction, next to importing torch and
Lightning; interleaved, and written to ``results/``.

    python benchmarks/startup.py [--rounds 10]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _table import write_table

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
# The process ends when the first optimizer step is made.
FIT = """
import os, sys
import polytask.cli
from torch.optim import AdamW
step = AdamW.step
def stop(self, closure=None):
    step(self, closure)
    os._exit(0)
AdamW.step = stop
polytask.cli.main(sys.argv[1:])
"""
LOAD = """
import sys
import numpy as np
import polytask
polytask.load(sys.argv[1]).predict(np.zeros(eval(sys.argv[2]), dtype=np.float32))
"""


def project(folder: Path) -> Path:
    """The project that ``polytask init`` writes."""
    polytask(["init", str(folder / "new")])
    return folder / "new"


def polytask(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "polytask", *arguments], check=True, stdout=subprocess.DEVNULL)


def programs(folder: Path) -> dict[str, list[str]]:
    """What is measured in CPU seconds."""
    new, digits = project(folder), str(DIGITS / "config.yaml")
    for name, config in (("digits", digits), ("new", str(new / "config.yaml"))):
        polytask(["fit", config, "trainer.max_epochs=1", "--quiet", "--run-dir", str(folder / f"run-{name}")])
    return {
        "import torch": ["-c", "import torch"],
        "import pytorch_lightning": ["-c", "import pytorch_lightning"],
        "polytask --help": ["-m", "polytask", "--help"],
        "polytask check examples/digits/config.yaml": ["-m", "polytask", "check", digits],
        "polytask fit examples/digits/config.yaml, to the first step": ["-c", FIT, "fit", digits, "--quiet"],
        "polytask.load and a prediction, the project of `polytask init`": [
            *("-c", LOAD, str(folder / "run-new"), "(1, 32)"),
        ],
        "polytask.load and a prediction, examples/digits": [
            *("-c", LOAD, str(folder / "run-digits"), "(1, 1, 8, 8)"),
        ],
    }


def cpu_seconds(arguments: list[str], folder: Path) -> float:
    before = os.times()
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = programs(folder)
        for arguments in found.values():
            cpu_seconds(arguments, folder)  # compiles what is not compiled yet
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, arguments in found.items():
                times[name].append(cpu_seconds(arguments, folder))
    median = {name: statistics.median(values) for name, values in times.items()}
    torch, lightning = median["import torch"], median["import pytorch_lightning"]
    rows = [
        [
            name,
            f"{median[name]:.2f}",
            f"{min(values):.2f}-{max(values):.2f}",
            f"{median[name] / torch:.2f}",
            f"{median[name] - lightning:+.2f}",
        ]
        for name, values in times.items()
    ]
    title = f"CPU seconds of a whole process, median of {rounds} interleaved rounds"
    header = ["process", "median", "min-max", "times `import torch`", "minus `import pytorch_lightning`"]
    write_table("startup", title, header, rows)


if __name__ == "__main__":
    main()
