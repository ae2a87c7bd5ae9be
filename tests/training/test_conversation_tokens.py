"""Conversations as tokens: what the assistant says is learned, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from biomistral.errors import InputError, ModelError
from biomistral.ngrams import WIDTH, Runs, write_runs
from biomistral.training.conversation_tokens import Renderer, encode_pairs, without_tests
from biomistral.training.conversations import Pair, Spot

INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}"
    "{{ eos_token }}{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
# Only the last answer is written: what came before reads otherwise once more follows.
FORGETFUL = "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }};{% endif %}{% endfor %}"
SPOT = Spot("data.jsonl", 3)


def talk(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]


@pytest.fixture
def chatty(tokenizer, tmp_path):
    """Return a function: chat template -> a tokenizer that has it."""

    def make(template: str | None = INSTRUCT):
        tokenizer.save_pretrained(tmp_path)
        copy = AutoTokenizer.from_pretrained(tmp_path)
        copy.chat_template = template
        return copy

    return make


def test_every_answer_and_its_end_is_learned_and_no_question(chatty):
    tokenizer = chatty()
    messages = talk("What treats the fever?", "Bark and rest.", "And cold water?", "Never alone.")
    lesson = Renderer(tokenizer).lesson(SPOT, messages)
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert list(lesson.ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert lesson.ids.count(tokenizer.bos_token_id) == 1
    learned = [i for i, is_answer in zip(lesson.ids, lesson.is_answer, strict=True) if is_answer]
    assert tokenizer.decode(learned) == " Bark and rest.</s> Never alone.</s>".lstrip(
        "" if tokenizer.decode(learned).startswith(" ") else " "
    )
    assert lesson.letters == ()


def test_a_tokenizer_without_a_template_is_refused(chatty):
    with pytest.raises(ModelError, match="has no chat template, which conversations need"):
        Renderer(chatty(None))


def test_control_tokens_in_a_message_are_refused(chatty):
    with pytest.raises(InputError, match=r"data\.jsonl, line 3: .*'</s>', a control token"):
        Renderer(chatty()).lesson(SPOT, talk("What is </s>?", "A mark."))


def test_a_template_that_rewrites_what_was_said_is_refused(chatty):
    renderer = Renderer(chatty(FORGETFUL))
    with pytest.raises(InputError, match="line 3: the model's chat template writes earlier"):
        renderer.lesson(SPOT, talk("a", "b", "c", "d"))


def test_a_template_that_refuses_is_told_with_the_line(chatty):
    renderer = Renderer(chatty("{{ raise_exception('no system') }}"))
    with pytest.raises(InputError, match=r"line 3: the model's chat template refuses .*no system"):
        renderer.lesson(SPOT, talk("a", "b"))


def test_pairs_of_texts_and_of_messages_part_where_the_answers_begin(chatty):
    tokenizer = chatty()
    texts = Pair("The fever is treated with", " bark", " cold water")
    ask, good, bad = talk("What helps?"), talk("", "Bark.")[1:], talk("", "Water.")[1:]
    plain, rendered = encode_pairs(tokenizer, [(SPOT, texts), (SPOT, Pair(ask, good, bad))])
    eos = tokenizer.eos_token_id
    assert plain.prompt[0] == tokenizer.bos_token_id
    assert (plain.chosen[-1], plain.rejected[-1]) == (eos, eos)
    assert tokenizer.decode(plain.prompt + plain.chosen[:-1]).endswith("treated with bark")
    assert tokenizer.decode(rendered.prompt).endswith("[/INST]")
    assert tokenizer.decode(rendered.rejected).strip() == "Water.</s>"


def test_marks_in_plain_texts_are_text(chatty):
    tokenizer = chatty()
    [pair] = encode_pairs(tokenizer, [(SPOT, Pair("What is </s> ", "a mark", "a moss"))])
    assert tokenizer.eos_token_id not in pair.prompt


LONG = "In the third valley a healer gave her patient the bark of a grey willow at dawn"


def test_what_holds_a_passage_of_a_test_is_left_out(tmp_path):
    write_runs(tmp_path / "runs.parquet", [np.unique(Runs().of(LONG))], WIDTH)
    plain, told = talk("What helps?", "Bark."), talk(f"So: {LONG}?", "Bark.")
    found = without_tests([(SPOT, plain), (SPOT, told)], tmp_path / "runs.parquet")
    assert [item for _, item in found] == [plain]
    pairs = [(SPOT, Pair("Q", LONG, "b")), (SPOT, Pair(talk("Q"), talk("", "a")[1:], told[1:]))]
    assert len(without_tests(pairs, tmp_path / "runs.parquet")) == 1
    assert len(without_tests(pairs, None)) == 2
