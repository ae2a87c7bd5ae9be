from __future__ import annotations

import contextlib

import pytest
import torch
from transformers import MistralConfig

from biomistral.errors import ModelError
from biomistral.evaluation import engine
from biomistral.evaluation.engine import TransformersEngine, is_out_of_memory, tokens_that_fit
from biomistral.models import scoring
from biomistral.progress import ignore
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Request

SETTINGS = EvaluateSettings(models=["tiny"], precision="float32", batch_tokens=512)


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return [
        Request(f"q{i}", "plants", "en", 0, 1, "letter", f"{'bark ' * i}Answer:(", ("A", "B"), 0)
        for i in range(6)
    ]


@pytest.fixture
def full_above(monkeypatch):
    """Return a function: batches of more tokens than this run out of memory, after one answer."""
    real = scoring.score_requests
    tried: list[int] = []

    def limit(most: int) -> list[int]:
        def score_requests(model, encoder, requests, *, batch_tokens, on_batch, progress):
            tried.append(batch_tokens)
            if batch_tokens <= most:
                return real(
                    model, encoder, requests,
                    batch_tokens=batch_tokens, on_batch=on_batch, progress=progress,
                )  # fmt: skip
            real(model, encoder, requests[:1], on_batch=on_batch, progress=progress)
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(scoring, "score_requests", score_requests)
        return tried

    return limit


def _answers(tiny_model, requests, settings=SETTINGS):
    kept: dict[int, tuple[float, ...]] = {}

    def keep(indices, logprobs, tops):
        assert not kept.keys() & set(indices), "answered twice"
        kept.update(zip(indices, logprobs, strict=True))

    used = TransformersEngine(settings, tiny_model)
    cost = used.score(requests, keep=keep, progress=ignore)
    return used, kept, cost


def test_out_of_memory_halves_the_batch_and_goes_on_where_it_was(tiny_model, requests, full_above):
    _, expected, cost = _answers(tiny_model, requests)
    assert cost["prompt_tokens"] > 0
    tried = full_above(128)
    used, kept, cost = _answers(tiny_model, requests)
    assert tried == [512, 256, 128]
    assert kept.keys() == expected.keys()
    for index, row in kept.items():
        assert row == pytest.approx(expected[index], abs=1e-5)
    assert cost == {"prompt_tokens": None, "forward_tokens": None}
    used.score(requests, keep=lambda *_: None, progress=ignore)
    assert tried[3:] == [128]  # it stays halved


def test_a_batch_that_cannot_be_halved_is_an_error_with_the_remedies(
    tiny_model, requests, full_above
):
    full_above(1)
    with pytest.raises(ModelError, match=r"smallest batch \(64 tokens .*quantized model"):
        _answers(tiny_model, requests)


def test_a_model_larger_than_the_memory_is_an_error(tiny_model, requests, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(engine, "load_model", refuse)
    with pytest.raises(ModelError, match="more memory than there is, in float32"):
        _answers(tiny_model, requests)


def test_other_errors_are_not_taken_for_it(tiny_model, requests, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(scoring, "score_requests", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        _answers(tiny_model, requests)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when")],
)
def test_all_ways_to_run_out_of_memory_are_known(error):
    assert is_out_of_memory(error)


def test_progress_counts_on_behind_what_was_answered(tiny_model, requests, full_above):
    full_above(256)
    calls = []
    TransformersEngine(SETTINGS, tiny_model).score(
        requests, keep=lambda *_: None, progress=lambda *call: calls.append(call[:2])
    )
    assert calls[-1] == (6, 6)


def test_prompts_are_measured_to_the_token(tiny_model, requests):
    used = TransformersEngine(SETTINGS, tiny_model)
    limit = used.context_tokens
    assert limit == 512
    encoder = scoring.TextEncoder(engine.load_tokenizer(tiny_model))

    def asked(words: int) -> Request:
        return Request("q", "t", "en", 0, 1, "letter", "(" * words, ("A", "B"), 0)

    num_extra = len(encoder.encode(["(" * 100])[0]) - 100
    fits = asked(limit - num_extra)
    assert used.too_long([fits]) == {}
    assert used.too_long([fits, asked(limit - num_extra + 1)]) == {1: limit + 1}


def test_short_prompts_need_no_tokenizer(tiny_model, requests, monkeypatch):
    monkeypatch.setattr(engine, "load_tokenizer", None)
    assert TransformersEngine(SETTINGS, tiny_model).too_long(requests) == {}


def test_precision_and_model_are_facts(tiny_model, make_model):
    facts = TransformersEngine(SETTINGS, tiny_model).facts()
    other = SETTINGS.model_copy(update={"precision": "bfloat16"})
    assert TransformersEngine(other, tiny_model).facts() != facts
    assert TransformersEngine(SETTINGS, make_model(1)).facts() != facts
    smaller = SETTINGS.model_copy(update={"batch_tokens": 64})
    assert TransformersEngine(smaller, tiny_model).facts() == facts


def test_tokens_that_fit_follow_from_the_shape_and_never_from_a_trial():
    shape = MistralConfig(  # of Mistral 7B, by hand: 344,064 bytes a token, 0.5 GB for the head
        vocab_size=32_000, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    head = 4 * 32_000 * 4096
    assert tokens_that_fit(shape, int((head + 344_064 * 5000) / 0.8) + 1, 2) == 5000
    assert tokens_that_fit(shape, 2 * head, 2) > tokens_that_fit(shape, 2 * head, 4) > 0
    assert tokens_that_fit(shape, 0, 2) < 0


@pytest.mark.parametrize(("free_bytes", "most"), [(10**9, 512), (2 * 10**6, None), (0, 64)])
def test_a_batch_is_no_larger_than_what_is_free_beside_the_model(
    tiny_model, requests, full_above, monkeypatch, free_bytes, most
):
    """On a device that says how much is free; the model itself stays where it is."""
    tried = full_above(512)
    used = TransformersEngine(SETTINGS, tiny_model)
    model = used._opened()
    monkeypatch.setattr(type(model), "device", torch.device("meta"))
    monkeypatch.setattr(engine, "free_memory_bytes", lambda _: free_bytes)
    with contextlib.suppress(Exception):  # it is asked on a device that is none
        used.score(requests, keep=lambda *_: None, progress=ignore)
    wanted = most or tokens_that_fit(model.config, free_bytes, 4)
    assert tried[0] == wanted
    assert 64 <= wanted <= 512
