"""Time and rounding of the Gramian of long float32 rows, in parts that are added up in float64.

Times are relative to one product in float32. Rounding is the largest difference from the Gramian in float64,
relative to the norms. The median of the rounds' times is printed and written to ``results/``.

    python benchmarks/inner_products.py [--rounds 15]
"""

import argparse

import torch
from _measure import DEVICE, medians
from _table import write_table
from torch import Tensor

from polytask.gradients._inner_products import product

SIZES = ((2, 8_000_000), (4, 4_000_000), (8, 2_000_000), (20, 2_000_000), (20, 100_000))


def rounding(gramian: Tensor, rows: Tensor) -> float:
    """The largest error, relative to the rows' norms."""
    exact = rows.double() @ rows.double().mT
    norms = exact.diagonal().sqrt()
    return float(((gramian.double() - exact) / torch.outer(norms, norms)).abs().max())


def main() -> None:
    """Measure each size and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    cells = []
    for tasks, values in SIZES:
        rows = torch.randn(tasks, values, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        plain = lambda rows=rows: rows @ rows.mT  # noqa: E731
        ours = lambda rows=rows: product(rows)  # noqa: E731
        times = medians({"plain": (plain, 3), "ours": (ours, 3)}, rounds)
        errors = [rounding(make(), rows) for make in (plain, ours)]
        cells.append(
            [
                str(tasks),
                f"{values:,}",
                f"{errors[0]:.1e}",
                f"{errors[1]:.1e}",
                f"{times['ours'] / times['plain']:.2f}",
            ]
        )
    columns = ["tasks", "values", "rounding of one product", "rounding in parts", "time, relative"]
    write_table("inner_products", "The Gramian of long float32 rows", columns, cells)


if __name__ == "__main__":
    main()
