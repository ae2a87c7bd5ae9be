from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from biomistral.serving.tokens import TokenTexts, text_of

TEXTS = [
    "The fever is treated with bark.",
    "La fièvre ; 河谷热 تعالج — 🦟 x",
    "line\nbreak  two blanks",
    "héhé",
]


@pytest.fixture(scope="module")
def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"]
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


@pytest.fixture(params=["sentencepiece", "byte_level"])
def any_tokenizer(request, tokenizer):
    return tokenizer if request.param == "sentencepiece" else request.getfixturevalue("byte_level")


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_all_tokens_are_the_text(any_tokenizer, text) -> None:
    texts = TokenTexts(any_tokenizer)
    ids = any_tokenizer(text, add_special_tokens=False)["input_ids"]
    joined = b"".join(map(texts.raw, ids)).decode()
    assert joined.removeprefix(" ") == text


@pytest.mark.parametrize("text", TEXTS)
def test_an_offset_is_where_a_token_starts_in_the_text(any_tokenizer, text) -> None:
    texts = TokenTexts(any_tokenizer)
    ids = any_tokenizer(text)["input_ids"]
    offsets = texts.offsets(ids, begins_text=True)
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    for place, token in zip(offsets, ids, strict=True):
        if texts.is_control(token) or texts.text(token).startswith("bytes:"):
            continue
        assert text[place:].startswith(texts.text(token).removeprefix(" " if place == 0 else ""))


def test_a_part_of_a_character_is_written_out(tokenizer) -> None:
    texts = TokenTexts(tokenizer)
    ids = tokenizer("🦟", add_special_tokens=False)["input_ids"]  # not in the vocabulary
    shown = [texts.text(token) for token in ids if texts.text(token).startswith("bytes:")]
    assert shown == ["bytes:\\xf0", "bytes:\\x9f", "bytes:\\xa6", "bytes:\\x9f"]
    assert text_of(b"ok") == "ok"


def test_control_tokens_have_a_name_and_no_place(tokenizer) -> None:
    texts = TokenTexts(tokenizer)
    assert texts.text(1) == "<s>"
    assert texts.is_control(1)
    ids = tokenizer("bark")["input_ids"]
    assert texts.offsets(ids, begins_text=True)[:2] == [0, 0]
    assert texts.text(10**6)  # an id of the embedding that is no token
