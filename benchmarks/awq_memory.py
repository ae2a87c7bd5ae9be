"""Peak memory and time of AWQ on a checkpoint of the shape of Mistral 7B, with fewer layers.

    python benchmarks/awq_memory.py [--layers 2] [--rows 8] [--folder FOLDER]

Weights are random: neither time nor memory depends on their values. Memory does not grow with the
number of layers or of calibration rows, for both go from file to file; time grows with both. The
peak is told twice: of all pages, and of those that are not pages of mapped files (which the system
takes back when it needs them). Size, not quality.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
}
LAYERS_OF_7B = 32


def make_checkpoint(folder: Path, num_layers: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, MistralConfig

    from biomistral.models.safetensors_files import TensorSpec
    from biomistral.models.writing import CheckpointWriter

    config = MistralConfig(**SHAPE, num_hidden_layers=num_layers, sliding_window=None)
    config.architectures = ["MistralForCausalLM"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    folder.mkdir(parents=True)
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    specs = [TensorSpec(n, tuple(t.shape), "bfloat16") for n, t in model.state_dict().items()]
    writer = CheckpointWriter(folder, specs)
    generator = torch.Generator().manual_seed(0)
    for spec in specs:
        values = torch.empty(spec.shape, dtype=torch.bfloat16)
        if len(spec.shape) == 1:
            values.fill_(1)
        else:
            values.normal_(std=0.02, generator=generator)
        writer.write(spec.name, values)
    writer.finish()


def quantize(folder: Path, num_rows: int) -> dict[str, float]:
    import torch

    from biomistral.models.checkpoints import Checkpoint
    from biomistral.quantization.streaming import open_layered, quantize_layers, write_quantized

    generator = torch.Generator().manual_seed(1)
    rows = [
        (torch.randint(3, 32000, (2048,), generator=generator), (1000, 1048))
        for _ in range(num_rows)
    ]
    seen = _Watcher()
    started, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        work, out = Path(scratch) / "work", Path(scratch) / "out"
        work.mkdir()
        out.mkdir()
        layered = open_layered(Checkpoint(folder), torch.device("cpu"), 128)
        quantize_layers(layered, rows, 128, work)
        write_quantized(layered, work, out)
        written = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    return {
        "layers": len(layered.empty_layers),
        "tokens": 2048 * num_rows,
        "before_anonymous_mb": seen.at_start,
        "peak_anonymous_mb": seen.stop(),
        "peak_all_pages_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "written_mb": written / 2**20,
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - started,
    }


class _Watcher:
    """The highest anonymous memory of this process, looked at a hundred times a second (Linux)."""

    def __init__(self) -> None:
        self.at_start = self.highest = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        self._done.set()
        self._thread.join()
        return self.highest

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.highest = max(self.highest, self._now())

    def _now(self) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=8, help="of 2,048 tokens")
    parser.add_argument("--folder", type=Path, help="for the checkpoints (some GB)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(quantize(options.child, options.rows)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        found = []
        for num_layers in options.layers:
            folder = Path(scratch) / f"layers-{num_layers}"
            make_checkpoint(folder, num_layers)
            command = [sys.executable, __file__, "--child", folder, "--rows", str(options.rows)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print({key: round(value, 1) for key, value in found[-1].items()}, flush=True)
    if len(found) > 1:
        layers = np.diff([one["layers"] for one in found])[-1]
        cpu = np.diff([one["cpu_seconds"] for one in found])[-1] / layers
        print(
            f"one layer more: {cpu:.0f} s of CPU; {LAYERS_OF_7B} layers: {LAYERS_OF_7B * cpu / 3600:.1f} h"
        )


if __name__ == "__main__":
    main()
