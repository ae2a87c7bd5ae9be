"""Four bits in the awq format: error and time of ours beside auto-round and GPTQModel, in one run.

    python benchmarks/bench_quantize.py RUN [--model medical] [--corpus articles] [--peers PYTHON]

RUN is the folder of a run with a trained model and a corpus that holds rows out, such as that of
recipes/miniature.yaml. PYTHON is an interpreter with auto-round and gptqmodel; without it ours alone
is measured. Every maker is a process of its own on one thread and calibrates on the same rows; times
are CPU seconds of the call that quantizes, with nothing of imports or loading. All results are read
by our own reader in float32, and measured on the same held-out rows. At last the peers' Transformers
loads ours with its own kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS = 64
MAKERS = {
    "plain rounding, ours": ("ours", "rounding"),
    "AWQ, ours": ("ours", "awq"),
    "auto-round, iters 0": ("peers", "auto_round 0"),
    "auto-round, iters 50": ("peers", "auto_round 50"),
    "auto-round, iters 200": ("peers", "auto_round 200"),
    "AWQ, GPTQModel": ("peers", "gptqmodel"),
}


# --- makers: each in a process of its own ---------------------------------------------------------


def make(how: str, model: Path, rows: list[list[int]], out: Path, group_size: int) -> float:
    maker, _, argument = how.partition(" ")
    return {
        "awq": make_ours,
        "rounding": make_rounding,
        "auto_round": make_auto_round,
        "gptqmodel": make_gptqmodel,
    }[maker](model, rows, out, group_size, *([int(argument)] if argument else []))


def make_ours(model: Path, rows: list[list[int]], out: Path, group_size: int) -> float:
    import torch

    from biomistral.models.checkpoints import Checkpoint
    from biomistral.quantization.streaming import open_layered, quantize_layers, write_quantized

    torch.ones(8, 8) @ torch.ones(8, 8)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as work:
        layered = open_layered(Checkpoint(model), torch.device("cpu"), group_size)
        given = [(torch.tensor(row), (len(row),)) for row in rows]
        quantize_layers(layered, given, group_size, Path(work))
        out.mkdir()
        write_quantized(layered, Path(work), out)
    seconds = time.process_time() - started
    finish(model, out, group_size)
    return seconds


def make_rounding(model: Path, rows: list[list[int]], out: Path, group_size: int) -> float:
    """Round to nearest with our code, without scales or cuts: what the searches are worth."""
    from biomistral.quantization import awq

    del rows
    awq.NUM_EXPONENTS = awq.NUM_CUTS = 1
    return make_ours(model, [list(range(3, 150))] * 2, out, group_size)


def finish(model: Path, out: Path, group_size: int) -> None:
    from biomistral.models.awq import awq_config

    config = json.loads((model / "config.json").read_text())
    config |= {"quantization_config": awq_config(group_size), "dtype": "float16"}
    (out / "config.json").write_text(json.dumps(config))


def make_auto_round(
    model: Path, rows: list[list[int]], out: Path, group_size: int, iterations: int
) -> float:
    import torch
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    length = min(map(len, rows))
    data = [torch.tensor([row[:length]]) for row in rows]
    started = time.process_time()
    maker = AutoRound(
        plain,
        AutoTokenizer.from_pretrained(model),
        scheme="W4A16",
        sym=False,
        group_size=group_size,
        iters=iterations,
        dataset=torch.utils.data.DataLoader(data, batch_size=None),
        nsamples=len(rows),
        seqlen=length,
        batch_size=8,
        device_map="cpu",
        enable_torch_compile=False,
    )
    maker.quantize_and_save(str(out), format="auto_awq")
    return time.process_time() - started


def make_gptqmodel(model: Path, rows: list[list[int]], out: Path, group_size: int) -> float:
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    from gptqmodel.quantization import FORMAT, METHOD

    config = QuantizeConfig(
        bits=4, group_size=group_size, method=METHOD.AWQ, format=FORMAT.GEMM, sym=False
    )
    loaded = GPTQModel.load(str(model), config)
    data = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
    started = time.process_time()
    loaded.quantize(data, batch_size=1, backend=BACKEND.AWQ_TORCH)
    seconds = time.process_time() - started
    loaded.save(str(out))
    return seconds


def load_in_peers(folder: Path, ids: list[int]) -> list[float]:
    """Logits of the last token by Transformers with the kernels of gptqmodel."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, device_map="cpu", dtype=torch.bfloat16
    )
    kinds = {type(module).__name__ for module in model.modules() if "wq" in type(module).__name__}
    print("layers:", sorted(kinds), file=sys.stderr)
    with torch.no_grad():
        found: list[float] = model(torch.tensor([ids])).logits[0, -1].float().tolist()
    return found


