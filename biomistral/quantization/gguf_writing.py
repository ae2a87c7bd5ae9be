"""A checkpoint as one GGUF file: weights, config, tokenizer and chat template.

Weights are written one tensor at a time, so no more than one is in memory. Matrices are of the type
asked for; with 4 bits the embedding and the head have 8, which costs little and is where a token is
told from another. Vectors stay float32. The library gguf knows BF16, Q8_0 and Q4_0; the K-quants are
made by llama.cpp's own tool from the BF16 file.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biomistral.errors import MissingDependencyError, ModelError, require
from biomistral.models.checkpoints import Checkpoint
from biomistral.progress import Progress, ignore
from biomistral.quantization.gguf_tokens import TokenizerFacts, tokenizer_facts

# Kind of model in Transformers -> architecture in GGUF.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
OWN_TYPES = ("bf16", "q8_0", "q4_0")
TOOL = "llama-quantize"


def write_gguf(
    original: Checkpoint,
    file: Path,
    type_: str,
    *,
    name: str,
    tokenizer: Any,
    progress: Progress = ignore,
) -> dict[str, list[float]]:
    """Write ``file`` with matrices of ``type_``, one of ``OWN_TYPES``.

    Returns the relative errors of the matrices by kind of layer.

    Raises ``ModelError`` for an architecture, a tokenizer or widths that a GGUF file cannot hold and
    for numbers that are not finite, ``MissingDependencyError`` without the library gguf.
    """
    require("gguf", extra="quantization", purpose=f"Writing {name} as GGUF")
    import gguf

    config = original.config
    architecture = _architecture(original)
    facts = tokenizer_facts(original.folder, _vocabulary_size(original))
    writer = gguf.GGUFWriter(file, architecture, use_temp_file=False)
    _add_config(writer, config, name, type_)
    _add_tokenizer(writer, facts, tokenizer)
    plan = list(_plan(original, architecture, type_))
    for _, new_name, shape, kind in plan:
        size = gguf.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(
            new_name, shape, np.dtype(np.float32), int(np.prod(size)), raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    errors: dict[str, list[float]] = {}
    for index, (old_name, _, shape, kind) in enumerate(plan):
        progress(index, len(plan), "tensors written")
        values = _values(original, old_name, architecture).reshape(shape)
        stored = gguf.quants.quantize(values, kind)
        writer.write_tensor_data(stored)
        if values.ndim > 1:
            difference = gguf.quants.dequantize(stored, kind) - values
            error = float(np.linalg.norm(difference) / (np.linalg.norm(values) or 1.0))
            errors.setdefault(old_name.split(".")[-2], []).append(error)
    writer.close()
    progress(len(plan), len(plan), "tensors written")
    return errors


def run_tool(plain: Path, file: Path, type_: str) -> None:
    """Make ``file`` of a K-quant ``type_`` from a BF16 file with llama.cpp's ``llama-quantize``.

    Raises ``MissingDependencyError`` if it is not on the PATH, ``ModelError`` if it fails.
    """
    done = subprocess.run(
        [find_tool(type_), str(plain), str(file), type_.upper()],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not file.is_file():
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise ModelError(
            f"{TOOL} {type_.upper()}: failed with status {done.returncode} ({last}); the GGUF type "
            f"may need wider rows: use type: {', '.join(OWN_TYPES)}"
        )


def find_tool(type_: str) -> str:
    """Return the path of ``llama-quantize``, or raise ``MissingDependencyError``."""
    path = shutil.which(TOOL)
    if path is None:
        raise MissingDependencyError(
            f"GGUF type {type_} needs the program {TOOL} of llama.cpp on the PATH; install llama.cpp "
            "(https://github.com/ggml-org/llama.cpp: brew install llama.cpp, or build it), or use "
            f"type: {', '.join(OWN_TYPES)}, which need no more than: pip install "
            "'biomistral[quantization]'"
        )
    return path


def plain_values(original: Checkpoint) -> Iterator[tuple[str, str, Any]]:
    """Yield name, name in the file and values in float32 of each tensor, as the file holds them."""
    architecture = _architecture(original)
    for name, new_name, _, _ in _plan(original, architecture, "bf16"):
        yield name, new_name, _values(original, name, architecture)


# --- what is written ------------------------------------------------------------------------------


def _architecture(original: Checkpoint) -> str:
    kind = str(original.config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{original.folder}: model of type {kind}: a GGUF file is known here for "
            f"{', '.join(ARCHITECTURES)} only; use llama.cpp's convert_hf_to_gguf.py"
        )
    rope = original.config.get("rope_parameters") or original.config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling != "default":
        raise ModelError(
            f"{original.folder}: its rotary frequencies are scaled ({scaling}), which is not written "
            "here; use llama.cpp's convert_hf_to_gguf.py"
        )
    return ARCHITECTURES[kind]


def _vocabulary_size(original: Checkpoint) -> int:
    rows = original.embedding_rows()
    if rows is None:
        raise ModelError(f"{original.folder}: has no embedding; fetch the checkpoint again")
    return rows


def _add_config(writer: Any, config: dict[str, Any], name: str, type_: str) -> None:
    import gguf

    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    theta = (config.get("rope_parameters") or {}).get("rope_theta") or config.get("rope_theta")
    writer.add_name(name)
    writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{type_.upper()}"))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(theta or 10_000.0)
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: Any, facts: TokenizerFacts, tokenizer: Any) -> None:
    writer.add_tokenizer_model(facts.kind)
    writer.add_tokenizer_pre(facts.pattern or "default")
    writer.add_token_list(facts.tokens)
    writer.add_token_types(facts.types)
    if facts.scores is not None:
        writer.add_token_scores(facts.scores)
        writer.add_add_space_prefix(facts.add_space_prefix)
    if facts.merges is not None:
        writer.add_token_merges(facts.merges)
    ids: dict[str, Callable[[int], None]] = {
        "bos_token_id": writer.add_bos_token_id,
        "eos_token_id": writer.add_eos_token_id,
        "unk_token_id": writer.add_unk_token_id,
        "pad_token_id": writer.add_pad_token_id,
    }
    for key, add in ids.items():
        index = getattr(tokenizer, key)
        if index is not None and index < len(facts.tokens):  # some name one past the embedding
            add(index)
    around = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(around[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(around[-1] == tokenizer.eos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _plan(
    original: Checkpoint, architecture: str, type_: str
) -> Iterator[tuple[str, str, tuple[int, ...], Any]]:
    """Yield name, new name, shape and type of each tensor; a tied head is left out."""
    import gguf

    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    names = gguf.get_tensor_name_map(arch, original.config["num_hidden_layers"])
    types = gguf.GGMLQuantizationType
    for name, stored in original.tensors.items():
        if name == "lm_head.weight" and original.config.get("tie_word_embeddings"):
            continue
        if name.endswith("rotary_emb.inv_freq"):  # old checkpoints have it; it is computed
            continue
        new_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new_name is None:
            raise ModelError(
                f"{original.folder}: the tensor {name} has no place in a GGUF file of the "
                f"architecture {architecture}; use llama.cpp's convert_hf_to_gguf.py"
            )
        kind = types[type_.upper()] if len(stored.shape) > 1 else types.F32
        if type_ == "q4_0" and new_name.startswith(("token_embd.", "output.")):
            kind = types.Q8_0
        block = gguf.GGML_QUANT_SIZES[kind][0]
        if stored.shape[-1] % block:
            raise ModelError(
                f"{name}: its rows of {stored.shape[-1]} are not a multiple of {block}, the group "
                f"size of {kind.name}; use type: bf16"
            )
        yield name, new_name, stored.shape, kind


def _values(original: Checkpoint, name: str, architecture: str) -> Any:
    """A tensor in float32, its rows in the order of llama.cpp."""
    tensor = original.tensor(name).float()
    if not torch.isfinite(tensor).all():
        raise ModelError(
            f"{original.folder}: {name} holds numbers that are not finite; look for what broke the "
            "model, or fetch it again"
        )
    values = tensor.numpy()
    layer, _, part = name.rpartition("self_attn.")
    if architecture == "llama" and layer and part.startswith(("q_proj", "k_proj")):
        heads = original.config["num_attention_heads"]
        if part.startswith("k_proj"):
            heads = original.config.get("num_key_value_heads") or heads
        return _interleaved(values, heads)
    return values


def _interleaved(values: Any, heads: int) -> Any:
    """Put rows that rotate together side by side.

    Transformers turns row i of a head with row i + half, llama.cpp turns neighbours.
    """
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
