"""Whether tokens mean the same to a corpus and to a model.

Two tokenizers of equal size can give the same ids to different texts; training on such ids raises
no error and teaches nonsense. Knows nothing about how rows or models are made.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from biomistral.errors import ModelError
from biomistral.models.rows import PackedRows


def vocabulary_digest(tokenizer: Any) -> str:
    """SHA-256 over all tokens by id, however the tokenizer's files are written."""
    tokens = sorted((index, token) for token, index in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def check_rows_fit(rows: PackedRows, tokenizer: Any, num_embeddings: int) -> None:
    """Raise ``ModelError`` unless the rows were cut by a tokenizer with the model's vocabulary."""
    remedy = "build the corpus with the model's own tokenizer (corpus.tokenizer)"
    if rows.vocabulary_size > num_embeddings:
        raise ModelError(
            f"{rows.folder}: was cut by a tokenizer of {rows.vocabulary_size} tokens, the model "
            f"has {num_embeddings}; {remedy}"
        )
    if rows.tokenizer_sha256 not in {"", vocabulary_digest(tokenizer)}:
        raise ModelError(
            f"{rows.folder}: was cut by another tokenizer than the model's: its ids stand for "
            f"other texts; {remedy}"
        )
