"""Reading back: the numbers of scoring and of a plain forward pass."""

from __future__ import annotations

import pytest
import torch

from biomistral.errors import ModelError
from biomistral.models.continuations import TextEncoder
from biomistral.models.echoing import echo
from biomistral.models.loading import load_model
from biomistral.models.scoring import score_requests
from biomistral.records import Request

SEQUENCES = [[1, 300, 301, 302, 303], [1, 310], [1], [1, *range(270, 400)]]


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model, precision="float32")


def test_every_token_has_the_log_probability_of_a_plain_forward_pass(model) -> None:
    for ids, read in zip(SEQUENCES, echo(model, SEQUENCES, num_tops=3), strict=True):
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        assert read.logprobs[0] is None
        assert read.tops[0] == ()
        assert len(read.logprobs) == len(read.tops) == len(ids)
        for place in range(1, len(ids)):
            assert read.logprobs[place] == pytest.approx(
                logprobs[place - 1, ids[place]].item(), abs=1e-4
            )
            values, tokens = logprobs[place - 1].topk(3)
            assert [token for token, _ in read.tops[place]] == tokens.tolist()
            assert [value for _, value in read.tops[place]] == pytest.approx(
                values.tolist(), abs=1e-4
            )
        assert read.following[0][0] == logprobs[-1].argmax().item()


def test_company_changes_no_bit(model) -> None:
    together = echo(model, SEQUENCES, num_tops=2)
    alone = [echo(model, [ids], num_tops=2)[0] for ids in SEQUENCES]
    assert together == alone


def test_the_sum_over_a_continuation_is_its_score(model, tokenizer) -> None:
    encoder = TextEncoder(tokenizer)
    request = Request(
        "q", "t", "en", 0, 1, "cloze", "The fever is treated with", (" cold bark", " rest"), 0
    )
    scored = score_requests(model, encoder, [request]).logprobs[0]
    for text, expected in zip(request.continuations, scored, strict=True):
        prompt, whole = encoder.encode([request.prompt, request.prompt + text])
        (read,) = echo(model, [whole], num_tops=1)
        total = sum(value for value in read.logprobs[len(prompt) :] if value is not None)
        assert total / len(text.encode()) == pytest.approx(expected, abs=1e-6)


def test_a_model_that_gives_no_numbers_is_refused(make_model) -> None:
    broken = load_model(make_model(3), precision="float32")
    with torch.no_grad():
        broken.get_decoder().norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="no numbers"):
        echo(broken, [[1, 2, 3]], num_tops=1)
