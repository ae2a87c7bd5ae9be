"""Token ids through a memory of pieces: the same ids as the tokenizer's, many times faster.

A tokenizer of the sentencepiece kind (Mistral v0.1 to v0.3, Llama 2) treats a whole text as one
word, in which it looks for the best pair to merge again and again. If no merge of its vocabulary
ever makes a token across a certain border (before a blank after a letter, say), then the text may
be cut at such borders first, and each piece, of which most come again and again, needs to be
tokenized once only. ``exact_pieces`` finds out whether that holds, by looking at the tokenizer's
parts and at every one of its merges; where it cannot tell, the answer is None.

Knows nothing about documents or control tokens.
"""

from __future__ import annotations

import ctypes
import json
import re
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from biomistral.corpus.compiled import library

_SPACE = "▁"  # stands for a blank in the vocabulary
_PREPEND = {"type": "Prepend", "prepend": _SPACE}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_BLOCK_PIECES = 1_000_000  # joined at a time: bounds memory for an article of 100 MB
_MOST_PIECES = 1_000_000  # remembered, then forgotten all at once: about 200 MB

# Ways to cut, the finest first. Each is a partition of any text; the border between two characters
# depends on nothing but the two, save that blanks go with what follows them.
_LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
_CUTS = (
    re.compile(rf" *(?:[{_LATIN}]+|[^{_LATIN}\n ]+)|\n| +"),
    re.compile(r" *[^\n ]+|\n| +"),
    re.compile(r" *[^ ]+| +"),
)


