"""Generation on a CPU: bfloat16, our 4-bit layers with and without matrix units, PyTorch's, llama.cpp.

    python benchmarks/bench_generate.py WORK [--layers 22] [--threads 1] [--repeats 3] [--llama FOLDER]
        [--result FILE.md]

A random model of the shape of TinyLlama (1.1 billion parameters; --layers makes it smaller) is kept
in bfloat16 and rounded to 4 bits (AWQ layout, group 128). Each variant is a process of its own that
measures in this order: the reading of a prompt of 512 tokens; generation of 32 tokens, one sequence
and 8 at once; the memory all this took, libraries apart; and evaluation, 32 questions of about 150 tokens. Times
are CPU times, the least of the repeats; variants take turns. The memory bandwidth and the peak of
bfloat16 matrix products are measured in the same run. --llama names the folder of llama.cpp's programs
(llama-bench, llama-batched-bench, llama-quantize); they get the same weights as GGUF files of three
types. Their times are by the clock, so nothing else should run.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
    "max_position_embeddings": 2048,
}
GROUP = 128
PROMPT, NEW, BATCH = 512, 32, 8
VARIANTS = ("bfloat16", "hybrid", "tiles", "kernel")  # tiles: hybrid where there is no AMX


# --- the models -----------------------------------------------------------------------------------


def make_models(work: Path, layers: int) -> tuple[Path, Path]:
    """Write the model in bfloat16 and in 4 bits, with a tokenizer of made-up words."""
    plain, packed = work / f"plain-{layers}", work / f"awq-{layers}"
    if (packed / "done").exists():
        return plain, packed
    import torch
    from safetensors.torch import save_file
    from transformers import MistralConfig, MistralForCausalLM

    from biomistral.models.awq import LEVELS, awq_config, pack_linear

    torch.manual_seed(0)
    config = MistralConfig(**SHAPE, num_hidden_layers=layers, sliding_window=None)
    torch.set_default_dtype(torch.bfloat16)
    model = MistralForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(plain)
    make_tokenizer().save_pretrained(plain)
    tensors = {}
    for name, weight in model.state_dict().items():
        if not (name.endswith("_proj.weight") and ".layers." in name):
            tensors[name] = weight.half().contiguous()
            continue
        groups = weight.float().unflatten(1, (-1, GROUP))  # (N, G, g)
        low, high = groups.amin(-1), groups.amax(-1)
        scales = ((high - low) / (LEVELS - 1)).half()
        zeros = (-low / scales.float()).round().clamp(0, LEVELS - 1)
        levels = (groups / scales.float()[..., None]).round() + zeros[..., None]
        levels = levels.clamp(0, LEVELS - 1).flatten(1)
        for part, tensor in pack_linear(
            levels.to(torch.uint8), zeros.to(torch.uint8), scales
        ).items():
            tensors[f"{name.removesuffix('weight')}{part}"] = tensor
    packed.mkdir(exist_ok=True)
    save_file(tensors, packed / "model.safetensors", {"format": "pt"})
    described = json.loads((plain / "config.json").read_text())
    described["quantization_config"] = awq_config(GROUP)
    (packed / "config.json").write_text(json.dumps(described))
    make_tokenizer().save_pretrained(packed)
    (packed / "done").touch()
    return plain, packed


def make_tokenizer() -> Any:
    from biomistral.models.fresh import train_tokenizer

    return train_tokenizer([" ".join(f"w{n * n}" for n in range(3000))] * 2, 2000)


# --- one variant, in a process of its own ---------------------------------------------------------


def least(call: Callable[[], object], repeats: int) -> float:
    """CPU seconds of a call, of all its threads, the least of some."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)


def limits(threads: int) -> dict[str, float]:
    """Bytes a second that are read, and operations a second of a large matrix product."""
    import torch

    torch.set_num_threads(threads)
    large = torch.zeros(2**28)  # 1 GiB, touched
    bandwidth = large.numel() * 4 / least(large.sum, 5)
    left, right = torch.randn(1024, 4096).bfloat16(), torch.randn(4096, 4096).bfloat16()
    peak = 2 * 1024 * 4096 * 4096 / least(lambda: left @ right.T, 5)
    return {"bandwidth": bandwidth, "peak": peak}


def resident() -> tuple[int, int]:
    """Bytes in use by this process, what was freed given back to the system; and the most there were."""
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    now, most = (
        next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))
        for key in ("VmRSS:", "VmHWM:")
    )
    return now, most


