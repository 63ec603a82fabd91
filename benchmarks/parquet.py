"""A folder of Parquet files streamed in shuffled windows: rows a second and peak memory.

    python benchmarks/parquet.py [--rows 20000000] [--columns 20] [--folder DIR]

The files are written first, in row groups of the size that pyarrow chooses, unless the folder has some.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _table import write_table

FILE_ROWS = 2_000_000
HEADER = ["rows", "columns", "learn, s", "epoch, s", "M rows/s", "M rows/s of processor time", "peak, GB"]


def write(folder: Path, rows: int, columns: int) -> None:
    """Normal float32 columns and one of labels, two million rows a file."""
    random = np.random.default_rng(0)
    for i, begin in enumerate(range(0, rows, FILE_ROWS)):
        count = min(FILE_ROWS, rows - begin)
        data = {f"x{j}": random.standard_normal(count, np.float32) for j in range(columns)}
        data["y"] = random.integers(0, 2, count, np.int8)
        pq.write_table(pa.table(data), folder / f"{i:03}.parquet")


def stream(folder: Path, columns: int, batch_size: int) -> list[str]:
    """One row of the table, from an epoch in a process of its own, so that its peak is its own."""
    from polytask.data import TableColumns, TableStream

    begin = time.perf_counter()
    inputs = TableColumns([f"x{j}" for j in range(columns)])
    data = TableStream(folder, inputs, {"y": "y"}, batch_size=batch_size, shuffle=True, train=True)
    learn = time.perf_counter() - begin
    begin, used = time.perf_counter(), time.process_time()
    rows = sum(len(batch) for batch, _ in data)
    epoch, used = time.perf_counter() - begin, time.process_time() - used
    assert rows == data.rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 * 1.024
    rates = f"{rows / epoch / 1e6:.2f}", f"{rows / used / 1e6:.2f}"
    return [f"{rows:,}", str(columns), f"{learn:.1f}", f"{epoch:.1f}", *rates, f"{peak:.2f}"]


def in_a_process(function, *arguments):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


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
        if not any(folder.glob("*.parquet")):
            in_a_process(write, folder, options.rows, options.columns)
        row = in_a_process(stream, folder, options.columns, options.batch_size)
    title = f"Parquet files streamed in shuffled windows of 262,144 rows, batches of {options.batch_size}"
    write_table("parquet", title, HEADER, [row])


if __name__ == "__main__":
    main()
