"""Prompts and continuations as token ids: where the one ends and the other begins.

A byte-pair tokenizer may join the end of a prompt and the start of a continuation into one token,
so a continuation cannot be encoded alone. The rule here, for one prompt and its continuations:

    prompt                      "Answer:("        Answer : (
    prompt + first              "Answer:(A"       Answer : (A
    prompt + second             "Answer:(B"       Answer : ( B
    trunk: what all three share                   Answer :
    tails: what is left                           (A    and    ( B

No token is ever split. With most tokenizers nothing joins: the trunk is the whole prompt and a tail
is the continuation. Where something does, every tail starts at the same place in the text, so the
probabilities of the tails stay comparable: each is that of the same few last characters of the
prompt and then the continuation.

Text is text: a question that quotes ``</s>`` gets the tokens of those four characters, never the
control token. The only control tokens are those that the tokenizer puts in front by itself, and
those that a chat template means (``control_tokens``).

Knows nothing about models, batches or what the probabilities are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from biomistral.errors import ModelError
from biomistral.models.control_tokens import ControlEncoder, is_marked, without_marks
from biomistral.records import Request

_NEWLINES = ("\n", "Ċ")  # as text, and as byte-level tokenizers (GPT-2) write the byte


@dataclass(frozen=True, slots=True)
class Encoded:
    """One request in token ids. ``trunk + tails[j]`` is prompt and continuation ``j``."""

    trunk: list[int]  # at least one id
    tails: list[list[int]]  # one per continuation, none empty
    num_prompt_tokens: int
    # With the published rule: other ids, one of which may stand for a tail's first (its only) one.
    alternatives: list[tuple[int, ...]]

    @property
    def num_tokens(self) -> int:
        """Tokens of the longest sequence that is read; its last one is scored but not read."""
        return len(self.trunk) + max(map(len, self.tails)) - 1

    def row(self, shared: int) -> Row:
        """Lay the request out in one row, without the first ``shared`` tokens of its trunk."""
        start = len(self.trunk)
        tokens = self.trunk[shared:]
        positions = list(range(shared, start))
        branches = [0] * len(tokens)
        places = [len(tokens) - 1]
        for branch, tail in enumerate(self.tails, start=1):
            # The last token of a continuation is scored but never read from.
            length = len(tail) - 1
            places += range(len(tokens), len(tokens) + length)
            tokens = tokens + tail[:-1]
            positions += range(start, start + length)
            branches += [branch] * length
        return Row(tokens, positions, branches, places)


@dataclass(frozen=True, slots=True)
class Row:
    """A request in one row: the trunk, and behind it the continuations, each on its own branch."""

    tokens: list[int]
    positions: list[int]  # in the sequence that a token belongs to
    branches: list[int]  # 0: trunk, 1..: continuations; a branch sees the trunk and itself
    places: list[int]  # columns that are read: the end of the trunk, then the continuations'


class TextEncoder:
    """Encode texts with a tokenizer, each distinct line of them only once.

    The prompts of a few-shot task are the same lines over and over. Encoding line by line is exact
    where no token spans a line break; the vocabulary says whether one does, and then (or where a
    trial shows a difference) whole texts are encoded instead. The result is the same either way:
    the ids of the text with the tokenizer's opening tokens (``<s>``) and no closing ones.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._ids_by_text: dict[str, set[int]] | None = None
        self._opening = self._opening_ids()
        # Text of its own at the start of a tokenizer's input gets a mark (▁) that is in the way;
        # behind a line break it gets none.
        self._break_at_start = self._plain(["\n"])[0]
        self._break_inside = self._plain(["x\n"])[0][len(self._plain(["x"])[0]) :]
        self._control = ControlEncoder(tokenizer, self._plain)
        self._by_line = bool(self._break_at_start) and not any(
            newline in token[1:] for token in tokenizer.get_vocab() for newline in _NEWLINES
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        if not texts:
            return []
        marked = [text for text in texts if is_marked(text)]
        if marked:
            of_marked = iter(self._control.encode(marked))
            of_others = iter(self.encode([text for text in texts if not is_marked(text)]))
            return [next(of_marked if is_marked(text) else of_others) for text in texts]
        if self._by_line:
            encoded = self._encode_by_line(texts)
            trial = [self._opening + ids for ids in self._plain([texts[0], texts[-1]])]
            if encoded is not None and [encoded[0], encoded[-1]] == trial:
                return encoded
        return [self._opening + ids for ids in self._plain(texts)]

    def ids_of(self, text: str) -> set[int]:
        """Return all ids that decode to a text, blanks around it apart: ``A``, `` A``, ``<0x41>``."""
        if self._ids_by_text is None:
            ids = range(len(self.tokenizer))
            self._ids_by_text = {}
            for index, decoded in zip(
                ids, self.tokenizer.batch_decode([[index] for index in ids]), strict=True
            ):
                self._ids_by_text.setdefault(decoded.strip(), set()).add(index)
        return self._ids_by_text.get(text.strip(), set())

    def _encode_by_line(self, texts: Sequence[str]) -> list[list[int]] | None:
        """As ``encode``; None if a line behind a break does not start with that break's tokens."""
        split = [text.split("\n") for text in texts]
        firsts = list(dict.fromkeys(lines[0] for lines in split))
        if "" in firsts:  # the text starts with a break, which is written otherwise there
            return None
        others = list(dict.fromkeys(line for lines in split for line in lines[1:]))
        of_first = dict(zip(firsts, self._plain(firsts), strict=True))
        of_other: dict[str, list[int]] = {}
        num_drop = len(self._break_at_start)
        for line, ids in zip(others, self._plain(["\n" + line for line in others]), strict=True):
            if ids[:num_drop] != self._break_at_start:
                return None
            of_other[line] = self._break_inside + ids[num_drop:]
        encoded = []
        for lines in split:
            row = self._opening + of_first[lines[0]]
            for line in lines[1:]:
                row += of_other[line]
            encoded.append(row)
        return encoded

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        return ids

    def _opening_ids(self) -> list[int]:
        """The special tokens put in front of a text."""
        plain = self._plain(["x"])[0]
        with_special: list[int] = self.tokenizer("x")["input_ids"]
        for start in range(len(with_special)):
            if with_special[start : start + len(plain)] == plain:
                return with_special[:start]
        return []


def encode_requests(encoder: TextEncoder, requests: Sequence[Request]) -> list[Encoded]:
    """Encode requests by the rule at the top of this module.

    Raises ``ModelError`` if a continuation adds no token, and with ``letter`` scoring if a letter
    takes more than one token or two come out the same.
    """
    texts = [request.prompt for request in requests]
    for request in requests:
        texts += [request.prompt + continuation for continuation in request.continuations]
    ids = encoder.encode(texts)
    encoded = []
    first = len(requests)
    for request, prompt in zip(requests, ids, strict=False):
        last = first + len(request.continuations)
        encoded.append(_split(encoder, request, prompt, ids[first:last]))
        first = last
    return encoded


def _split(
    encoder: TextEncoder, request: Request, prompt: list[int], full: list[list[int]]
) -> Encoded:
    """Part the ids of ``prompt + continuation`` into what all share with the prompt and the rest."""
    shared = min(common_length(prompt, ids) for ids in full)
    tails = [ids[shared:] for ids in full]
    where = f"question {request.question_id!r} of {request.task} ({request.language})"
    if shared == 0:
        raise ModelError(
            f"{where}: its prompt {without_marks(request.prompt[:40])!r} shares no token with prompt and "
            "continuation together, so there is nothing to continue; the tokenizer must put an "
            "opening token in front, or the prompt must be longer"
        )
    for text, tail, ids in zip(request.continuations, tails, full, strict=True):
        if not tail:
            raise ModelError(
                f"{where}: the continuation {text!r} adds no token to the prompt; "
                "every choice must have a text that the tokenizer keeps"
            )
        if request.scoring != "cloze" and len(ids) > len(prompt) + 1:
            tokens = encoder.tokenizer.convert_ids_to_tokens(ids[shared:])
            raise ModelError(
                f"{where}: after the prompt, the letter {text!r} is {len(tokens)} tokens {tokens}; "
                "letter scoring needs one; use a tokenizer that has the letters, or scoring: cloze"
            )
    for index, tail in enumerate(tails):
        if request.scoring != "cloze" and tail in tails[:index]:
            other = request.continuations[tails.index(tail)]
            raise ModelError(
                f"{where}: the letters {other!r} and {request.continuations[index]!r} are the same "
                f"tokens {encoder.tokenizer.convert_ids_to_tokens(tail)} to this tokenizer, so no "
                "model can tell them apart; use a tokenizer that has the letters, or scoring: cloze"
            )
    alternatives: list[tuple[int, ...]] = [()] * len(tails)
    if request.scoring == "published":
        alternatives = [
            tuple(sorted(encoder.ids_of(text) - {tail[0]}))
            if tail[0] in encoder.ids_of(text)
            else ()
            for text, tail in zip(request.continuations, tails, strict=True)
        ]
    return Encoded(prompt[:shared], tails, len(prompt), alternatives)


def common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    low, high = 0, length  # left[:low] agrees, left[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def shared_length(sequences: Sequence[list[int]]) -> int:
    """Length of the longest prefix that all sequences have in common."""
    # In lexicographic order the first and the last are the two that differ earliest.
    return common_length(min(sequences), max(sequences))
