"""The engine against the plainest second implementation: one whole forward pass per continuation."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from biomistral.errors import ModelError
from biomistral.models import scoring
from biomistral.models.continuations import TextEncoder
from biomistral.models.scoring import score_requests
from biomistral.records import Request

WORDS = [
    "fever",
    "river",
    "bark",
    "water",
    "rest",
    "cold",
    "valley",
    "Fieber",
    "Rinde",
    "кора",
    "河谷",
]


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return TextEncoder(tokenizer)


@pytest.fixture(params=["packed", "padded"])
def engine(request, monkeypatch):
    """Let a test run once with each engine, whatever the model."""
    monkeypatch.setattr(scoring, "is_supported", lambda _: request.param == "packed")
    return request.param


def make_requests(kind: str, *, shared: bool, count: int = 7) -> list[Request]:
    generator = random.Random(0)

    def text(least: int, most: int) -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(least, most)))

    example = f"**Question:** {text(8, 8)} \n (A) bark \n (B) salt \n **Answer:**(A \n "
    requests = []
    for index in range(count):
        shots = example if shared else f"{text(1, 9)} \n "
        prompt = f"{shots}**Question:** {text(2, 12)} \n "
        if kind == "letter":
            prompt, continuations = prompt + "**Answer:**(", tuple("ABCDE"[: 2 + index % 4])
        else:
            continuations = tuple(" " + text(1, 5) for _ in range(2 + index % 3))
            prompt += "**Answer:**"
        requests.append(
            Request(f"q{index}", "plants", "en", 1, 1, kind, prompt, continuations, 0)  # type: ignore[arg-type]
        )
    return requests


def plain_logprobs(model, tokenizer, request: Request) -> list[float]:
    """Each continuation by itself: no cache, no batch, no mask, all positions through the head."""
    whole = [tokenizer(request.prompt + text)["input_ids"] for text in request.continuations]
    prompt = tokenizer(request.prompt)["input_ids"]
    start = len(prompt)
    while any(ids[:start] != prompt[:start] for ids in whole):
        start -= 1
    answers = []
    for text, ids in zip(request.continuations, whole, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        total = sum(logprobs[place - 1, ids[place]].item() for place in range(start, len(ids)))
        answers.append(total / len(text.encode()) if request.scoring == "cloze" else total)
    return answers


def differences(left, right) -> float:
    return max(
        abs(a - b)
        for one, two in zip(left, right, strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["letter", "cloze"])
def test_scores_equal_plain_forward_passes(engine, model, tokenizer, encoder, kind, shared):
    requests = make_requests(kind, shared=shared)
    found = score_requests(model, encoder, requests, batch_tokens=150)
    expected = [plain_logprobs(model, tokenizer, request) for request in requests]
    assert differences(found.logprobs, expected) < 1e-4


@pytest.mark.parametrize("kind", ["letter", "cloze"])
def test_scores_do_not_depend_on_batch_size_order_or_company(engine, model, encoder, kind):
    requests = make_requests(kind, shared=True) + make_requests(kind, shared=False)
    whole = score_requests(model, encoder, requests).logprobs
    small = score_requests(model, encoder, requests, batch_tokens=64).logprobs
    turned = score_requests(model, encoder, requests[::-1]).logprobs[::-1]
    alone = [score_requests(model, encoder, [request]).logprobs[0] for request in requests]
    for other in (small, turned, alone):
        assert differences(whole, other) < 1e-4
        # Alone nothing is shared, so attention adds up in other pieces.
        if engine == "packed" and other is not alone:
            assert other == whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_numbers_are_the_same_bits_in_any_batch_and_order(tiny_model, encoder, dtype):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype).eval()
    requests = make_requests("letter", shared=True, count=60)
    whole = score_requests(model, encoder, requests).logprobs
    for batch_tokens in (1, 300, 900):
        assert score_requests(model, encoder, requests, batch_tokens=batch_tokens).logprobs == whole
    assert score_requests(model, encoder, requests[::-1]).logprobs[::-1] == whole


def test_both_engines_agree(model, encoder, monkeypatch):
    requests = make_requests("letter", shared=True) + make_requests("cloze", shared=True)
    packed = score_requests(model, encoder, requests).logprobs
    monkeypatch.setattr(scoring, "is_supported", lambda _: False)
    assert differences(packed, score_requests(model, encoder, requests).logprobs) < 1e-4


def test_published_letters_take_the_best_of_the_tokens_that_decode_to_them(model, encoder):
    letter = make_requests("letter", shared=True)
    published = [dataclasses.replace(request, scoring="published") for request in letter]
    plain = score_requests(model, encoder, letter)
    scored = score_requests(model, encoder, published)
    vocabulary = [encoder.tokenizer.decode([index]) for index in range(len(encoder.tokenizer))]
    for request, best, one, top in zip(
        published, scored.logprobs, plain.logprobs, scored.tops, strict=True
    ):
        ids = torch.tensor([encoder.encode([request.prompt])[0]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, -1].log_softmax(dim=-1)
        for text, found, alone in zip(request.continuations, best, one, strict=True):
            same = [i for i, decoded in enumerate(vocabulary) if decoded.strip() == text]
            assert found == pytest.approx(max(float(logprobs[i]) for i in same), abs=1e-4)
            assert found >= alone
        assert top == vocabulary[int(logprobs.argmax())]
    assert plain.tops == [""] * len(letter)


def test_results_are_told_as_they_come(model, encoder):
    requests = make_requests("letter", shared=True, count=9)
    told = {}

    def keep(indices, logprobs, tops):
        assert len(indices) == len(logprobs) == len(tops)
        told.update(zip(indices, logprobs, strict=True))

    scored = score_requests(model, encoder, requests, batch_tokens=80, on_batch=keep)
    assert [told[index] for index in range(len(requests))] == scored.logprobs


def test_choices_of_a_cloze_question_share_its_prompt(engine, model, encoder, tokenizer):
    prompt = "**Question:** " + "river " * 30 + "**Answer:**"
    request = Request("q", "plants", "en", 0, 1, "cloze", prompt, (" bark", " salt", " cold"), 0)
    scored = score_requests(model, encoder, [request])
    assert scored.num_forward_tokens < 1.5 * len(tokenizer(prompt)["input_ids"])


def test_letters_take_their_share_of_the_whole_vocabulary(engine, model, encoder):
    requests = make_requests("letter", shared=True)
    for logprobs in score_requests(model, encoder, requests).logprobs:
        assert np.exp(logprobs).sum() < 1


@pytest.mark.parametrize("kind", ["letter", "cloze"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_sliding_window_hides_what_the_model_hides(engine, tokenizer, encoder, kind, shared):
    torch.manual_seed(0)
    config = MistralConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=len(tokenizer), sliding_window=24,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    requests = make_requests(kind, shared=shared, count=4)
    found = score_requests(model, encoder, requests, batch_tokens=200)
    expected = [plain_logprobs(model, tokenizer, request) for request in requests]
    assert differences(found.logprobs, expected) < 1e-4


def test_letters_do_not_tie_in_bfloat16(engine, tiny_model, encoder, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).eval()
    requests = make_requests("letter", shared=True, count=100)
    assert not ties(score_requests(model, encoder, requests).logprobs)
    monkeypatch.setattr(scoring, "float32_head", lambda head: lambda hidden: head(hidden).float())
    if engine == "padded":  # or this would show nothing
        assert ties(score_requests(model, encoder, requests).logprobs)


def ties(rows) -> int:
    return sum(len(set(row)) < len(row) for row in rows)


def test_no_requests_have_no_scores(model, encoder):
    assert score_requests(model, encoder, []).logprobs == []


def test_progress_ends_at_the_number_of_requests(model, encoder):
    calls = []
    requests = make_requests("letter", shared=True)
    score_requests(
        model, encoder, requests, batch_tokens=80, progress=lambda *call: calls.append(call)
    )
    assert len(calls) > 1
    assert calls[-1] == (len(requests), len(requests), "questions")


def test_a_prompt_longer_than_the_context_is_refused_with_the_remedy(model, encoder):
    request = Request("q7", "plants", "en", 3, 1, "letter", "fever " * 600 + "(", ("B", "C"), 0)
    with pytest.raises(ModelError, match=r"'q7' of plants.*3 worked.*context is 512; use fewer"):
        score_requests(model, encoder, [request])


def test_a_model_without_numbers_is_refused(tiny_model, encoder):
    broken = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"'q0' of plants \(en\): the model gave.*nan.*float32"):
        score_requests(broken, encoder, make_requests("letter", shared=True, count=1))


def test_a_tokenizer_of_another_model_is_refused(tiny_model, encoder):
    small = AutoModelForCausalLM.from_pretrained(tiny_model)
    small.resize_token_embeddings(100)
    with pytest.raises(ModelError, match="the model's embedding ends at 99"):
        score_requests(small, encoder, make_requests("letter", shared=True, count=1))


def test_a_head_that_is_more_than_a_matrix_is_refused(model, encoder, monkeypatch):
    monkeypatch.setattr(model.config, "final_logit_softcapping", 30.0, raising=False)
    with pytest.raises(ModelError, match="final_logit_softcapping"):
        score_requests(model, encoder, make_requests("letter", shared=True, count=1))
