"""Attention of packed rows equals attention of each document alone, on every path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from biomistral.errors import ModelError
from biomistral.training import attention
from biomistral.training.attention import document_attention, keep_documents_apart, lay_out


def states(rows: int, length: int, heads: int, seed: int = 0) -> torch.Tensor:
    """Queries, keys or values as the library gives them.  # (B, H, T, 8)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, length, heads, 8, generator=generator).transpose(1, 2)


def one_by_one(query, key, value, lengths, window=None) -> torch.Tensor:
    """Softmax of masked scores, document by document and written out.  # (B, T, H, D)."""
    repeat = query.shape[1] // key.shape[1]
    flat = [t.transpose(1, 2).flatten(0, 1) for t in (query, key, value)]  # (N, H, D)
    flat[1:] = [t.repeat_interleave(repeat, 1) for t in flat[1:]]
    outs, start = [], 0
    for length in lengths:
        q, k, v = (t[start : start + length].transpose(0, 1) for t in flat)  # (H, L, D)
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        back = torch.arange(length)[:, None] - torch.arange(length)
        hidden = (back < 0) | (back >= (window or length))
        outs.append((scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(0, 1))
        start += length
    return torch.cat(outs).unflatten(0, (query.shape[0], query.shape[2]))


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=8),
    rows=st.sampled_from([1, 2, 3]),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    window=st.sampled_from([None, 1, 5, 40]),
)
def test_attention_and_its_gradients_are_those_of_each_document_alone(lengths, rows, heads, window):
    lengths, length = lengths * rows, sum(lengths)
    inputs = [
        states(rows, length, number, seed).requires_grad_()
        for seed, number in enumerate((heads[0], heads[1], heads[1]))
    ]
    out, weights = document_attention(
        None, *inputs, None, documents=lay_out(lengths), sliding_window=window
    )
    expected = one_by_one(*inputs, lengths, window)
    assert weights is None
    assert torch.allclose(out, expected, atol=1e-5)
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(9))
    ours = torch.autograd.grad((out * pull).sum(), inputs)
    for gradient, other in zip(
        ours, torch.autograd.grad((expected * pull).sum(), inputs), strict=True
    ):
        assert torch.allclose(gradient, other, atol=1e-4)


def test_without_documents_rows_are_split_where_positions_restart():
    query, key, value = (states(2, 12, 2, seed) for seed in range(3))
    positions = torch.tensor([[*range(5), *range(7)], [*range(12)]])
    out, _ = document_attention(None, query, key, value, None, position_ids=positions)
    assert torch.allclose(out, one_by_one(query, key, value, [5, 7, 12]), atol=1e-5)
    whole, _ = document_attention(None, query, key, value, None)
    assert torch.allclose(whole, one_by_one(query, key, value, [12, 12]), atol=1e-5)


def test_the_scale_is_the_one_that_the_model_gives():
    query, key, value = (states(1, 9, 2, seed) for seed in range(3))
    half, _ = document_attention(None, query, key, value, None, scaling=0.5 / 8**0.5)
    other, _ = document_attention(None, query / 2, key, value, None)
    assert torch.allclose(half, other, atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "groups", "is_in_place"),
    [
        ([8, 8, 8], ((3, 8),), True),
        ([50], ((1, 50),), True),
        ([100, 40], ((1, 100), (1, 40)), True),
        ([40, 100], ((1, 100), (1, 40)), False),
        ([100, 90, 79], ((2, 100), (1, 79)), False),
        ([3, 32, 7], ((3, 32),), False),
    ],
)
def test_documents_of_similar_length_are_computed_together(lengths, groups, is_in_place):
    documents = lay_out(lengths)
    assert documents.groups == groups
    assert documents.ends.tolist() == np.cumsum([0, *lengths]).tolist()
    assert (documents.source is None) == is_in_place
    if documents.source is not None and documents.place is not None:
        assert len(documents.source) == sum(number * width for number, width in groups)
        tokens = torch.arange(sum(lengths))
        assert torch.equal(tokens[documents.source][documents.place], tokens)


def test_filling_costs_little_whatever_the_lengths():
    lengths = np.random.default_rng(1).integers(1, 4096, 200).tolist()
    done = sum(number * width**2 for number, width in lay_out(lengths).groups)
    assert done < 1.6 * sum(length**2 for length in lengths)


# --- in a model: the ways of asking for packing that leak in the library --------------------------


@pytest.fixture
def model(tiny_model):
    opened = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    keep_documents_apart(opened)
    return opened


IDS = torch.randint(3, 300, (1, 24), generator=torch.Generator().manual_seed(4))
POSITIONS = torch.tensor([[*range(10), *range(14)]])


