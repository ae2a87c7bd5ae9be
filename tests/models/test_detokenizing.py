"""Text piece by piece: nothing half, nothing taken back, nothing behind a stop text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biomistral.models.conversations import plain_ids
from biomistral.models.detokenizing import Detokenizer

TEXTS = [
    "The fever of the river valley is treated with bark.",
    "  two blanks,\n\na line and a tab\t.",
    "La fièvre de la vallée – «écorce»",
    "河谷热用树皮治疗。鑫龘",
    "تعالج حمى الوادي",
    "smile 😀👩‍⚕️ end",
    "a\ufffdb",
]


def pieces_of(tokenizer, prompt, answer, stop=()):
    whole = plain_ids(tokenizer, prompt + answer)
    start = plain_ids(tokenizer, prompt)
    assert whole[: len(start)] == start, "prompt and answer join in this tokenizer"
    text = Detokenizer(tokenizer, start, stop)
    pieces = []
    for token in whole[len(start) :]:
        pieces.append(text.add(token))
        if text.is_stopped:
            break
    return [*pieces, text.finish()]


@pytest.mark.parametrize("answer", TEXTS)
def test_pieces_joined_are_the_text(tokenizer, answer):
    pieces = pieces_of(tokenizer, "Question:\n", answer)
    assert "".join(pieces) == answer


def test_no_piece_holds_half_a_character(tokenizer):
    pieces = pieces_of(tokenizer, "x\n", "龘鑫😀")
    assert [piece for piece in pieces if piece] == ["龘", "鑫", "😀"]


def test_a_blank_before_the_first_word_is_kept(tokenizer):
    assert "".join(pieces_of(tokenizer, "The", " fever")) == " fever"


def test_a_character_that_is_never_finished_is_one_mark(tokenizer):
    whole = plain_ids(tokenizer, "x\n龘")
    text = Detokenizer(tokenizer, whole[:-3])
    assert [text.add(token) for token in whole[-3:-1]] == ["", ""]
    assert text.finish() == "\ufffd"


def test_bytes_that_make_no_character_are_shown_at_last(tokenizer):
    byte = tokenizer.convert_tokens_to_ids("<0xFF>")
    text = Detokenizer(tokenizer, plain_ids(tokenizer, "x\n"))
    assert "".join(text.add(byte) for _ in range(8)) == "\ufffd\ufffd"


def test_control_tokens_have_no_text(tokenizer):
    text = Detokenizer(tokenizer, plain_ids(tokenizer, "x"))
    assert text.add(tokenizer.eos_token_id) == ""


@pytest.mark.parametrize("stop", [("valley",), ("river valley", "zzz"), ("f the",), ("T", "fever")])
def test_nothing_from_a_stop_text_on_is_shown(tokenizer, stop):
    answer = TEXTS[0]
    joined = "".join(pieces_of(tokenizer, "Q:\n", answer, stop))
    assert joined == answer[: min(answer.find(s) for s in stop if s in answer)]


def test_the_start_of_a_stop_text_is_held_and_shown_if_it_was_none(tokenizer):
    pieces = pieces_of(tokenizer, "Q:\n", "The fever of", ("fever and",))
    shown = [piece for piece in pieces if piece]
    assert "".join(pieces) == "The fever of"
    assert not any(piece.rstrip().endswith("fever") for piece in shown)


@settings(max_examples=60, deadline=None)
@given(
    answer=st.text(alphabet="aab é龘😀\n", max_size=30),
    stops=st.lists(st.text(alphabet="ab é龘", min_size=1, max_size=3), max_size=3),
)
def test_pieces_are_the_text_up_to_the_first_stop_text(tokenizer, answer, stops):
    joined = "".join(pieces_of(tokenizer, "Q:\n", answer, tuple(stops)))
    ends = [answer.find(stop) for stop in stops if stop in answer]
    assert joined == answer[: min(ends, default=len(answer))]
