"""Conversations and preference pairs as token ids.

What the assistant says is learned, with the mark behind it that the chat template writes. A message
that holds one of the tokenizer's control tokens is refused: it would be read as the mark itself.
What holds a passage of a test question is left out. Knows nothing about files, models or losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import TemplateError

from biomistral.errors import ModelError
from biomistral.models.continuations import common_length
from biomistral.ngrams import Runs, are_in, read_runs
from biomistral.training.conversations import Messages, Pair, Spot
from biomistral.training.lessons import Lesson, Preference, end_of_text

Item = TypeVar("Item", Messages, Pair)


def without_tests(
    items: Sequence[tuple[Spot, Item]], test_runs: Path | None
) -> list[tuple[Spot, Item]]:
    """Leave out what holds words in a row of a test question (a file of ``ngrams``)."""
    if test_runs is None or not items:
        return list(items)
    known, width = read_runs(test_runs)
    runs = Runs(width)
    return [
        (spot, item)
        for spot, item in items
        if not any(are_in(runs.of(text), known).any() for text in _texts(item))
    ]


def _texts(item: Messages | Pair | str) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    elif isinstance(item, Pair):
        for part in (item.prompt, item.chosen, item.rejected):
            yield from _texts(part)
    else:
        yield from (message["content"] for message in item)


def encode_pairs(tokenizer: Any, pairs: Sequence[tuple[Spot, Pair]]) -> list[Preference]:
    """Encode pairs of texts, and pairs of messages in the tokenizer's chat template."""
    of_messages = any(isinstance(pair.prompt, list) for _, pair in pairs)
    renderer = Renderer(tokenizer) if of_messages else None
    return [
        renderer.preference(spot, pair)
        if renderer is not None and isinstance(pair.prompt, list)
        else _plain_preference(tokenizer, spot, pair)
        for spot, pair in pairs
    ]


class Renderer:
    """Conversations in the chat template of a tokenizer, as text and as tokens.

    Raises ``ModelError`` if it has no template.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise ModelError(
                "training: the model's tokenizer has no chat template, which conversations need; "
                "start from an instruct model, or put a chat_template.jinja beside the tokenizer"
            )
        self.tokenizer = tokenizer

    def lesson(self, spot: Spot, messages: Messages) -> Lesson:
        """Encode a conversation; what the assistant says is learned."""
        self._check_plain(spot, messages)
        text = self._text(spot, messages)
        spans = []
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                start = len(self._beginning(spot, messages[:index], text, ask=True))
                end = len(self._beginning(spot, messages[: index + 1], text, ask=False))
                spans.append((start, end))
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        learned = tuple(
            place > 0
            and any(start <= first and last <= end and first < end for start, end in spans)
            for place, (first, last) in enumerate(encoded["offset_mapping"])
        )
        if not any(learned):
            raise spot.wrong("nothing of what the assistant says is left in tokens")
        return Lesson(tuple(encoded["input_ids"]), learned, source=str(spot))

    def preference(self, spot: Spot, pair: Pair) -> Preference:
        """Encode a pair of messages."""
        assert isinstance(pair.prompt, list)
        assert isinstance(pair.chosen, list)
        assert isinstance(pair.rejected, list)
        for part in (pair.prompt, pair.chosen, pair.rejected):
            self._check_plain(spot, part)
        prompt = self._ids(self._text(spot, pair.prompt, ask=True))
        answers = [
            self._ids(self._text(spot, [*pair.prompt, *answer]))
            for answer in (pair.chosen, pair.rejected)
        ]
        return _parted(spot, prompt, *answers)

    def _text(self, spot: Spot, messages: Messages, *, ask: bool = False) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=ask
            )
        except TemplateError as error:
            raise spot.wrong(f"the model's chat template refuses the messages ({error})") from None
        return text

    def _beginning(self, spot: Spot, messages: Messages, whole: str, *, ask: bool) -> str:
        """The text of the first messages, which the whole has to begin with."""
        text = self._text(spot, messages, ask=ask)
        if not whole.startswith(text):
            raise spot.wrong(
                "the model's chat template writes earlier messages in another way once others "
                "follow, so it cannot be told what the assistant said; cut the conversation to one "
                "question and one answer, or use a model with a plain template"
            )
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _check_plain(self, spot: Spot, messages: Messages) -> None:
        for message in messages:
            for token in self.tokenizer.all_special_tokens:
                if token in message["content"]:
                    raise spot.wrong(
                        f"a message holds the text {token!r}, a control token of this tokenizer; "
                        "take it out"
                    )


def _plain_preference(tokenizer: Any, spot: Spot, pair: Pair) -> Preference:
    """Encode a pair of texts; the end-of-text token stands behind each answer."""
    eos = end_of_text(tokenizer)

    def encode(text: Any) -> list[int]:
        # Text is text: one that quotes </s> gets the tokens of those four characters.
        plain: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return opening + plain

    opening: list[int] = []
    if tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][0] == (
        tokenizer.bos_token_id
    ):
        opening = [tokenizer.bos_token_id]
    assert isinstance(pair.prompt, str)
    prompt = encode(pair.prompt)
    chosen, rejected = (
        [*encode(f"{pair.prompt}{answer}"), eos] for answer in (pair.chosen, pair.rejected)
    )
    return _parted(spot, prompt, chosen, rejected)


def _parted(spot: Spot, prompt: list[int], chosen: list[int], rejected: list[int]) -> Preference:
    """Part the ids where the prompt ends, or before, where a token joins it with an answer."""
    shared = min(common_length(prompt, chosen), common_length(prompt, rejected))
    if shared == 0 or chosen[shared:] == rejected[shared:]:
        raise spot.wrong("prompt and answers cannot be told apart in tokens; write a longer prompt")
    return Preference(
        tuple(prompt[:shared]), tuple(chosen[shared:]), tuple(rejected[shared:]), str(spot)
    )
