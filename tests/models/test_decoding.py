"""Running sequences with kept keys and values gives what one pass over all tokens gives."""

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

from biomistral.models import decoding
from biomistral.models.decoding import PackedDecoder, PlainDecoder, decoder_of
from biomistral.models.loading import load_model

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 64}
KINDS = {
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL)),
    "mistral with a window": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=5)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
}
TOKENS = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 32, 38, 46]


@pytest.fixture(params=KINDS)
def model(request):
    torch.manual_seed(0)
    return KINDS[request.param]().eval()


def plain_logits(model, tokens):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens])).logits[0].float()


@torch.inference_mode()
def logits_behind(model, tokens, num_prompt, piece=4):
    """Logits behind the prompt and each later token, read in pieces and then one by one."""
    decoder = decoder_of(model)
    cache = decoder.new_cache(len(tokens))
    for start in range(0, num_prompt, piece):
        end = min(start + piece, num_prompt)
        logits = decoder.extend(cache, tokens[start:end], wanted=end == num_prompt)
    rows = [logits, *(decoder.advance([cache], [token]) for token in tokens[num_prompt:])]
    return torch.cat(rows)


def test_pieces_and_single_tokens_give_what_one_pass_gives(model):
    found = logits_behind(model, TOKENS, num_prompt=9)
    torch.testing.assert_close(found, plain_logits(model, TOKENS)[8:], atol=1e-5, rtol=1e-4)


def test_models_built_like_mistral_are_packed_and_others_run_by_themselves():
    kinds = {name: type(decoder_of(make())) for name, make in KINDS.items()}
    assert kinds.pop("gpt2") is PlainDecoder
    assert set(kinds.values()) == {PackedDecoder}


@pytest.mark.parametrize("bits", [8, 4])
@torch.inference_mode()
def test_the_company_of_a_sequence_changes_no_bit_of_a_bitsandbytes_model(tiny_model, bits):
    pytest.importorskip("bitsandbytes")
    model = load_model(tiny_model, device=torch.device("cpu"), bits=bits)
    for layer in model.model.layers:  # inputs beyond 6, which LLM.int8 does not round
        layer.input_layernorm.weight.mul_(5)
    decoder = decoder_of(model)
    prompts = [TOKENS[index:] for index in range(5)]

    def answered(indices):
        caches = [decoder.new_cache(20) for _ in indices]
        for cache, index in zip(caches, indices, strict=True):
            decoder.extend(cache, prompts[index], wanted=False)
        return decoder.advance(caches, [7] * len(indices))

    together = answered(range(5))
    assert all(torch.equal(answered([index])[0], together[index]) for index in range(5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_the_company_of_a_sequence_changes_no_bit(dtype):
    torch.manual_seed(0)
    shape = {**SMALL, "hidden_size": 256, "intermediate_size": 512}
    decoder = decoder_of(MistralForCausalLM(MistralConfig(**shape)).to(dtype).eval())

    def caches(number):
        made = []
        for index in range(number):
            cache = decoder.new_cache(64)
            decoder.extend(cache, TOKENS[index:], wanted=False)
            made.append(cache)
        return made

    alone = decoder.advance(caches(1), [7])
    for number in (2, 5, 11):
        together = decoder.advance(caches(number), [7, *range(number - 1)])
        assert torch.equal(together[:1], alone)


@torch.inference_mode()
def test_what_is_taken_over_from_another_sequence_is_the_same_bits(monkeypatch):
    monkeypatch.setattr(decoding, "_PIECE_ON_CPU", 4)
    torch.manual_seed(0)
    decoder = decoder_of(KINDS["mistral"]().eval())
    first = decoder.new_cache(20)
    for start in (0, 4, 8):
        decoder.extend(first, TOKENS[start : start + 4], wanted=False)
    assert first.whole == 12
    decoder.advance([first], [1])
    assert (first.length, first.whole) == (13, 12)
    lent = decoder.new_cache(20, first, 8)
    own = decoder.new_cache(20)
    for start in (0, 4):
        decoder.extend(own, TOKENS[start : start + 4], wanted=False)
    for tokens in ([1, 2, 3], [4]):
        assert torch.equal(
            decoder.extend(lent, tokens, wanted=True), decoder.extend(own, tokens, wanted=True)
        )


def test_a_short_piece_is_not_lent():
    decoder = decoder_of(KINDS["mistral"]().eval())
    cache = decoder.new_cache(20)
    decoder.extend(cache, TOKENS, wanted=False)
    assert (cache.length, cache.whole) == (14, 0)


def test_memory_is_two_numbers_for_each_layer_head_and_width():
    decoder = decoder_of(KINDS["mistral"]().eval())
    cache = decoder.new_cache(10)
    size = sum(layer.numel() * layer.element_size() for layer in cache.layers)
    assert size == 10 * decoder.bytes_per_token
