"""What a GGUF file says about a tokenizer, from a ``tokenizer.json``.

llama.cpp tokenizes by itself: it knows two families of byte-pair tokenizers, and the file says which.

    llama   SentencePiece (Llama 2, Mistral v0.1 to v0.3, ours): blanks are ``▁``, unknown characters
            fall back to bytes, the piece with the highest score is merged first
    gpt2    byte-level (Llama 3, Qwen): merges in order, inside the words of a pattern known by name

Anything else would be cut otherwise than the model was trained on, and is refused. Knows nothing
about weights or the rest of the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral.errors import ModelError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# Patterns that byte-level tokenizers cut words with, and the names llama.cpp knows them by.
_PATTERNS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class TokenizerFacts:
    """A tokenizer in the terms of a GGUF file; tokens by id, as many as the embedding has rows."""

    kind: str  # llama or gpt2
    pattern: str | None  # name of the pattern of gpt2
    tokens: list[str]
    types: list[int]
    scores: list[float] | None  # of llama
    merges: list[str] | None  # of gpt2
    add_space_prefix: bool


def tokenizer_facts(folder: Path, num_embeddings: int) -> TokenizerFacts:
    """Read the ``tokenizer.json`` of a checkpoint.

    Raises ``ModelError`` if there is none, or it is of no family that llama.cpp knows.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{folder}: has no tokenizer.json, which a GGUF file is made from; save it with "
            "Transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    state = json.loads(path.read_text(encoding="utf-8"))
    model = state["model"]
    if model.get("type") != "BPE":
        raise _unknown(path, f"its model is {model.get('type')}")
    tokens, types = _tokens(state, num_embeddings)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    parts = list(_parts(state))
    if any(part["type"] == "ByteLevel" for part in parts):
        return TokenizerFacts("gpt2", _pattern(path, parts), tokens, types, None, merges, False)
    prefix = _space_prefix(parts)
    if not model.get("byte_fallback") or prefix is None:
        raise _unknown(path, "it is neither byte-level nor of the SentencePiece kind")
    return TokenizerFacts("llama", None, tokens, types, _scores(tokens, merges), None, prefix)


def _unknown(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path}: cannot be put into a GGUF file: {what}; llama.cpp knows byte-pair tokenizers of "
        "Llama, Mistral and Qwen: use method: awq or bitsandbytes"
    )


def _tokens(state: Mapping[str, Any], num_embeddings: int) -> tuple[list[str], list[int]]:
    """Tokens and their types by id; rows of the embedding that no token has are unused ones."""
    vocabulary: dict[str, int] = state["model"]["vocab"]
    tokens = [f"[PAD{index}]" for index in range(num_embeddings)]
    types = [UNUSED] * num_embeddings
    for token, index in vocabulary.items():
        tokens[index] = token
        is_byte = state["model"].get("byte_fallback") and _BYTE_TOKEN.fullmatch(token)
        types[index] = BYTE if is_byte else NORMAL
    for added in state.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    unknown = state["model"].get("unk_token")
    if unknown in vocabulary:
        types[vocabulary[unknown]] = UNKNOWN
    return tokens, types


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """Highest for what is merged first; what no merge makes is last."""
    rank: dict[str, int] = {}
    for place, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", "", 1), place)
    return [-float(rank.get(token, len(merges))) for token in tokens]


def _parts(state: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All normalizers and pre-tokenizers, those in sequences included."""
    for stage in ("normalizer", "pre_tokenizer"):
        part = state.get(stage) or {"type": "none"}
        yield from part.get("normalizers", part.get("pretokenizers", [part]))


def _space_prefix(parts: list[Mapping[str, Any]]) -> bool | None:
    """Whether a blank goes in front of a text; None if blanks do not become ``▁`` at all."""
    for part in parts:
        if part["type"] == "Metaspace":
            return bool(part.get("prepend_scheme", "always") != "never")
    replaced = any(p["type"] == "Replace" and p.get("content") == "▁" for p in parts)
    prepended = any(p["type"] == "Prepend" and p.get("prepend") == "▁" for p in parts)
    return prepended if replaced else None


def _pattern(path: Path, parts: list[Mapping[str, Any]]) -> str:
    patterns = [part["pattern"].get("Regex", "") for part in parts if part["type"] == "Split"]
    if not patterns and all(
        part.get("use_regex", True) for part in parts if part["type"] == "ByteLevel"
    ):
        return "gpt-2"
    if len(patterns) == 1 and patterns[0] in _PATTERNS:
        return _PATTERNS[patterns[0]]
    raise _unknown(
        path, f"its pre-tokenizer cuts words with the pattern {' then '.join(patterns)!r}"
    )
