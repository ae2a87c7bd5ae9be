"""Texts to token ids, such that no text can ever become a control token.

A document is ``<s> text </s>``: the beginning and end tokens are put there by their ids, and text
that happens to spell ``</s>`` is tokenized as the four characters it is. A tokenizer without a
beginning token begins documents with the text. Light enough for every worker process: it loads
neither Transformers nor torch. Knows nothing about files, rows or articles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from biomistral.corpus.pieces import exact_pieces
from biomistral.errors import ModelError


@dataclass(frozen=True, slots=True)
class TokenizerParts:
    """All that is needed of a tokenizer to encode documents; can be sent to another process."""

    name: str
    state: str  # tokenizer.json
    bos_id: int | None
    eos_id: int
    vocabulary_size: int
    sha256: str  # of its vocabulary


class DocumentEncoder:
    """Encodes documents; remembers what it has seen, which changes nothing but its speed."""

    def __init__(self, parts: TokenizerParts) -> None:
        self.parts = parts
        self._begin = [] if parts.bos_id is None else [parts.bos_id]
        self._control = [*self._begin, parts.eos_id]
        self._pieces = exact_pieces(parts.state)
        self._whole = None if self._pieces else _whole(parts.state)

    @property
    def is_by_pieces(self) -> bool:
        """Whether texts are tokenized piece by piece, the fast way."""
        return self._pieces is not None

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Token ids of each document, ``<s>`` and ``</s>`` around it.

        Raises ``ModelError`` if the tokenizer makes a control token out of text all the same.
        """
        return [self._document(ids) for ids in self._encode(texts)]

    def _encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        if self._pieces:
            return self._pieces.encode(texts)
        assert self._whole is not None, "made where there are no pieces"
        encodings = self._whole.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]

    def _document(self, ids: NDArray[np.uint32]) -> NDArray[np.int64]:
        if any((ids == control).any() for control in self._control):
            raise ModelError(
                f"tokenizer {self.parts.name}: makes one of the control tokens {self._control} out "
                "of plain text, which would end documents in their middle; use another tokenizer"
            )
        return np.concatenate([self._begin, ids, [self.parts.eos_id]]).astype(np.int64)


def _whole(state: str) -> Tokenizer:
    """The library's tokenizer, for which a control token in a text is text."""
    tokenizer = Tokenizer.from_str(state)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
