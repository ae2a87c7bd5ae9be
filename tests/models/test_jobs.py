"""An answer on its way from the engine to whoever reads it."""

from __future__ import annotations

import numpy as np
import pytest

from biomistral.errors import ModelError
from biomistral.models.conversations import plain_ids
from biomistral.models.jobs import Job
from biomistral.models.sampling import Sampling


@pytest.fixture
def job_of(tokenizer):
    return lambda **settings: Job(plain_ids(tokenizer, "Q:\n"), Sampling(**settings), tokenizer)


def said(job, tokenizer, text, eos=frozenset()):
    """Let a model be certain of each token of a text; return whether the job took the last."""
    start = len(plain_ids(tokenizer, "Q:\n"))
    for token in plain_ids(tokenizer, "Q:\n" + text)[start:]:
        logits = np.zeros(len(tokenizer), np.float32)
        logits[token] = 50
        if job.take(logits, eos):
            return True
    return False


def test_pieces_come_in_order_and_the_last_says_why(tokenizer, job_of):
    job = job_of(max_new_tokens=3)
    assert said(job, tokenizer, "bark and rest and more")
    pieces = list(job.pieces())
    assert [piece.finish for piece in pieces] == [None, None, "length"]
    assert "bark and rest".startswith("".join(piece.text for piece in pieces))
    assert all(-1e-6 <= piece.logprob <= 0 for piece in pieces)


def test_the_closing_token_ends_an_answer_unless_it_is_to_be_ignored(tokenizer, job_of):
    eos = tokenizer.eos_token_id
    logits = np.zeros(len(tokenizer), np.float32)
    logits[eos] = 50
    job = job_of()
    assert job.take(logits, frozenset([eos]))
    assert [(p.text, p.token_id, p.finish) for p in job.pieces()] == [("", eos, "stop")]
    assert not job_of(ignore_eos=True).take(logits, frozenset([eos]))


def test_a_stop_text_ends_it_and_is_not_part_of_it(tokenizer, job_of):
    job = job_of(stop=("rest",))
    assert said(job, tokenizer, "bark and rest and more")
    pieces = list(job.pieces())
    assert "".join(piece.text for piece in pieces) == "bark and "
    assert pieces[-1].finish == "stop"


def test_a_stop_text_that_is_complete_with_the_last_token_counts(tokenizer, job_of):
    number = len(plain_ids(tokenizer, "Q:\nbark")) - len(plain_ids(tokenizer, "Q:\n"))
    job = job_of(stop=("bark",), max_new_tokens=number)
    said(job, tokenizer, "bark and rest")
    assert list(job.pieces())[-1].finish == "stop"


def test_what_was_held_back_comes_with_the_end(tokenizer, job_of):
    job = job_of(stop=("bark and water",))
    said(job, tokenizer, "bark and ")
    job.end()
    pieces = list(job.pieces())
    assert "".join(piece.text for piece in pieces) == "bark and "
    assert (pieces[-1].finish, pieces[-1].token_id) == ("cancelled", None)


def test_an_error_reaches_the_reader(job_of):
    job = job_of()
    job.end(ModelError("broken"))
    with pytest.raises(ModelError, match="broken"):
        list(job.pieces())


def test_leaving_the_loop_early_cancels(tokenizer, job_of):
    job = job_of()
    said(job, tokenizer, "bark and rest")
    for _ in job.pieces():
        break
    assert job.is_cancelled
