from __future__ import annotations

import json

from biomistral.serving import replies
from biomistral.serving.replies import Answer, Token
from biomistral.serving.tokens import TokenTexts


def _tokens(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [Token(i, -0.5 * n, ((i, -0.5 * n), (5, -9.0))) for n, i in enumerate(ids, start=1)]


def test_an_event_is_one_line_of_json() -> None:
    event = replies.event({"text": "ein\nWort «ü»"})
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event.removeprefix(b"data: ")) == {"text": "ein\nWort «ü»"}


def test_old_log_probabilities_have_one_entry_per_token(tokenizer) -> None:
    texts, tokens = TokenTexts(tokenizer), _tokens(tokenizer, "bark and rest")
    listed = replies.old_logprobs(texts, tokens, 2, echoed=True)
    assert {len(column) for column in listed.values()} == {len(tokens)}
    assert listed["token_logprobs"] == [token.logprob for token in tokens]
    assert listed["top_logprobs"][0] == {texts.text(tokens[0].id): -0.5, texts.text(5): -9.0}
    assert listed["text_offset"][0] == 0


def test_the_token_itself_is_among_its_alternatives(tokenizer) -> None:
    texts = TokenTexts(tokenizer)
    token = Token(tokenizer("rest")["input_ids"][-1], -3.0, ((5, -0.1),))
    table = replies.old_logprobs(texts, [token], 1)["top_logprobs"][0]
    assert table == {texts.text(5): -0.1, texts.text(token.id): -3.0}


def test_of_two_tokens_with_one_text_the_likelier_stands(tokenizer) -> None:
    texts = TokenTexts(tokenizer)
    plain = tokenizer.convert_tokens_to_ids("A")
    as_byte = tokenizer.convert_tokens_to_ids("<0x41>")
    assert texts.text(plain) == texts.text(as_byte) == "A"
    token = Token(plain, -0.1, ((plain, -0.1), (as_byte, -4.0)))
    assert replies.old_logprobs(texts, [token], 2)["top_logprobs"] == [{"A": -0.1}]


def test_the_first_token_of_a_text_has_no_log_probability(tokenizer) -> None:
    listed = replies.old_logprobs(TokenTexts(tokenizer), [Token(1, None)], 3, echoed=True)
    assert listed["token_logprobs"] == [None]
    assert listed["top_logprobs"] == [None]


def test_chats_list_bytes_and_alternatives(tokenizer) -> None:
    listed = replies.chat_logprobs(TokenTexts(tokenizer), _tokens(tokenizer, "rest"), 1)
    (first, *_) = listed["content"]
    assert bytes(first["bytes"]).decode() == first["token"]
    assert len(first["top_logprobs"]) == 1
    assert first["top_logprobs"][0]["logprob"] == first["logprob"]


def test_an_answer_grows_by_pieces() -> None:
    answer = Answer()
    answer.add("ba", Token(1, -1.0), None)
    answer.add("rk", None, "stop")
    assert (answer.text, len(answer.tokens), answer.finish) == ("bark", 1, "stop")
