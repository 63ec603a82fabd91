"""A Parquet folder larger than memory should allow, streamed in shuffled windows: rows/s and peak memory.

    python benchmarks/parquet.py [--rows 20000000] [--columns 20] [--folder DIR]

The files are written once, with pyarrow's own row group size, unless the folder has them already.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILE_ROWS = 2_000_000


def write(folder: Path, rows: int, columns: int) -> None:
    """Normal float32 columns and one of labels, two million rows a file."""
    random = np.random.default_rng(0)
    for i, begin in enumerate(range(0, rows, FILE_ROWS)):
        count = min(FILE_ROWS, rows - begin)
        data = {f"x{j}": random.standard_normal(count, np.float32) for j in range(columns)}
        data["y"] = random.integers(0, 2, count, np.int8)
        pq.write_table(pa.table(data), folder / f"{i:03}.parquet")


def stream(folder: Path, columns: int, batch_size: int) -> None:
    """One epoch; prints what it took, in a process of its own so that its peak is its own."""
    from polytask.data import TableColumns, TableStream

    begin = time.perf_counter()
    inputs = TableColumns([f"x{j}" for j in range(columns)])
    data = TableStream(folder, inputs, {"y": "y"}, batch_size=batch_size, shuffle=True, train=True)
    learnt = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = sum(len(batch) for batch, _ in data)
    seconds = time.perf_counter() - learnt
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert rows == data.rows
    print("| rows | learn, s | epoch, s | M rows/s | peak memory, GB | before the epoch, GB |")
    print("|---|---|---|---|---|---|")
    figures = f"{learnt - begin:.1f} | {seconds:.1f} | {rows / seconds / 1e6:.2f} | {peak / 2**20:.2f}"
    print(f"| {rows:,} | {figures} | {before / 2**20:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        steps = [(stream, (folder, options.columns, options.batch_size))]
        if not any(folder.glob("*.parquet")):
            steps.insert(0, (write, (folder, options.rows, options.columns)))
        for function, arguments in steps:
            process = context.Process(target=function, args=arguments)
            process.start()
            process.join()


if __name__ == "__main__":
    main()
