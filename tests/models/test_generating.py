"""The engine: what it says, to whom, whoever else asks, and when it says no."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from biomistral.errors import InputError, ModelError
from biomistral.models import admission, decoding
from biomistral.models.continuations import TextEncoder
from biomistral.models.conversations import plain_ids
from biomistral.models.generating import Engine, Sampling
from biomistral.models.loading import load_model, load_tokenizer
from biomistral.models.scoring import score_requests
from biomistral.records import Request

PROMPTS = [
    "The fever of the river valley",
    "河谷热用",
    "La fièvre",
    "Answer:(",
    "Das Fieber im Tal wird mit Rinde behandelt. " * 3,
]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load_model(tiny_model, precision="float32"), load_tokenizer(tiny_model)


@pytest.fixture
def engine(loaded):
    return Engine(*loaded, max_batch=3)


def run(engine):
    for _ in range(10_000):
        if not engine.step():
            return
    raise AssertionError("the engine never comes to an end")


def answer(engine, prompt, **settings):
    job = engine.submit(prompt, Sampling(**settings))
    run(engine)
    return list(job.pieces())


def ids(engine, text):
    return plain_ids(engine._tokenizer, text)


def test_greedy_answers_are_those_of_transformers(loaded, engine):
    model, tokenizer = loaded
    prompt = plain_ids(tokenizer, PROMPTS[0])
    with torch.inference_mode():
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0
        )[0, len(prompt) :].tolist()
    pieces = answer(engine, prompt, max_new_tokens=20)
    assert [piece.token_id for piece in pieces] == expected


def test_log_probabilities_are_those_of_one_pass(loaded, engine):
    model, _ = loaded
    prompt = ids(engine, PROMPTS[0])
    pieces = answer(engine, prompt, max_new_tokens=8, temperature=1.0, seed=3, logprobs=2)
    tokens = [piece.token_id for piece in pieces]
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    expected = torch.log_softmax(logits.double(), dim=-1)
    for piece, row in zip(pieces, expected, strict=True):
        assert piece.logprob == pytest.approx(float(row[piece.token_id]), abs=1e-5)
        assert [index for index, _ in piece.top] == row.topk(2).indices.tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_is_the_same_whoever_else_is_answered(engine, temperature):
    settings = [
        Sampling(max_new_tokens=10 + 3 * index, temperature=temperature, seed=index)
        for index in range(len(PROMPTS))
    ]
    prompts = [ids(engine, text) for text in PROMPTS]
    alone = []
    for prompt, sampling in zip(prompts, settings, strict=True):
        job = engine.submit(prompt, sampling)
        run(engine)
        alone.append(list(job.pieces()))
    jobs = [engine.submit(p, s) for p, s in zip(prompts, settings, strict=True)]
    run(engine)
    assert [list(job.pieces()) for job in jobs] == alone


def test_sequences_come_and_go_while_others_run(engine):
    long = engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=40, ignore_eos=True))
    for _ in range(5):
        engine.step()
    short = engine.submit(ids(engine, "rest"), Sampling(max_new_tokens=3, ignore_eos=True))
    for _ in range(4):
        engine.step()
    assert list(short.pieces())[-1].finish == "length"
    assert engine.stats().running == 1
    run(engine)
    assert len(list(long.pieces())) == 40


def test_no_more_run_together_than_are_allowed_and_none_is_forgotten(engine):
    jobs = [
        engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=5, ignore_eos=True))
        for _ in range(10)
    ]
    most = 0
    while engine.step():
        most = max(most, engine.stats().running)
    assert most == 3
    assert all(len(list(job.pieces())) == 5 for job in jobs)
    stats = engine.stats()
    assert (stats.queued, stats.running, stats.finished) == (0, 0, 10)
    assert stats.generated_tokens == 50


def test_the_bound_on_tokens_holds_and_nobody_is_overtaken(loaded):
    engine = Engine(*loaded, max_batch=8, max_tokens=50)
    prompt = ids(engine, "bark")
    big, small = 50 - len(prompt), 10 - len(prompt)
    first = engine.submit(prompt, Sampling(max_new_tokens=small, ignore_eos=True))
    second = engine.submit(prompt, Sampling(max_new_tokens=big, ignore_eos=True))
    third = engine.submit(prompt, Sampling(max_new_tokens=small, ignore_eos=True))
    while engine.step():
        stats = engine.stats()
        assert stats.cached_tokens <= stats.max_cached_tokens == 50
    assert [len(list(job.pieces())) for job in (first, second, third)] == [small, big, small]


def test_answers_of_open_length_run_together_and_all_come_to_their_end(loaded, monkeypatch):
    """Each may come to the whole bound: by what they may want, only one could run at a time."""
    monkeypatch.setattr(admission, "GROWTH", 4)
    engine, wide = Engine(*loaded, max_batch=8, max_tokens=40), Engine(*loaded, max_batch=8)
    sampling = Sampling(max_new_tokens=37, temperature=1.0, seed=1, ignore_eos=True)
    prompts = [[3 + n, 9, 4 + n] for n in range(8)]
    jobs = [engine.submit(prompt, sampling) for prompt in prompts]
    most = 0
    while engine.step():
        stats = engine.stats()
        assert stats.cached_tokens <= 40
        assert all(each.cache.length <= each.num_held for each in engine._running)
        most = max(most, stats.running)
    assert most > 3
    assert engine.stats().sent_back > 0
    undisturbed = [wide.submit(prompt, sampling) for prompt in prompts]
    run(wide)
    assert wide.stats().sent_back == 0
    answers, expected = ([list(job.pieces()) for job in each] for each in (jobs, undisturbed))
    assert [len(pieces) for pieces in answers] == [37] * 8
    assert answers == expected


def test_a_short_answer_of_open_length_waits_for_no_long_one(loaded, monkeypatch):
    monkeypatch.setattr(admission, "GROWTH", 4)
    engine = Engine(*loaded, max_batch=4, max_tokens=100)
    first = answer(Engine(*loaded), [8, 9], max_new_tokens=1)[0]
    engine.submit([5, 6], Sampling(max_new_tokens=98, ignore_eos=True))
    for _ in range(10):
        engine.step()
    engine._eos = frozenset([first.token_id])
    short = engine.submit([8, 9], Sampling(max_new_tokens=98))
    engine.step()
    assert list(short.pieces())[-1].finish == "stop"
    assert engine.stats().running == 1


def test_one_that_gave_up_its_place_can_be_cancelled_while_it_waits(loaded, monkeypatch):
    monkeypatch.setattr(admission, "GROWTH", 4)
    engine = Engine(*loaded, max_batch=2, max_tokens=24)
    sampling = Sampling(max_new_tokens=22, ignore_eos=True)
    jobs = [engine.submit([5, 6], sampling) for _ in range(2)]
    while not engine.stats().sent_back:
        assert engine.step()
    jobs[1].cancel()
    run(engine)
    assert len(list(jobs[0].pieces())) == 22
    pieces = list(jobs[1].pieces())
    assert len(pieces) > 1
    assert pieces[-1].finish == "cancelled"


def test_want_of_memory_while_it_grows_is_told_to_that_one(loaded, monkeypatch):
    monkeypatch.setattr(admission, "GROWTH", 4)
    engine = Engine(*loaded)
    grow = engine._decoder.grow

    def scarce(cache, capacity):
        if capacity > 20:
            raise RuntimeError("not enough memory")
        grow(cache, capacity)

    monkeypatch.setattr(engine._decoder, "grow", scarce)
    long = engine.submit([5, 6], Sampling(max_new_tokens=30, ignore_eos=True))
    short = engine.submit([7, 8], Sampling(max_new_tokens=12, ignore_eos=True))
    run(engine)
    with pytest.raises(RuntimeError, match="not enough memory"):
        list(long.pieces())
    assert len(list(short.pieces())) == 12
    assert engine.stats().finished == 2


def test_a_prompt_that_begins_like_another_is_not_run_again(loaded, monkeypatch):
    monkeypatch.setattr(decoding, "_PIECE_ON_CPU", 8)
    engine, fresh = Engine(*loaded), Engine(*loaded)
    begin = ids(engine, PROMPTS[4])
    answer(engine, begin + ids(engine, "x"), max_new_tokens=2)
    prompt = begin + ids(engine, " Rinde")
    pieces = answer(engine, prompt, max_new_tokens=6)
    assert engine.stats().reused_tokens == len(begin) // 8 * 8
    assert pieces == answer(fresh, prompt, max_new_tokens=6)
    assert answer(engine, prompt, max_new_tokens=6) == pieces


def test_what_is_kept_makes_room_for_what_runs(loaded, monkeypatch):
    monkeypatch.setattr(decoding, "_PIECE_ON_CPU", 8)
    engine = Engine(*loaded, max_tokens=60)
    for number in range(5):
        answer(engine, [3 + number] * 40, max_new_tokens=10)
        kept = sum(len(each.tokens) for each in engine._kept)
        assert kept <= 60


def test_pieces_of_long_prompts_take_turns_with_answers(loaded, monkeypatch):
    monkeypatch.setattr(decoding, "_PIECE_ON_CPU", 4)
    engine = Engine(*loaded)
    quick = engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=6, ignore_eos=True))
    while not engine.stats().generated_tokens:
        engine.step()
    engine.submit([5] * 100, Sampling(max_new_tokens=2))
    before = engine.stats().generated_tokens
    engine.step()
    engine.step()
    assert engine.stats().generated_tokens == before + 2
    run(engine)
    assert len(list(quick.pieces())) == 6


def test_a_cancelled_job_is_freed_with_the_next_step(engine):
    running = engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=400, ignore_eos=True))
    queued = [
        engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=400, ignore_eos=True))
        for _ in range(4)
    ]
    engine.step()
    for job in (running, *queued):
        job.cancel()
    assert not engine.step()
    assert list(running.pieces())[-1].finish == "cancelled"
    assert [[piece.finish for piece in job.pieces()][-1] for job in queued] == ["cancelled"] * 4
    assert engine.stats().running == engine.stats().queued == 0


def test_nan_ends_that_answer_with_a_word(tiny_model):
    model = load_model(tiny_model, precision="float32")
    tokenizer = load_tokenizer(tiny_model)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = torch.nan
    engine = Engine(model, tokenizer)
    broken = engine.submit([1, 7], Sampling(max_new_tokens=3))
    fine = engine.submit([1, 300], Sampling(max_new_tokens=3, ignore_eos=True))
    run(engine)
    with pytest.raises(ModelError, match="NaN for the next token"):
        list(broken.pieces())
    assert len(list(fine.pieces())) == 3


def test_an_error_in_the_model_reaches_all_who_wait_and_the_engine_goes_on(engine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine._decoder, "extend", lambda *_, **__: 1 / 0)
        job = engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=3))
        run(engine)
    with pytest.raises(ZeroDivisionError):
        list(job.pieces())
    assert answer(engine, ids(engine, "bark"), max_new_tokens=3)


def test_want_of_memory_for_one_is_told_to_that_one(loaded, monkeypatch):
    monkeypatch.setattr(decoding, "_PIECE_ON_CPU", 8)
    engine = Engine(*loaded)
    new_cache = engine._decoder.new_cache

    def scarce(capacity, *like):
        if capacity in {
            10 + admission.GROWTH,
            8,
        }:  # the second job's cache, and what would be kept of the first
            raise RuntimeError("not enough memory")
        return new_cache(capacity, *like)

    monkeypatch.setattr(engine._decoder, "new_cache", scarce)
    fine = engine.submit([5] * 10, Sampling(max_new_tokens=3, ignore_eos=True))
    large = engine.submit([6] * 10, Sampling(max_new_tokens=290))
    run(engine)
    with pytest.raises(RuntimeError, match="not enough memory"):
        list(large.pieces())
    assert len(list(fine.pieces())) == 3
    assert engine.stats().finished == 2


def test_what_cannot_fit_is_refused_before_it_starts(loaded, engine):
    assert engine.room(500) == 12
    with pytest.raises(
        InputError, match="500 tokens and an answer of up to 13 are 513, the model's"
    ):
        engine.submit([5] * 500, Sampling(max_new_tokens=13))
    with pytest.raises(InputError, match="the memory set aside holds 20"):
        Engine(*loaded, max_tokens=20).submit([5] * 15, Sampling(max_new_tokens=6))
    assert engine.stats().queued == 0


@pytest.mark.parametrize(
    ("prompt", "message"),
    [([], "the prompt is empty"), ([1, -1], "ids from -1 to 1"), ([10**6], "embedding has 0 to")],
)
def test_prompts_that_cannot_be_run_are_refused(engine, prompt, message):
    with pytest.raises(InputError, match=message):
        engine.submit(prompt, Sampling())


def test_an_engine_without_places_is_refused(loaded):
    with pytest.raises(InputError, match="max_batch is 0"):
        Engine(*loaded, max_batch=0)


def test_many_threads_get_their_own_answers(loaded):
    with Engine(*loaded, max_batch=4) as engine:
        prompts = [ids(engine, text) for text in PROMPTS * 4]
        found: dict[int, list[int]] = {}

        def ask(index):
            job = engine.submit(prompts[index], Sampling(max_new_tokens=8, ignore_eos=True))
            found[index] = [piece.token_id for piece in job.pieces()]

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    number = len(PROMPTS)
    assert all(found[index] == found[index % number] for index in range(len(prompts)))
    assert len({tuple(found[index]) for index in range(number)}) > 1


def test_scoring_takes_its_turn_between_steps(loaded, tiny_model):
    request = Request("q", "t", "en", 0, 1, "letter", "Answer:(", ("A", "B"), 0)
    expected = score_requests(loaded[0], TextEncoder(loaded[1]), [request]).logprobs
    with Engine(*loaded) as engine:
        job = engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=400, ignore_eos=True))
        assert engine.score([request]).logprobs == expected
        assert engine.stats().running + engine.stats().queued == 1, "it waited for the answer"
        job.cancel()


def test_other_work_on_the_model_takes_its_turn_between_steps(loaded):
    engine = Engine(*loaded)
    assert not engine.is_running
    with engine:
        assert engine.is_running
        job = engine.submit([1, 300], Sampling(max_new_tokens=40, ignore_eos=True))
        assert engine.between_steps(lambda model: model) is loaded[0]
        assert len(list(job.pieces())) == 40
    assert not engine.is_running


def test_stopping_cancels_what_runs_and_it_can_be_started_again(loaded):
    engine = Engine(*loaded)
    engine.start()
    engine.start()  # of no effect
    job = engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=400, ignore_eos=True))
    pieces = job.pieces()
    next(pieces)
    engine.stop()
    assert list(pieces)[-1].finish == "cancelled"
    with engine:
        again = engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=2))
        assert list(again.pieces())


def test_a_reader_who_leaves_frees_the_place(loaded):
    with Engine(*loaded) as engine:
        job = engine.submit(ids(engine, "bark"), Sampling(max_new_tokens=400, ignore_eos=True))
        for _ in job.pieces():
            break
        for _ in range(1000):
            if not engine.stats().running:
                break
            time.sleep(0.01)
        assert engine.stats().finished == 1


def test_any_causal_model_answers(tokenizer):
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=len(tokenizer), n_positions=64)
    model = GPT2LMHeadModel(config).eval()
    model.generation_config.eos_token_id = None
    engine = Engine(model, tokenizer)
    prompt = ids(engine, PROMPTS[0])
    with torch.inference_mode():
        expected = model.generate(
            torch.tensor([prompt]), max_new_tokens=5, do_sample=False, pad_token_id=0
        )[0, len(prompt) :].tolist()
    jobs = [engine.submit(prompt, Sampling(max_new_tokens=5, ignore_eos=True)) for _ in range(2)]
    run(engine)
    assert [[p.token_id for p in job.pieces()] for job in jobs] == [expected] * 2
