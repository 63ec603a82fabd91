"""Mean ROC-AUC of the twelve tasks over seeds, each with a split and a start of its own.

python examples/tox21/seeds.py FILE [--seeds 5] [key=value ...]
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = Path(__file__).with_name("config.yaml")


def auroc(run: Path, words: list[str]) -> dict[str, float]:
    """Train once and test the best checkpoint; the ROC-AUC by task."""
    for command, more in (("fit", []), ("test", ["--ckpt", "best"])):
        call = [sys.executable, "-m", "polytask", command, str(CONFIG), *words, "--run-dir", str(run), *more]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr.strip())
    with (run / "test" / "metrics.csv").open() as file:
        values = list(csv.DictReader(file))[-1]
    return {key.split("/")[1]: float(value) for key, value in values.items() if "/AUROC/" in key}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="key=value")
    options = parser.parse_intermixed_args()
    found = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            words = [f"vars.file={options.file.absolute()}", f"seed={seed}", f"vars.split={seed}"]
            found.append(auroc(Path(folder, "run"), [*words, *options.overrides]))
        print(f"seed {seed}: {statistics.mean(found[-1].values()):.4f}", flush=True)
    for task in found[0]:
        print(f"{task:14} {statistics.mean(values[task] for values in found):.4f}")
    means = [statistics.mean(values.values()) for values in found]
    deviation = statistics.stdev(means) if len(means) > 1 else 0.0
    print(f"mean ROC-AUC over {len(means)} seeds: {statistics.mean(means):.4f} ± {deviation:.4f}")


if __name__ == "__main__":
    main()
