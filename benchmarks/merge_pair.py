"""Make checkpoints to measure merging with: Mistral-shaped, random weights, in bfloat16.

    python benchmarks/merge_pair.py FOLDER --size 1b|7b [--models 2]

The first is normal noise of deviation 0.02, each further one the first plus noise of 3 % of that,
which is about what continued pre-training changes. Files of about 1 GB, an index, no tokenizer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from biomistral.models.safetensors_files import TensorSpec
from biomistral.models.writing import CheckpointWriter, write_config

SIZES = {
    "tiny": {"hidden": 256, "intermediate": 704, "layers": 5, "heads": 8, "kv_heads": 4},
    "1b": {"hidden": 2048, "intermediate": 5632, "layers": 22, "heads": 32, "kv_heads": 4},
    "7b": {"hidden": 4096, "intermediate": 14336, "layers": 32, "heads": 32, "kv_heads": 8},
}
VOCABULARY = 32_000
BLOCK = 1 << 22


def specs(size: str) -> list[TensorSpec]:
    s = SIZES[size]
    h, kv = s["hidden"], s["hidden"] // s["heads"] * s["kv_heads"]
    shapes: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (VOCABULARY, h))]
    for layer in range(s["layers"]):
        at = f"model.layers.{layer}"
        shapes += [
            (f"{at}.input_layernorm.weight", (h,)),
            (f"{at}.mlp.down_proj.weight", (h, s["intermediate"])),
            (f"{at}.mlp.gate_proj.weight", (s["intermediate"], h)),
            (f"{at}.mlp.up_proj.weight", (s["intermediate"], h)),
            (f"{at}.post_attention_layernorm.weight", (h,)),
            (f"{at}.self_attn.k_proj.weight", (kv, h)),
            (f"{at}.self_attn.o_proj.weight", (h, h)),
            (f"{at}.self_attn.q_proj.weight", (h, h)),
            (f"{at}.self_attn.v_proj.weight", (kv, h)),
        ]
    shapes += [("model.norm.weight", (h,)), ("lm_head.weight", (VOCABULARY, h))]
    return [TensorSpec(name, shape, "bfloat16") for name, shape in shapes]


def config(size: str) -> dict[str, object]:
    s = SIZES[size]
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": s["hidden"],
        "intermediate_size": s["intermediate"],
        "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv_heads"],
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def make(folder: Path, size: str, num_models: int) -> list[Path]:
    """Write the checkpoints unless they are there; return their folders."""
    folders = [folder / f"{size}-{index}" for index in range(num_models)]
    for index, out in enumerate(folders):
        if (out / "config.json").is_file():
            continue
        out.mkdir(parents=True, exist_ok=True)
        writer = CheckpointWriter(out, specs(size), max_shard_bytes=1_000_000_000)
        for place, spec in enumerate(specs(size)):
            writer.write_blocks(spec.name, values(spec, place, index))
        write_config(out, config(size), "bfloat16")
        print(f"made {out}", flush=True)
    return folders


def values(spec: TensorSpec, place: int, index: int) -> Iterator[Tensor]:
    """Yield blocks of one tensor; the noise is cut from one long draw, which is made once."""
    start = 1.0 if len(spec.shape) == 1 else 0.0
    for at in range(0, spec.num_elements, BLOCK):
        num = min(BLOCK, spec.num_elements - at)
        base = noise(place * 131 + at // BLOCK, num) * 0.02 + start
        if index:
            base = base.to(torch.bfloat16).float()
            base += noise(7919 * index + place * 137 + at // BLOCK, num) * 0.0006
        yield base.to(torch.bfloat16)


_draw: list[Tensor] = []


def noise(which: int, num: int) -> Tensor:
    """Return standard normal numbers: a window into 8 million of them, moved and turned by ``which``."""
    if not _draw:
        _draw.append(torch.randn(2 * BLOCK, generator=torch.Generator().manual_seed(1)))
    offset = which * 104_729 % BLOCK
    return _draw[0][offset : offset + num]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--models", type=int, default=2)
    given = parser.parse_args()
    make(given.folder, given.size, given.models)
