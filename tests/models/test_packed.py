"""Packed rows: which models, how much goes through them, and modules that are no plain matrices."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from biomistral.models import attention, packed
from biomistral.models.continuations import Encoded

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}


def model_of(config, kind):
    torch.manual_seed(0)
    return kind(config).eval()


MODELS = {
    "mistral": lambda: model_of(MistralConfig(**SMALL), MistralForCausalLM),
    "llama": lambda: model_of(LlamaConfig(**SMALL, attention_bias=True), LlamaForCausalLM),
    "qwen2": lambda: model_of(Qwen2Config(**SMALL), Qwen2ForCausalLM),
    "wide heads": lambda: model_of(MistralConfig(**SMALL, head_dim=16), MistralForCausalLM),
}


def all_sliding():
    config = Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=90, max_window_layers=0)
    return model_of(config, Qwen2ForCausalLM)


@pytest.mark.parametrize("make", [*MODELS.values(), all_sliding], ids=[*MODELS, "all sliding"])
@pytest.mark.parametrize("length", [1, 5, 700])
def test_hidden_states_are_those_of_the_whole_model(make, length):
    model = make()
    assert packed.is_supported(model)
    tokens = torch.randint(50, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    item = Encoded(tokens, [[1], [2]], length, [(), ()])
    with torch.inference_mode():
        (found,) = packed.run_packed(model, [item], 256)
        expected = model.model(torch.tensor([tokens])).last_hidden_state[0, -1:]
    indices, hidden, _, num_tokens = found
    assert (indices, num_tokens) == ([0], length)
    torch.testing.assert_close(hidden, expected, atol=2e-5, rtol=1e-4)


def test_what_is_shared_goes_through_the_model_once():
    model = MODELS["mistral"]()
    shared = [index % 50 for index in range(600)]
    items = [Encoded([*shared, index, 7], [[1], [2]], 602, [(), ()]) for index in range(20)]
    with torch.inference_mode():
        runs = list(packed.run_packed(model, items, 8))
        alone = [next(packed.run_packed(model, [item], 8)) for item in items]
    assert sum(run[3] for run in runs) == 600 + 20 * 2
    assert len(runs) == 5  # four rows of two tokens each in a pack of eight
    hidden = torch.cat([run[1] for run in runs])
    order = [index for run in runs for index in run[0]]
    torch.testing.assert_close(hidden, torch.cat([alone[index][1] for index in order]))


def test_models_with_anything_in_between_are_left_to_others():
    gpt2 = model_of(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50), GPT2LMHeadModel)
    assert not packed.is_supported(gpt2)
    some = Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    assert not packed.is_supported(model_of(some, Qwen2ForCausalLM))


@pytest.mark.parametrize("name", MODELS)
def test_all_requests_at_once_give_what_each_gives_alone(name, monkeypatch, varlen_kernel):
    model = MODELS[name]()
    shared = [index % 50 for index in range(600)]
    items = [
        Encoded(
            [*shared, *range(index)], [[1, 2, 3], [4], [5, 6]][: index % 4], 601, [()] * (index % 4)
        )
        for index in range(1, 12)
        if index % 4
    ]

    def run():
        with torch.inference_mode():
            return [(found[0], found[1]) for found in packed.run_packed(model, items, 64)]

    one_by_one = run()
    assert not varlen_kernel
    monkeypatch.setattr(packed.varlen, "is_available", lambda _: True)
    at_once = run()
    assert varlen_kernel
    for (indices, hidden), (again, same) in zip(one_by_one, at_once, strict=True):
        assert indices == again
        torch.testing.assert_close(same, hidden, atol=2e-5, rtol=1e-4)


def test_a_sliding_window_in_reach_is_left_to_masks(monkeypatch, varlen_kernel):
    model = model_of(MistralConfig(**SMALL, sliding_window=16), MistralForCausalLM)
    monkeypatch.setattr(packed.varlen, "is_available", lambda _: True)
    near, far = (Encoded(list(range(n)), [[1]], n, [()]) for n in (16, 17))
    with torch.inference_mode():
        list(packed.run_packed(model, [near], 64))
        assert varlen_kernel
        varlen_kernel.clear()
        list(packed.run_packed(model, [far], 64))
    assert not varlen_kernel


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_all_requests_at_once_give_what_each_gives_alone_on_a_gpu(monkeypatch):
    wide = {**SMALL, "hidden_size": 256, "head_dim": 64}
    model = model_of(MistralConfig(**wide), MistralForCausalLM).to("cuda", torch.bfloat16)
    items = [Encoded([*range(40), index], [[1, 2, 3], [4]], 41, [(), ()]) for index in range(9)]

    def hidden():
        with torch.inference_mode():
            return torch.cat([found[1] for found in packed.run_packed(model, items, 256)]).float()

    at_once = hidden()
    monkeypatch.setattr(packed.varlen, "is_available", lambda _: False)
    torch.testing.assert_close(at_once, hidden(), atol=0.05, rtol=0.05)


@pytest.mark.skipif(attention.library() is None, reason="needs matrix units for bfloat16")
def test_matrix_units_give_what_pytorch_gives_and_the_same_bits_in_any_pack(monkeypatch):
    wide = {**SMALL, "hidden_size": 128, "head_dim": 32, "sliding_window": 700}
    model = model_of(MistralConfig(**wide), MistralForCausalLM).bfloat16()
    shared = [index % 50 for index in range(600)]
    # Letters, texts (which branch) and one that is longer than the window.
    items = [Encoded([*shared, *range(n)], [[1], [2]], 601, [(), ()]) for n in (1, 17, 40)]
    items += [Encoded([*shared, 7], [[1, 2, 3], [4, 5]], 601, [(), ()])]
    items += [Encoded([*shared, *[5] * 120], [[1], [2]], 720, [(), ()])]
    asked = []
    real = attention.attend

    def attend(queries, *others):
        asked.append(len(queries))
        return real(queries, *others)

    monkeypatch.setattr(attention, "attend", attend)

    def hidden(order, batch_tokens):
        found = {}
        with torch.inference_mode():
            chosen = [items[index] for index in order]
            for indices, rows, reads, _ in packed.run_packed(model, chosen, batch_tokens):
                starts = [0, *torch.tensor([_num_read(chosen[i]) for i in indices]).cumsum(0)]
                for place, index in enumerate(indices):
                    found[order[index]] = rows[starts[place] : starts[place + 1]]
                assert reads.num_continuations == 2 * len(indices)
        return found

    one = hidden([0, 1, 2, 3, 4], 4096)
    assert {1, 17, 40} <= set(asked)
    assert 120 not in asked
    other = hidden([4, 2, 0, 3, 1], 8)
    assert all(torch.equal(one[index], other[index]) for index in one)
    monkeypatch.setattr(attention, "is_available", lambda _: False)
    without = hidden([0, 1, 2, 3, 4], 4096)
    for index in one:
        torch.testing.assert_close(one[index], without[index], atol=0.05, rtol=0.05)


def _num_read(item):
    return 1 + sum(len(tail) - 1 for tail in item.tails)
