"""A 4-bit layer by its number of rows: matrix units, PyTorch's int4 kernel, tiles, and bfloat16.

    python benchmarks/bench_rows.py [--rows 1 8 16 64 128] [--repeats 9]

One thread, layers of the shapes of a 1.1B and of a 7B. The ways take turns, and before each product
512 MB of other memory are read, so that the weights are not in the processor's cache, as in a whole
model. Milliseconds of CPU time, the median of the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from bench_tiles import layer_of
from torch import Tensor

from biomistral.models import hybrid

SHAPES = ((2048, 5632), (4096, 14336), (14336, 4096))  # inputs, outputs
MOST_FOR_KERNEL = 64  # rows, of which it is slow with each


def ways(layer: hybrid.HybridLinear, weight: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return what is compared; matrix units only where the processor has them."""
    own = {"matrix units": layer._by_rows} if hybrid.rows_library() is not None else {}
    return {
        **own,
        "int4 kernel": layer._by_kernel,
        "tiles": layer._by_tiles,
        "bfloat16": lambda rows: rows @ weight.T,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 16, 64, 128])
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    other = torch.ones(2**27)  # 512 MB
    for inputs, outputs in SHAPES:
        compared = ways(layer_of(inputs, outputs), torch.randn(outputs, inputs).bfloat16())
        if inputs == SHAPES[0][0]:
            print("| layer | rows | " + " | ".join(compared) + " |")
            print("|---|---:|" + "---:|" * len(compared))
        for number in arguments.rows:
            rows = torch.randn(number, inputs).bfloat16()
            found: dict[str, list[float]] = {name: [] for name in compared}
            for _ in range(arguments.repeats):
                for name, product in compared.items():
                    if name == "int4 kernel" and number > MOST_FOR_KERNEL:
                        continue
                    other.sum()
                    started = time.process_time()
                    product(rows)
                    found[name].append(1000 * (time.process_time() - started))
            cells = (f"{statistics.median(each):.2g}" if each else "" for each in found.values())
            print(f"| {inputs:,} to {outputs:,} | {number} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
