"""Folders of runs and comparisons as training leaves them, with numbers made up."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from polytask.compare import Result

TASKS = ("digit", "parity")
CONFIG = {"seed": 0, "system": {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.001}}}


def write_parquet(file: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), file)


def write_metrics(folder: Path, tasks: Sequence[str], seed: int, epochs: int = 6) -> None:
    draw = np.random.default_rng(seed)
    header = ["epoch", "step"]
    for task in tasks:
        header += [f"train/loss/{task}/step", f"weights/{task}", f"train/loss/{task}/epoch"]
        header += [f"val/loss/{task}/epoch", f"val/{task}/Accuracy/epoch"]
    header += ["train/loss/total/step", "val/loss/total/epoch"]
    rows = []
    for epoch in range(epochs):
        for step in range(epoch * 40 + 9, epoch * 40 + 40, 10):
            row: dict[str, Any] = {"step": step, "train/loss/total/step": 2.0 / (1 + step / 50)}
            for place, task in enumerate(tasks):
                row[f"train/loss/{task}/step"] = (1 + place) / (1 + step / 50) + 0.02 * draw.random()
                row[f"weights/{task}"] = 1 + 0.5 * place * (1 - 1 / (1 + step / 90)) + 0.05 * draw.random()
            rows.append(row)
        step = epoch * 40 + 39
        row = {"epoch": epoch, "step": step, "val/loss/total/epoch": 2.0 / (1 + step / 50)}
        for place, task in enumerate(tasks):
            row[f"train/loss/{task}/epoch"] = (1 + place) / (1 + step / 50)
            row[f"val/loss/{task}/epoch"] = (1.1 + place) / (1 + step / 60) + 0.05 * draw.random()
            row[f"val/{task}/Accuracy/epoch"] = (
                0.95 - (0.5 + 0.1 * place) / (1 + step / 40) - 0.02 * draw.random()
            )
        rows.append(row)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_gradients(
    folder: Path, tasks: Sequence[str], seed: int, steps: int = 12, groups: Sequence[str] = ("shared",)
) -> None:
    draw = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("step", "epoch", "group", "task", "other", "inner")
    }
    for step in range(0, 20 * steps, 20):
        for group in groups:
            rows = draw.normal(size=(len(tasks), 12)) / (1 + step / 100) + np.linspace(-0.3, 0.7, 12)
            for first, task in enumerate(tasks):
                for second in range(first, len(tasks)):
                    values = (step, step // 40, group, task, tasks[second], float(rows[first] @ rows[second]))
                    for name, value in zip(columns, values, strict=True):
                        columns[name].append(value)
    write_parquet(folder / "records" / "gradients.parquet", columns)


def write_affinity(folder: Path, tasks: Sequence[str], seed: int, steps: int = 4) -> None:
    draw = np.random.default_rng(seed)
    rows = [
        (step, 0, form, task, other, float(0.02 * draw.normal() + 0.05 * (task == other)))
        for step in range(steps)
        for form in ("lookahead", "first_order")
        for task in tasks
        for other in tasks
    ]
    names = ("step", "epoch", "form", "task", "other", "affinity")
    write_parquet(
        folder / "records" / "affinity.parquet", dict(zip(names, zip(*rows, strict=True), strict=True))
    )


def write_weights(
    folder: Path, tasks: Sequence[str], factors: Mapping[str, float] | None = None, steps: int = 12
) -> None:
    """The weighting's own weights, and those times ``loss_weights``."""
    rows = []
    for step in range(0, 20 * steps, 20):
        for place, task in enumerate(tasks):
            own = 1 + 0.5 * place * (1 - 1 / (1 + step / 90))
            rows.append((step, step // 40, task, own, own * (factors or {}).get(task, 1.0)))
    names = ("step", "epoch", "task", "weight", "effective_weight")
    write_parquet(
        folder / "records" / "weights.parquet", dict(zip(names, zip(*rows, strict=True), strict=True))
    )


def write_run(
    folder: Path,
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    config: Mapping[str, Any] = CONFIG,
    records: bool = True,
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "seed": seed}, sort_keys=False))
    write_metrics(folder, tasks, seed)
    if records:
        write_gradients(folder, tasks, seed)
        write_affinity(folder, tasks, seed)
    return folder


def results(tasks: Sequence[str], methods: Sequence[str], seeds: int) -> list[Result]:
    draw = np.random.default_rng(7)
    kinds: dict[str, Any] = {**dict.fromkeys(methods, "method"), "plain_sum": "plain_sum"}
    found = [
        Result(
            method, "base", kind, seed, task, "Accuracy", 0.8 + 0.1 * draw.random(), True, "test", 1.5 + seed,
            100.0, f"runs/{method}-base-seed{seed}",
        )
        for method, kind in kinds.items()
        for seed in range(seeds)
        for task in tasks
    ]  # fmt: skip
    return found + [
        Result(
            "single_task", "base", "single_task", seed, task, "Accuracy", 0.86 + 0.01 * draw.random(),
            True, "test", 1.0, 100.0, f"runs/single_task_{task}-base-seed{seed}",
        )
        for seed in range(seeds)
        for task in tasks
    ]  # fmt: skip


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """The file of a comparison's results, which may have no rows."""
    shape = Result("", "", "method", 0, "", "", 0.0, True, "test", 0.0, 0.0, "")
    rows = pa.Table.from_pylist([asdict(row) for row in (*results, shape)]).slice(0, len(results))
    pq.write_table(rows, folder / "results.parquet")


def write_comparison(
    folder: Path,
    tasks: Sequence[str] = TASKS,
    methods: Sequence[str] = ("equal", "uw", "pcgrad"),
    seeds: int = 2,
) -> Path:
    folder.mkdir(parents=True)
    losses = {task: {"_target_": "torch.nn.CrossEntropyLoss"} for task in tasks}
    definition = {
        "config": {"system": {"criterion": {"task_losses": losses}}},
        "methods": {method: [] for method in methods},
        "architectures": {"base": []},
        "seeds": list(range(seeds)),
        "trials": 2,
        "single_task": True,
    }
    (folder / "comparison.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    write_results(folder, results(tasks, methods, seeds))
    for place, method in enumerate((*methods, "plain_sum")):
        for seed in range(seeds):
            config = {"system": {"weighting": method, "optimizer": {"lr": 0.001}}}
            write_run(folder / f"runs/{method}-base-seed{seed}", tasks, seed + 10 * place, config)
    for place, task in enumerate(tasks, start=1):
        for seed in range(seeds):
            # It measures the other tasks too, on which it was not trained.
            config = {"system": {"weighting": f"single {task}", "optimizer": {"lr": 0.001}}}
            run = folder / f"runs/single_task_{task}-base-seed{seed}"
            write_run(run, tasks, seed + 100 * place, config, records=False)
    for run in (folder / "runs").iterdir():
        (run / "cost.json").write_text('{"seconds": 1.5, "peak_memory_mb": 100.0}')
    return folder