# --- measuring ------------------------------------------------------------------------------------


def child(python: str, **task: Any) -> Any:
    threads = {"OMP_NUM_THREADS": "1", "GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1"}
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [python, __file__, "--child", json.dumps(task, default=str)],
        env={**os.environ, **threads, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(*done.stderr.splitlines()[-6:], sep="\n")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, rows: list[Any], exact: Any) -> dict[str, float]:
    import torch

    from biomistral.models.awq import load_awq_model
    from biomistral.quantization.quality import compare_losses, row_losses

    variant = load_awq_model(folder, "float32")
    found = compare_losses(exact["losses"], row_losses(variant, rows))
    with torch.no_grad():
        logits = torch.cat([variant(ids[None]).logits[0] for ids, _ in rows])
    error = (logits - exact["logits"]).norm() / exact["logits"].norm()
    return {**found, "logit_error": float(error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--model", default="medical")
    parser.add_argument("--corpus", default="articles")
    parser.add_argument("--peers", help="an interpreter with auto-round and gptqmodel")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        task = options.child
        if "load" in task:
            print(json.dumps(load_in_peers(task["load"], task["ids"])))
        else:
            seconds = make(
                task["how"],
                Path(task["model"]),
                task["rows"],
                Path(task["out"]),
                task["group_size"],
            )
            print(json.dumps(seconds))
        return
    if options.run is None:
        parser.error("name the folder of a run: that of recipes/miniature.yaml will do")
    compare(options)


def compare(options: argparse.Namespace) -> None:
    import torch

    from biomistral.models.awq import load_awq_model
    from biomistral.models.loading import load_model
    from biomistral.models.rows import PackedRows
    from biomistral.quantization.quality import row_losses

    model, tokens = options.run / "model" / options.model, options.run / "tokens" / options.corpus
    trained, kept = PackedRows(tokens, "train"), PackedRows(tokens, "held_out")
    step = max(1, len(trained) // ROWS)
    calibration = [
        trained[i][0][: sum(trained[i][1])].tolist() for i in range(0, len(trained), step)
    ]
    calibration = [row for row in calibration if len(row) >= 128][:ROWS]
    rows = [(torch.from_numpy(ids[: sum(lengths)]), lengths) for ids, lengths in kept]
    plain = load_model(model, precision="float32", device=torch.device("cpu"))
    with torch.no_grad():
        logits = torch.cat([plain(ids[None]).logits[0] for ids, _ in rows])
    exact = {"losses": row_losses(plain, rows), "logits": logits}
    print(
        f"{len(calibration)} rows, {sum(map(len, calibration)):,} tokens; groups of {options.group_size}"
    )
    print("| maker | CPU s | perplexity | added nats per token | 95 % interval | logit error |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        for index, (name, (side, how)) in enumerate(MAKERS.items()):
            python = sys.executable if side == "ours" else options.peers
            if python is None:
                continue
            out = Path(scratch) / str(index)
            seconds = child(
                python,
                how=how,
                model=model,
                rows=calibration,
                out=out,
                group_size=options.group_size,
            )
            if seconds is None:
                print(f"| {name} | failed |")
                continue
            whole = next(out.rglob("config.json")).parent  # auto-round makes a folder of its own
            found = measure(whole, rows, exact)
            low, high = found["added_nats_per_token_low"], found["added_nats_per_token_high"]
            print(
                f"| {name} | {seconds:.1f} | {found['perplexity_after']:.3f} | "
                f"{found['added_nats_per_token']:+.4f} | {low:+.4f} to {high:+.4f} | "
                f"{found['logit_error']:.4f} |",
                flush=True,
            )
        print(
            f"The full model: perplexity {found['perplexity_before']:.3f} on {found['tokens']:,} tokens."
        )
        if options.peers:
            ours = Path(scratch) / "1"
            ids = rows[0][0].tolist()
            read = child(options.peers, load=ours, ids=ids)
            with torch.no_grad():
                own = load_awq_model(ours, "float32")(torch.tensor([ids])).logits[0, -1]
            if read is not None:
                error = float((torch.tensor(read) - own).norm() / own.norm())
                print(
                    f"Transformers with gptqmodel reads ours: logits differ by {error:.4f} (bfloat16)."
                )


if __name__ == "__main__":
    main()