class PieceEncoder:
    """Tokenize texts piece by piece; see ``exact_pieces``, which makes it."""

    def __init__(self, way: int, encoder: Tokenizer, *, prefix: str) -> None:
        self._way = way  # a place in _CUTS
        self._encoder = encoder  # adds no blank before a text
        self._prefix = prefix  # how a blank comes before a text, see _blank_prefix
        self._forget()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Return the token ids of each text."""
        if len(self._numbers) > _MOST_PIECES:
            self._forget()
        found = [self._numbers.of(self._with_blank(text)) for text in texts]
        self._learn()
        return [self._join(numbers) for numbers in found]

    def _with_blank(self, text: str) -> str:
        text = text.replace(_SPACE, " ")
        has_enough = self._prefix == "never" or (self._prefix != "always" and text[:1] == " ")
        return text if not text or has_enough else " " + text

    def _forget(self) -> None:
        self._numbers: _Numbers | _CompiledNumbers
        loops = library()
        self._numbers = _CompiledNumbers(loops, self._way) if loops else _Numbers(_CUTS[self._way])
        self._starts = np.empty(0, np.int64)  # of each piece's ids in _ids
        self._counts = np.empty(0, np.int64)
        self._ids = np.empty(0, np.uint32)

    def _learn(self) -> None:
        """Tokenize the pieces that were met for the first time."""
        new = self._numbers.take_new()
        if not new:
            return
        encodings = self._encoder.encode_batch_fast(new, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        counts = np.fromiter(map(len, ids), np.int64, len(ids))
        starts = len(self._ids) + np.cumsum(counts) - counts
        flat = np.fromiter((i for part in ids for i in part), np.uint32, int(counts.sum()))
        self._starts = np.concatenate([self._starts, starts])
        self._counts = np.concatenate([self._counts, counts])
        self._ids = np.concatenate([self._ids, flat])

    def _join(self, numbers: NDArray[np.int64] | NDArray[np.int32]) -> NDArray[np.uint32]:
        """The ids of the pieces one after the other."""
        blocks = range(0, len(numbers), _BLOCK_PIECES)
        ids = [self._join_block(numbers[start : start + _BLOCK_PIECES]) for start in blocks]
        return np.concatenate(ids) if ids else np.empty(0, np.uint32)

    def _join_block(self, numbers: NDArray[np.int64] | NDArray[np.int32]) -> NDArray[np.uint32]:
        counts = self._counts[numbers]
        ends = np.cumsum(counts)
        shift = self._starts[numbers] - (ends - counts)
        ids: NDArray[np.uint32] = self._ids[np.repeat(shift, counts) + np.arange(int(ends[-1]))]
        return ids


class _Numbers(dict[str, int]):
    """A number for each piece, given out as pieces are met."""

    def __init__(self, cut: re.Pattern[str]) -> None:
        super().__init__()
        self._cut = cut
        self._new: list[str] = []

    def __missing__(self, piece: str) -> int:
        number = self[piece] = len(self)
        self._new.append(piece)
        return number

    def of(self, text: str) -> NDArray[np.int64]:
        """Cut a text; return the number of each piece."""
        pieces = self._cut.findall(text)
        return np.fromiter(map(self.__getitem__, pieces), np.int64, len(pieces))

    def take_new(self) -> list[str]:
        """Return the pieces met since this was last asked, in the order of their numbers."""
        new, self._new = self._new, []
        return new


class _CompiledNumbers:
    """The same, in C."""

    def __init__(self, loops: ctypes.CDLL, way: int) -> None:
        self._loops, self._way, self._told = loops, way, 0
        self._pieces = loops.pieces_new()
        if not self._pieces:
            raise MemoryError
        weakref.finalize(self, loops.pieces_free, self._pieces)

    def __len__(self) -> int:
        return int(self._loops.pieces_count(self._pieces))

    def of(self, text: str) -> NDArray[np.int32]:
        """Cut a text; return the number of each piece."""
        data = text.encode()
        numbers = np.empty(len(data), np.int32)
        count = self._loops.pieces_cut(
            self._pieces, data, len(data), self._way, numbers.ctypes.data
        )
        if count < 0:
            raise MemoryError
        return numbers[:count].copy()

    def take_new(self) -> list[str]:
        """Return the pieces met since this was last asked, in the order of their numbers."""
        length = ctypes.c_int64()
        new = []
        for number in range(self._told, len(self)):
            start = self._loops.pieces_text(self._pieces, number, ctypes.byref(length))
            new.append(ctypes.string_at(start, length.value).decode())
        self._told = len(self)
        return new


def exact_pieces(tokenizer_json: str) -> PieceEncoder | None:
    """Return an encoder that gives the ids of this tokenizer for every text, or None.

    Control tokens are no concern of it: a text that spells one is text.
    """
    state = json.loads(tokenizer_json)
    prefix = _blank_prefix(state)
    if prefix is None or not _is_plain_bpe(state):
        return None
    products = [_product(merge).replace(_SPACE, " ") for merge in state["model"]["merges"]]
    for way, cut in enumerate(_CUTS):
        if all(cut.fullmatch(product) for product in products):
            return PieceEncoder(way, _bare(state), prefix=prefix)
    return None


def _is_plain_bpe(state: dict[str, Any]) -> bool:
    """Whether nothing but merges decides the ids, and every character has some."""
    model = state["model"]
    vocabulary = model.get("vocab", {})
    return (
        model.get("type") == "BPE"
        and not any(model.get(key) for key in (
            "dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"
        ))
        and bool(model.get("byte_fallback"))
        and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
        and _SPACE in vocabulary
        and all(token.get("special") for token in state.get("added_tokens", []))
    )  # fmt: skip


def _blank_prefix(state: dict[str, Any]) -> str | None:
    """How a blank comes before a text: ``always``, ``unless there is one``, ``never``; None: unknown."""
    normalizer, pre_tokenizer = state.get("normalizer") or {}, state.get("pre_tokenizer") or {}
    parts = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    if parts in ([_PREPEND, _REPLACE], [_REPLACE]):
        before = "always" if len(parts) == 2 else "never"
        return before if _cuts_locally(pre_tokenizer) else None
    if not normalizer and pre_tokenizer.get("type") == "Metaspace":
        plain = pre_tokenizer["replacement"] == _SPACE and pre_tokenizer["prepend_scheme"] in {
            "always", "first"
        }  # fmt: skip
        return "unless there is one" if plain else None
    return None


def _cuts_locally(pre_tokenizer: dict[str, Any]) -> bool:
    """Whether each of its own cuts depends on the characters beside it only."""
    if not pre_tokenizer:
        return True
    if pre_tokenizer["type"] == "Sequence":
        return all(map(_cuts_locally, pre_tokenizer["pretokenizers"]))
    if pre_tokenizer["type"] == "Split":
        pattern = pre_tokenizer["pattern"].get("String", "")
        behaviours = {"Isolated", "MergedWithNext"}
        return len(pattern) == 1 and pre_tokenizer["behavior"] in behaviours
    return pre_tokenizer == {"type": "Punctuation", "behavior": "Isolated"}


def _product(merge: str | list[str]) -> str:
    return merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)


def _bare(state: dict[str, Any]) -> Tokenizer:
    """The same merges on a piece: no blank put before it, no control tokens known."""
    pre_tokenizer = state.get("pre_tokenizer")
    if pre_tokenizer and pre_tokenizer["type"] == "Metaspace":
        pre_tokenizer = {**pre_tokenizer, "prepend_scheme": "never"}
    bare = {
        **state,
        "normalizer": _REPLACE,
        "pre_tokenizer": pre_tokenizer,
        **dict.fromkeys(("post_processor", "truncation", "padding")),
        "added_tokens": [],
    }
    return Tokenizer.from_str(json.dumps(bare))
