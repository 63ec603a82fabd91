"""MultiMNIST with five seeds: single tasks, the plain sum, the tuned plain sum and six weightings.

    python benchmarks/multimnist_compare.py DIR [--jobs 2]        # DIR/MNIST/raw has the IDX files

`polytask compare` on `examples/multimnist`, with fewer epochs than the paper's 100; the learning rate still
takes all of their steps down, each after a tenth of the training. What is tuned is chosen on 5,000 training
images that no run trains on; the test images are read once, at the end. A comparison that was stopped goes on
with the same arguments.
"""

import argparse
import logging
from pathlib import Path

from _table import RESULTS, write_table

from polytask.compare import Comparison, Processes, Row, Table, compare

CONFIG = Path(__file__).parents[1] / "examples" / "multimnist" / "config.yaml"
METHODS = ("equal", "uw", "gradnorm", "mgda", "pcgrad", "cagrad", "nashmtl")
SPACE = {"system.optimizer.lr": {"low": 0.01, "high": 0.2, "log": True}}
BATCH, LEVELS = 256, 10


def comparison(options: argparse.Namespace) -> Comparison:
    steps = -(-options.rows // BATCH) * options.epochs
    return Comparison(
        [CONFIG],
        METHODS,
        seeds=options.seeds,
        trials=options.trials,
        single_task=True,
        space=SPACE if options.trials > 1 else None,
        overrides=[
            f"vars.root={Path(options.root).resolve()}",
            f"vars.rows={options.rows}",
            f"vars.batch_size={BATCH}",
            f"trainer.max_epochs={options.epochs}",
            f"system.scheduler.step_size={max(1, steps // LEVELS)}",
            "system.scheduler.interval=step",
        ],
    )


def findings(table: Table) -> list[str]:
    """Which rows differ from the tuned plain sum, on which side, and what each says by itself."""
    if table.rows[0].seeds < 5:
        return []
    better = [row.method for row in table.rows if beyond(row, 1)]
    worse = [row.method for row in table.rows if beyond(row, -1)]
    return [
        f"Beyond seed noise better than the tuned plain sum on a task: {', '.join(better) or 'none'}; "
        f"worse on a task: {', '.join(worse) or 'none'}."
    ]


def beyond(row: Row, sign: int) -> bool:
    """Whether a test of the row holds on this side."""
    return any(test.p < 0.05 and sign * test.paired.difference.mean > 0 for test in row.tests.values())


def keep(table: Table, options: argparse.Namespace) -> None:
    """The table, what its columns mean and a sentence for each row, in ``results/``."""
    epochs = f"{options.epochs} epoch{'s' * (options.epochs > 1)}"
    write_table(
        "multimnist_compare",
        f"MultiMNIST, test accuracy, shortened: {epochs} of {options.rows:,} training images, "
        "where the paper has 100 epochs of 60,000",
        table.header(),
        [table.cells(row) for row in table.rows],
    )
    sentences = [f"- **{name}**: {sentence}" for name, sentence in table.sentences()]
    text = "\n\n".join([*table.notes(), *findings(table), "\n".join(sentences)])
    with (RESULTS / "multimnist_compare.md").open("a") as file:
        file.write(f"\n{text}\n")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="the folder that has MNIST/raw in it")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rows", type=int, default=55_000, help="training images; all are 55000")
    parser.add_argument("--trials", type=int, default=4, help="settings tried for each method and baseline")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--folder", type=Path, default=Path("comparisons/multimnist"))
    options = parser.parse_args()
    # It would say of every run's config that there is no GPU.
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    keep(compare(comparison(options), options.folder, Processes(options.jobs), print), options)


if __name__ == "__main__":
    main()
