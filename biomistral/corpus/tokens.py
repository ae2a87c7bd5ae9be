"""The tokenizer of a model, made ready for documents, and the check that its ids are the model's.

Transformers loads it and says what its ids are; ``encoding`` makes them fast. Knows nothing about
files, rows or articles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from biomistral.corpus.encoding import DocumentEncoder, TokenizerParts
from biomistral.errors import ModelError
from biomistral.models.vocabulary import vocabulary_digest


@dataclass(frozen=True, slots=True)
class DocumentTokenizer:
    """A tokenizer, made ready for documents; see ``load_tokenizer``."""

    parts: TokenizerParts
    plain: Any  # the Transformers tokenizer as it is, to check against
    _encoder: list[DocumentEncoder] = field(default_factory=list, repr=False)

    @property
    def encoder(self) -> DocumentEncoder:
        """The fast way, made when it is first asked for: a build leaves it to its workers."""
        if not self._encoder:
            self._encoder.append(DocumentEncoder(self.parts))
        return self._encoder[0]

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Token ids of each document, ``<s>`` and ``</s>`` around it; see ``DocumentEncoder``."""
        return self.encoder.encode(texts)

    def check(self, text: str) -> None:
        """Raise ``ModelError`` unless ``text`` gets the ids that Transformers gives it."""
        self.check_ids(text, self.encode([text])[0])

    def check_ids(self, text: str, ids: NDArray[np.integer[Any]]) -> None:
        """Raise ``ModelError`` unless these are the ids of ``text`` as a document."""
        plain = self.plain(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        begin = 0 if self.parts.bos_id is None else 1
        ours = ids[begin:-1].tolist()
        if ours != list(plain):
            place = next((i for i, (a, b) in enumerate(zip(ours, plain)) if a != b), len(plain))  # noqa: B905
            raise ModelError(
                f"tokenizer {self.parts.name}: the fast way gives other tokens than Transformers, "
                f"first at place {place} of the text {text[:60]!r}; its tokenizer.json does not "
                "fit its tokenizer class, export it again"
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
    parts = TokenizerParts(
        name=Path(model).name,
        state=plain.backend_tokenizer.to_str(),
        bos_id=plain.bos_token_id,
        eos_id=int(plain.eos_token_id),
        vocabulary_size=len(plain),
        sha256=vocabulary_digest(plain),
    )
    return DocumentTokenizer(parts, plain)
