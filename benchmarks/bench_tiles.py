"""How many outputs of a 4-bit layer to write out at once: one layer of the shape of a 7B.

    python benchmarks/bench_tiles.py [--threads 1 2] [--rows 512] [--repeats 5]

For each number of threads the layer (4,096 inputs and 14,336 outputs, and the other way round) is
multiplied with tiles of several sizes, which take turns; beside it the same product in bfloat16.
Milliseconds of the process's CPU time over all threads, the least of the repeats.
"""

from __future__ import annotations

import argparse
import time

import torch

from biomistral.models import hybrid
from biomistral.models.awq import PackedLinear, pack_linear

SHAPES = ((4096, 14336), (14336, 4096))  # inputs, outputs
TILES = (64, 128, 256, 512, 1024)
GROUP = 128


def layer_of(inputs: int, outputs: int) -> hybrid.HybridLinear:
    """Return a layer of random levels."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(16, (outputs, inputs), generator=generator, dtype=torch.uint8)
    zeros = torch.full((outputs, inputs // GROUP), 8, dtype=torch.uint8)
    scales = torch.full(zeros.shape, 0.01)
    layer = hybrid.hybrid_of(PackedLinear(**pack_linear(levels, zeros, scales)))
    if layer is None:
        raise SystemExit("PyTorch has no int4 kernel here")
    return layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    hybrid.rows_library = lambda: None  # matrix units need no tiles
    print("| threads | layer | bfloat16 | " + " | ".join(f"tile {tile}" for tile in TILES) + " |")
    print("|---:|---|---:|" + "---:|" * len(TILES))
    for inputs, outputs in SHAPES:
        layer = layer_of(inputs, outputs)
        weight = torch.randn(outputs, inputs).bfloat16()
        rows = torch.randn(arguments.rows, inputs).bfloat16()
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            found = {key: float("inf") for key in (0, *TILES)}
            for _ in range(arguments.repeats):
                for tile in (0, *TILES):
                    hybrid._TILE_OUTPUTS = tile or hybrid._TILE_OUTPUTS
                    started = time.process_time()
                    _ = layer(rows) if tile else rows @ weight.T
                    found[tile] = min(found[tile], time.process_time() - started)
            cells = " | ".join(f"{found[key] * 1000:.0f}" for key in (0, *TILES))
            print(f"| {threads} | {inputs:,} to {outputs:,} | {cells} |", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
