"""GGUF files: find one, and load it with Transformers as a plain model.

A GGUF file holds weights, config, tokenizer and chat template in one; llama.cpp and what is built
on it run it as it is. Here its weights are computed again in full: that runs everywhere, but saves
no memory. Knows nothing about how the files are made.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

from biomistral.errors import ModelError, require
from biomistral.models.checkpoints import CONFIG, INDEX, SINGLE_FILE

SUFFIX = ".gguf"


def gguf_file(path: Path) -> Path | None:
    """Return the GGUF file that ``path`` is or, as a folder without other weights, holds.

    Raises ``ModelError`` if a folder holds several: they are variants of a model.
    """
    if path.is_file() and path.suffix == SUFFIX:
        return path
    if not path.is_dir() or any((path / name).is_file() for name in (SINGLE_FILE, INDEX)):
        return None
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        raise ModelError(
            f"{path}: holds {len(found)} GGUF files; name one of them: "
            f"{', '.join(file.name for file in found)}"
        )
    return found[0] if found else None


def load_gguf_model(file: Path, dtype: torch.dtype) -> Any:
    """Load the model in a GGUF file as a plain one.

    Raises ``MissingDependencyError`` without the library gguf, ``ModelError`` if the file is of an
    architecture that Transformers does not read, damaged, or lacks a weight.
    """
    _require(file)
    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        with _without_bar():
            model, report = load(
                str(file.parent),
                gguf_file=file.name,
                dtype=dtype,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{file}: lacks the weight {missing[0]!r} ({len(missing)} such in all); "
            "make or fetch the file again"
        )
    return model


def load_gguf_tokenizer(file: Path) -> Any:
    """Load the tokenizer in a GGUF file; raises as ``load_gguf_model``."""
    _require(file)
    try:
        ends = _stated(file, "add_bos_token", "add_eos_token")  # Transformers 5.19 forgets them
        return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, **ends)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error


def gguf_context_tokens(file: Path) -> int | None:
    """Return the length of context that a GGUF file states, reading its header only."""
    _require(file)
    stated = _stated(file, "context_length").get("context_length")
    return None if stated is None else int(stated)


def _stated(file: Path, *names: str) -> dict[str, Any]:
    """What the header says of these, by the last part of their keys."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    found = {key.rsplit(".", 1)[-1]: key for key in fields}
    return {name: fields[found[name]].contents() for name in names if name in found}


@contextlib.contextmanager
def _without_bar() -> Iterator[None]:
    """Silence the progress bar of the reader, which Transformers' own switch does not reach."""
    module: Any = modeling_gguf_pytorch_utils
    bar = module.tqdm
    module.tqdm = lambda tensors, **_: tensors
    try:
        yield
    finally:
        module.tqdm = bar


# What Transformers and the library raise at files they cannot use.
_UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    struct.error,
)


def _require(file: Path) -> None:
    require("gguf", extra="quantization", purpose=f"The GGUF file {file}")


def _unreadable(file: Path, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ModelError(
        f"{file}: cannot be read by Transformers ({reason}); it may be of an architecture that only "
        f"llama.cpp knows, or not whole: fetch it again, or name a folder with {CONFIG} and "
        "safetensors"
    )
