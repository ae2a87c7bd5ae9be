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
def test_scores_equal_plain_forward_passes(model, tokenizer, encoder, kind, shared):
    requests = make_requests(kind, shared=shared)
    found = score_requests(model, encoder, requests, batch_tokens=150)
    expected = [plain_logprobs(model, tokenizer, request) for request in requests]
    assert differences(found.logprobs, expected) < 1e-4


@pytest.mark.parametrize("kind", ["letter", "cloze"])
def test_scores_do_not_depend_on_batch_size_order_or_company(model, encoder, kind):
    requests = make_requests(kind, shared=True)
    together = score_requests(model, encoder, requests, batch_tokens=10_000).logprobs
    one_by_one = score_requests(model, encoder, requests, batch_tokens=1).logprobs
    turned = score_requests(model, encoder, requests[::-1], batch_tokens=200).logprobs[::-1]
    alone = [score_requests(model, encoder, [request]).logprobs[0] for request in requests]
    for other in (one_by_one, turned, alone):
        assert differences(together, other) < 1e-5


def test_the_shared_beginning_is_run_once(model, encoder):
    requests = [
        dataclasses.replace(request, continuations=("B", "C"))
        for request in make_requests("letter", shared=True)
    ]
    shared = scoring._shared_tokens(scoring.encode_requests(encoder, requests))
    assert shared > 30
    scored = score_requests(model, encoder, requests, batch_tokens=1)  # so that nothing is padded
    saved = (len(requests) - 1) * shared
    assert scored.num_forward_tokens == scored.num_prompt_tokens - saved


def test_choices_of_a_cloze_question_share_its_prompt(model, encoder, tokenizer):
    prompt = "**Question:** " + "river " * 30 + "**Answer:**"
    request = Request("q", "plants", "en", 0, 1, "cloze", prompt, (" bark", " salt", " cold"), 0)
    scored = score_requests(model, encoder, [request])
    assert scored.num_forward_tokens < 1.5 * len(tokenizer(prompt)["input_ids"])


def test_letters_take_their_share_of_the_whole_vocabulary(model, encoder):
    requests = make_requests("letter", shared=True)
    for logprobs in score_requests(model, encoder, requests).logprobs:
        assert np.exp(logprobs).sum() < 1


@pytest.mark.parametrize("kind", ["letter", "cloze"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_sliding_window_hides_what_the_model_hides(tokenizer, encoder, kind, shared):
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


def test_logits_are_read_in_parts_without_a_difference(model, encoder, monkeypatch):
    requests = make_requests("cloze", shared=True)
    whole = score_requests(model, encoder, requests).logprobs
    monkeypatch.setattr(scoring, "_LOGITS_AT_ONCE", 3 * model.config.vocab_size)
    assert differences(whole, score_requests(model, encoder, requests).logprobs) < 1e-5


def test_letters_do_not_tie_in_bfloat16(tiny_model, encoder, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).eval()
    requests = make_requests("letter", shared=True, count=100)
    assert not ties(score_requests(model, encoder, requests).logprobs)
    monkeypatch.setattr(scoring, "_float32_head", lambda head: lambda hidden: head(hidden).float())
    assert ties(score_requests(model, encoder, requests).logprobs)  # or this would show nothing


def ties(rows) -> int:
    return sum(len(set(row)) < len(row) for row in rows)


def test_a_bfloat16_head_gives_the_best_letters_of_exact_arithmetic():
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(64, 4, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():  # letters that are hard to tell apart, far from 0
        rows = torch.randn(64, generator=generator) + 0.02 * torch.randn(4, 64, generator=generator)
        head.weight.copy_(rows)
    hidden = torch.randn(300, 64, generator=generator).bfloat16()
    exact = (hidden.double() @ head.weight.double().T).argmax(dim=1)
    assert torch.equal(scoring._float32_head(head)(hidden).argmax(dim=1), exact)
    assert (head(hidden).argmax(dim=1) == exact).float().mean() < 0.95


def test_a_head_with_a_bias_and_one_that_is_no_plain_matrix():
    hidden = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.Linear(8, 5)
    assert torch.allclose(scoring._float32_head(plain)(hidden), plain(hidden))
    other = torch.nn.Sequential(plain, torch.nn.Tanh()).bfloat16()
    logits = scoring._float32_head(other)(hidden.bfloat16())
    assert torch.equal(logits, other(hidden.bfloat16()).float())


def test_no_batch_is_larger_than_asked_unless_one_row_is(encoder):
    encoded = scoring.encode_requests(encoder, make_requests("cloze", shared=False))
    for batch_tokens in (1, 100, 300):
        batches = list(scoring._batches(encoded, 0, batch_tokens))
        assert sorted(index for batch in batches for index in batch) == list(range(len(encoded)))
        for batch in batches:
            longest = max(scoring._row_length(encoded[index], 0) for index in batch)
            assert len(batch) == 1 or len(batch) * longest <= batch_tokens


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
