"""Texts to token ids, such that no text can ever become a control token.

A document is ``<s> text </s>``: the beginning and end tokens are put there by their ids, and text
that happens to spell ``</s>`` is tokenized as the four characters it is. A tokenizer without a
beginning token begins documents with the text. Knows nothing about files, rows or articles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from biomistral.errors import ModelError
from biomistral.models.vocabulary import vocabulary_digest


@dataclass(frozen=True, slots=True)
class DocumentTokenizer:
    """A tokenizer, made ready for documents; see ``load_tokenizer``."""

    name: str
    plain: Any  # the Transformers tokenizer as it is, to check against
    fast: Tokenizer  # the same, that takes control tokens in text for text
    bos_id: int | None
    eos_id: int
    vocabulary_size: int
    sha256: str  # of its vocabulary

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Token ids of each document, ``<s>`` and ``</s>`` around it.

        Raises ``ModelError`` if the tokenizer makes a control token out of text all the same.
        """
        control = [i for i in (self.bos_id, self.eos_id) if i is not None]
        documents = []
        for encoding in self.fast.encode_batch(list(texts), add_special_tokens=False):
            ids = np.array(encoding.ids, dtype=np.int64)
            if np.isin(ids, control).any():
                raise ModelError(
                    f"tokenizer {self.name}: makes one of the control tokens {control} out of "
                    "plain text, which would end documents in their middle; use another tokenizer"
                )
            begin = [] if self.bos_id is None else [self.bos_id]
            documents.append(np.concatenate([begin, ids, [self.eos_id]]).astype(np.int64))
        return documents

    def check(self, text: str) -> None:
        """Raise ``ModelError`` unless ``text`` gives the ids it gives when tokenized the plain way."""
        plain = self.plain(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        begin = 0 if self.bos_id is None else 1
        ours = self.encode([text])[0][begin:-1].tolist()
        if ours != list(plain):
            place = next((i for i, (a, b) in enumerate(zip(ours, plain)) if a != b), len(plain))  # noqa: B905
            raise ModelError(
                f"tokenizer {self.name}: in batches it gives other tokens than one by one, first "
                f"at place {place} of the text {text[:60]!r}; its tokenizer.json does not fit its "
                "tokenizer class, export it again"
            )


def load_tokenizer(model: Path | str) -> DocumentTokenizer:
    """Load the tokenizer of a checkpoint folder or hub model.

    Raises ``ModelError`` if there is none, it has no fast form, or it has no end-of-text token.
    """
    try:
        plain = AutoTokenizer.from_pretrained(str(model))
    except (OSError, ValueError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise ModelError(
            f"{model}: no tokenizer can be loaded from there ({first_line}); name a folder with "
            "tokenizer.json, or the hub id of a model"
        ) from error
    if not getattr(plain, "is_fast", False):
        raise ModelError(f"{model}: its tokenizer has no fast form (tokenizer.json)")
    if plain.eos_token_id is None:
        raise ModelError(f"{model}: its tokenizer has no end-of-text token; set eos_token")
    state = plain.backend_tokenizer.to_str()
    fast = Tokenizer.from_str(state)
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = True
    return DocumentTokenizer(
        name=Path(model).name,
        plain=plain,
        fast=fast,
        bos_id=plain.bos_token_id,
        eos_id=int(plain.eos_token_id),
        vocabulary_size=len(plain),
        sha256=vocabulary_digest(plain),
    )