def leak(model, **inputs) -> float:
    """Greatest change of the second document's logits when the first one changes."""
    other = IDS.clone()
    other[0, :10] = other[0, :10].flip(0) + 1
    with torch.no_grad():
        one, two = (model(input_ids=ids, **inputs).logits[0, 10:] for ids in (IDS, other))
    return float((one - two).abs().max())


def test_no_way_of_asking_leaks(model):
    assert leak(model, position_ids=POSITIONS, use_cache=False) == 0
    assert leak(model, position_ids=POSITIONS, use_cache=True) == 0  # leaks in the library
    documents = lay_out([10, 14])
    assert leak(model, position_ids=POSITIONS, documents=documents, use_cache=False) == 0


def test_a_padding_mask_does_not_make_it_leak_as_it_does_in_the_library(model, tiny_model):
    inputs = {"position_ids": POSITIONS, "attention_mask": torch.ones_like(IDS), "use_cache": False}
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    assert leak(plain, **inputs) > 1e-2
    assert leak(model, **inputs) == 0


def test_a_mask_of_ones_own_is_refused(model):
    mask = torch.zeros(1, 1, 24, 24)
    with pytest.raises(ModelError, match="got an attention_mask, which says nothing about doc"):
        leak(model, attention_mask=mask, use_cache=False)


def test_a_cache_is_refused(model):
    cache = model(input_ids=IDS, use_cache=True).past_key_values
    with pytest.raises(ModelError, match="keys from a cache"):
        model(input_ids=IDS, past_key_values=cache, use_cache=True)


def test_soft_caps_are_refused():
    query, key, value = (states(1, 4, 2, seed) for seed in range(3))
    with pytest.raises(ModelError, match="soft caps or attention sinks"):
        document_attention(None, query, key, value, None, softcap=30.0)


def test_a_model_whose_attention_is_its_own_is_refused():
    class Own:
        def set_attn_implementation(self, name):
            raise ValueError(f"no {name} here")

    with pytest.raises(ModelError, match="the attention of Own cannot be replaced"):
        keep_documents_apart(Own())


def test_a_sliding_window_is_kept_inside_documents(make_model):
    folder = make_model(0)
    models = []
    for name in ("eager", attention.NAME):
        opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        opened.config.sliding_window = 6
        opened.set_attn_implementation(name)
        models.append(opened(input_ids=IDS, position_ids=POSITIONS, use_cache=False).logits)
    assert torch.allclose(*models, atol=1e-4)


def test_the_choice_of_attention_is_not_saved(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    assert attention.NAME not in (tmp_path / "saved" / "config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.config._attn_implementation == "sdpa"


def test_variable_length_attention_gets_what_its_signature_wants(monkeypatch):
    # It has no CPU kernel; what is passed is checked by a stand-in that computes the same slowly.
    import torch.nn.attention.varlen as varlen

    def stand_in(
        query, key, value, ends, ends_too, longest, longest_too, *, scale, window_size, enable_gqa
    ):
        lengths = ends.diff().tolist()
        assert ends.dtype == torch.int32
        assert (longest, longest_too, window_size[1]) == (max(lengths), max(lengths), 0)
        assert enable_gqa is (query.shape[1] != key.shape[1])
        as_rows = (t[None].transpose(1, 2) for t in (query, key, value))
        window = None if window_size[0] < 0 else window_size[0] + 1
        return one_by_one(*as_rows, lengths, window)[0]

    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    monkeypatch.setattr(attention, "_has_varlen", lambda *_: True)
    query, key, value = states(2, 20, 4), states(2, 20, 2, 1), states(2, 20, 2, 2)
    lengths = [13, 7, 20]
    for window in (None, 5, 100):
        out, _ = document_attention(
            None, query, key, value, None, documents=lay_out(lengths), sliding_window=window
        )
        assert torch.allclose(out, one_by_one(query, key, value, lengths, window), atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="variable-length attention needs CUDA")
def test_variable_length_attention_equals_that_by_groups_on_cuda():
    shapes = ((2, 300, 4, 64), (2, 300, 2, 64), (2, 300, 2, 64))
    inputs = [
        torch.randn(s, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        for s in shapes
    ]
    documents = lay_out([100, 200, 50, 250]).to("cuda")
    flat = [t.transpose(1, 2).flatten(0, 1) for t in inputs]
    results = []
    for compute in (attention._by_varlen, attention._by_groups):
        out = compute(*flat, documents=documents, scale=None, window=None, dropout=0.0)
        results.append([out, *torch.autograd.grad(out.float().square().sum(), inputs)])
    for one, two in zip(*results, strict=True):
        assert F.mse_loss(one.float(), two.float()) < 1e-3
