from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biomistral.errors import ModelError
from biomistral.models.continuations import (
    TextEncoder,
    common_length,
    encode_requests,
    shared_length,
)
from biomistral.records import Request


def request_of(prompt: str, *continuations: str, scoring: str = "cloze") -> Request:
    return Request("q1", "plants", "en", 0, 1, scoring, prompt, continuations, 0)  # type: ignore[arg-type]


def test_lines_encoded_apart_give_the_ids_of_the_whole_text(tokenizer):
    texts = [
        "The fever \n (A) bark \n\n (B) 河谷 \n **Answer:**(",
        "one line only",
        "two\nlines",
        "ends in a break\n",
        "The fever \n (A) bark \n\n (B) 河谷 \n **Answer:**(A",
    ]
    encoder = TextEncoder(tokenizer)
    assert encoder._by_line
    assert encoder.encode(texts) == [tokenizer(text)["input_ids"] for text in texts]


@settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(texts=st.lists(st.text(alphabet="ab( A\n<s>▁é河", max_size=20), min_size=1, max_size=4))
def test_any_texts_are_encoded_as_the_tokenizer_does(tokenizer, texts):
    expected = [tokenizer(text, split_special_tokens=True)["input_ids"] for text in texts]
    assert TextEncoder(tokenizer).encode(texts) == expected


@pytest.mark.parametrize("by_line", [True, False])
def test_a_control_token_spelt_in_a_text_is_text(tokenizer, by_line):
    encoder = TextEncoder(tokenizer)
    encoder._by_line = by_line
    texts = ["</s> fever", "The fever </s>\n<s> (A) bark", "<unk></s>"]
    control = set(tokenizer.all_special_ids)
    for text, ids in zip(texts, encoder.encode(texts), strict=True):
        assert ids[0] == tokenizer.bos_token_id
        assert not control & set(ids[1:])
        assert "".join(tokenizer.decode(ids[1:]).split()) == "".join(text.split())


def test_ordinary_texts_have_the_ids_that_the_model_was_trained_on(tokenizer):
    texts = ["The fever < 40 /s> is treated", "河谷\n (B) bark", ""]
    assert TextEncoder(tokenizer).encode(texts) == [tokenizer(text)["input_ids"] for text in texts]


def test_no_texts_give_no_ids(tokenizer):
    assert TextEncoder(tokenizer).encode([]) == []


def test_tokens_that_span_a_line_break_are_kept_whole():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"a": 0, "\n": 1, "b": 2, "a\n": 3, "<unk>": 4}
    joined = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            models.BPE(vocab=vocabulary, merges=[("a", "\n")], unk_token="<unk>")
        ),
        unk_token="<unk>",
    )
    encoder = TextEncoder(joined)
    assert not encoder._by_line
    assert encoder.encode(["b", "a\nb"]) == [[2], [3, 2]]


def test_closing_tokens_are_left_out():
    from tokenizers import Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(vocab={"x": 0, "<s>": 1, "</s>": 2}, merges=[]))
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    closing = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    assert closing("xx")["input_ids"] == [1, 0, 0, 2]
    assert TextEncoder(closing).encode(["xx"]) == [[1, 0, 0]]


def test_where_nothing_joins_the_trunk_is_the_prompt(tokenizer):
    request = request_of("The fever:", " bark", " water and rest")
    [encoded] = encode_requests(TextEncoder(tokenizer), [request])
    assert encoded.trunk == tokenizer("The fever:")["input_ids"]
    assert encoded.num_prompt_tokens == len(encoded.trunk)
    for text, tail in zip(request.continuations, encoded.tails, strict=True):
        assert encoded.trunk + tail == tokenizer("The fever:" + text)["input_ids"]


def test_a_token_joined_over_the_boundary_goes_to_every_tail_and_is_never_split(tokenizer):
    prompt = "Answer: re"
    [encoded] = encode_requests(TextEncoder(tokenizer), [request_of(prompt, "st", "d")])
    tokens = [tokenizer.convert_ids_to_tokens(tail) for tail in encoded.tails]
    assert tokens == [["▁rest"], ["▁re", "d"]]  # this tokenizer has ▁rest but not ▁red
    assert encoded.trunk == tokenizer(prompt)["input_ids"][:-1]
    for text, tail in zip(("st", "d"), encoded.tails, strict=True):
        assert encoded.trunk + tail == tokenizer(prompt + text)["input_ids"]


def test_a_letter_of_several_tokens_is_refused_by_name(tokenizer):
    request = request_of("Answer: (", "A", "ab", scoring="letter")
    with pytest.raises(ModelError, match=r"'q1' of plants \(en\).*letter 'ab' is 2 tokens"):
        encode_requests(TextEncoder(tokenizer), [request])


def test_two_letters_of_one_token_are_refused(tokenizer):
    request = request_of("Answer: (", "B", "B", scoring="letter")
    with pytest.raises(ModelError, match="letters 'B' and 'B' are the same tokens"):
        encode_requests(TextEncoder(tokenizer), [request])


def test_two_equal_choices_may_be_scored_by_their_text(tokenizer):
    [encoded] = encode_requests(TextEncoder(tokenizer), [request_of("Answer:", " a", " a")])
    assert encoded.tails[0] == encoded.tails[1]


def test_an_empty_continuation_is_refused(tokenizer):
    with pytest.raises(ModelError, match="continuation '' adds no token"):
        encode_requests(TextEncoder(tokenizer), [request_of("Answer:", "", " bark")])


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5),
)
def test_shared_length_is_that_of_the_longest_common_prefix(sequences):
    def slow_length(rows: list[list[int]]) -> int:
        columns = zip(*rows, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))

    assert shared_length(sequences) == slow_length(sequences)
    left, right = sequences[0], sequences[-1]
    assert common_length(left, right) == slow_length([left, right])