def measure(folder: Path, variant: str, threads: int, repeats: int) -> dict[str, float]:
    import torch

    from biomistral.models import hybrid
    from biomistral.models.continuations import TextEncoder
    from biomistral.models.generating import Engine, Sampling
    from biomistral.models.loading import load_model, load_tokenizer
    from biomistral.models.scoring import score_requests
    from biomistral.records import Request

    torch.set_num_threads(threads)
    if variant in ("tiles", "kernel"):
        hybrid.rows_library = lambda: None
    if variant == "kernel":
        hybrid.FEW_ROWS = 1 << 30
    tokenizer = load_tokenizer(folder)
    before, _ = resident()
    started = time.process_time()
    model = load_model(folder)
    found: dict[str, float] = {"load": time.process_time() - started}
    engine = Engine(model, tokenizer, max_batch=BATCH, max_tokens=BATCH * (PROMPT + NEW + 8))
    prompts = [[5 + (7 * i + n) % 1900 for n in range(PROMPT)] for i in range(BATCH)]

    def run(number: int, new: int, length: int = 16) -> None:
        sampling = Sampling(max_new_tokens=new, ignore_eos=True)
        for prompt in prompts[:number]:
            engine.submit(prompt[:length], sampling)
        engine._kept.clear()
        while engine.step():
            pass

    run(1, 2)  # whatever is made at first use
    repeats_slow = 1 if variant == "kernel" else repeats
    found["prompt"] = PROMPT / least(lambda: run(1, 1, PROMPT), repeats_slow)
    for number in (1, BATCH):
        first = least(functools.partial(run, number, 1), repeats)
        whole = least(functools.partial(run, number, 1 + NEW), repeats)
        found[f"generation_{number}"] = number * NEW / (whole - first)
    now, most = resident()
    found |= {"memory": now - before, "peak": most - before}
    requests = [
        Request(str(i), "t", "en", 0, 1, "letter", question(i), ("A", "B", "C", "D"), 0)
        for i in range(32)
    ]
    encoder = TextEncoder(tokenizer)
    tokens = score_requests(model, encoder, requests[:1]).num_prompt_tokens
    requests = requests if variant != "kernel" else requests[:4]
    found["evaluation"] = (
        len(requests)
        * tokens
        / least(lambda: score_requests(model, encoder, requests), repeats_slow)
    )
    return found


def question(index: int) -> str:
    words = " ".join(f"w{(index * 31 + n) ** 2 % 3000}" for n in range(40))
    return f"{words}\nAnswer:("


# --- llama.cpp ------------------------------------------------------------------------------------


def measure_llama(tools: Path, work: Path, plain: Path, kind: str, arguments: Any) -> Any:
    """Tokens per second of llama.cpp's own benchmarks, the best of the repeats."""
    file = work / f"{plain.name}-{kind}.gguf"
    if not file.exists():
        from biomistral.models.checkpoints import Checkpoint
        from biomistral.models.loading import load_tokenizer
        from biomistral.quantization.gguf_writing import OWN_TYPES, run_tool, write_gguf

        if kind in OWN_TYPES:
            tokenizer = load_tokenizer(plain)
            write_gguf(Checkpoint(plain), file, kind, name=plain.name, tokenizer=tokenizer)
        else:
            os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
            run_tool(work / f"{plain.name}-bf16.gguf", file, kind)
    threads, repeats = str(arguments.threads), str(arguments.repeats)
    words = [tools / "llama-bench", "-m", file, "-t", threads, "-r", repeats, "-o", "json"]
    one = json.loads(outcome([*words, "-p", str(PROMPT), "-n", str(NEW)]))
    found = {"generation_1" if run["n_gen"] else "prompt": max(run["samples_ts"]) for run in one}
    words = [tools / "llama-batched-bench", "-m", file, "-t", threads, "-c", "2048", "-npp", "16"]
    words += ["-ntg", str(NEW), "-npl", str(BATCH), "--output-format", "jsonl"]
    speeds = [json.loads(outcome(words).splitlines()[-1])["speed_tg"] for _ in range(int(repeats))]
    return {**found, f"generation_{BATCH}": max(speeds)}


def outcome(words: list[Any]) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


# --- the table ------------------------------------------------------------------------------------


def in_process(work: Path, folder: Path, variant: str, arguments: Any) -> dict[str, float]:
    words = [sys.executable, __file__, str(work), "--measure", variant, str(folder)]
    words += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[str, dict[str, float]]) -> str:
    columns = {
        "memory": ("memory, GB", 1e-9),
        "peak": ("at its peak, GB", 1e-9),
        "prompt": ("prompt, tokens/s", 1),
        "generation_1": ("generation, tokens/s", 1),
        f"generation_{BATCH}": (f"{BATCH} at once, tokens/s", 1),
        "evaluation": ("evaluation, tokens/s", 1),
        "load": ("load, s", 1),
    }
    lines = ["| | " + " | ".join(title for title, _ in columns.values()) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    base = found["bfloat16"]
    for name, row in found.items():
        cells = []
        for key, (_, scale) in columns.items():
            value = row.get(key)
            ratio = f" ({value / base[key]:.2f})" if value and name != "bfloat16" else ""
            cells.append(f"{value * scale:.2f}{ratio}" if value else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--result", type=Path)
    parser.add_argument("--measure", nargs=2)
    arguments = parser.parse_args()
    if arguments.measure:
        variant, folder = arguments.measure
        if variant == "limits":
            print(json.dumps(limits(arguments.threads)))
        else:
            print(json.dumps(measure(Path(folder), variant, arguments.threads, arguments.repeats)))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    plain, packed = make_models(arguments.work, arguments.layers)
    limit = in_process(arguments.work, plain, "limits", arguments)
    found = {}
    for variant in VARIANTS:
        folder = plain if variant == "bfloat16" else packed
        found[variant] = in_process(arguments.work, folder, variant, arguments)
        print(variant, json.dumps(found[variant]), file=sys.stderr)
    if arguments.llama:
        for kind in ("bf16", "q4_0", "q4_k_m"):
            found[f"llama.cpp {kind.upper()}"] = measure_llama(
                arguments.llama, arguments.work, plain, kind, arguments
            )
    again = in_process(arguments.work, plain, "limits", arguments)
    text = table(found) + (
        f"\n\nReading {limit['bandwidth'] / 1e9:.1f} GB/s (after: {again['bandwidth'] / 1e9:.1f}), "
        f"matrix products {limit['peak'] / 1e9:,.0f} GFLOP/s (after: {again['peak'] / 1e9:,.0f}).\n"
    )
    print(text)
    if arguments.result:
        arguments.result.write_text(text)


if __name__ == "__main__":
    main()
