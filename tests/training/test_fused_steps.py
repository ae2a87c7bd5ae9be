"""Fused steps and their gradients are nearer to exact arithmetic than PyTorch's, or as near."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, MistralConfig
from transformers.models.mistral.modeling_mistral import MistralMLP, MistralRMSNorm

from biomistral.training import fused_steps
from biomistral.training.attention import keep_documents_apart, lay_out
from biomistral.training.cross_entropy import linear_cross_entropy, use_blocked_loss
from biomistral.training.fused_steps import fuse

pytestmark = pytest.mark.skipif(
    fused_steps.library() is None, reason="no C compiler: the compiled functions cannot be built"
)


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).bfloat16()


def results(layer, hidden: Tensor) -> dict[str, Tensor]:
    """Output and all gradients, of a sum in which every element has another weight."""
    hidden = hidden.clone().requires_grad_()
    out = layer(hidden)
    (out.double() * drawn(*out.shape, seed=9).double()).sum().backward()
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {"out": out.detach(), "hidden": hidden.grad, **gradients}


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())


def check_as_exact(layer, hidden: Tensor) -> None:
    exact = results(copy.deepcopy(layer).double(), hidden.double())
    plain = results(copy.deepcopy(layer), hidden)
    assert fuse(layer)
    for name, found in results(layer, hidden).items():
        assert found.dtype == torch.bfloat16
        assert error(found, exact[name]) <= 1.05 * error(plain[name], exact[name]) + 1e-4, name


@pytest.mark.parametrize(("rows", "width"), [(1, 7), (130, 64), (65, 200)])
def test_norms(rows, width):
    norm = MistralRMSNorm(width, eps=1e-5).bfloat16()
    norm.weight.data = drawn(width, seed=1)
    check_as_exact(norm, drawn(2, rows, width, scale=3.0))


@pytest.mark.parametrize("width", [7, 64, 200])
def test_feed_forward_parts(width):
    torch.manual_seed(0)
    mlp = MistralMLP(MistralConfig(hidden_size=48, intermediate_size=width)).bfloat16()
    check_as_exact(mlp, drawn(3, 70, 48, scale=8.0))


def test_a_gate_far_from_nought_is_open_or_shut():
    gate = torch.tensor([[-1e38, -100.0, -1.0, 0.0, 1.0, 100.0, 1e38]]).bfloat16()
    up, out = torch.ones_like(gate), torch.empty_like(gate)
    fused_steps._functions().gate_forward(gate.data_ptr(), up.data_ptr(), out.data_ptr(), 7)
    torch.testing.assert_close(out, F.silu(gate.double()).bfloat16(), atol=1e-15, rtol=1e-2)


@pytest.mark.parametrize("width", [5, 64, 1000])
def test_the_gradient_of_cross_entropy(width):
    logits, labels = drawn(40, width, scale=5.0), torch.arange(40) % width
    exact = logits.double().requires_grad_()
    losses = F.cross_entropy(exact, labels, reduction="none")
    losses.sum().backward()
    found = fused_steps.logits_to_gradients(logits, labels)
    torch.testing.assert_close(found.double(), losses.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits.double(), exact.grad, atol=1e-7, rtol=2**-8)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_has_no_loss_and_the_others_have_theirs(wrong):
    logits = drawn(3, 100)
    logits[1, 99] = wrong
    nats = fused_steps.logits_to_gradients(logits, torch.tensor([1, 2, 3]))
    assert nats.isfinite().tolist() == [True, False, True]
    assert logits.isfinite().all(1).tolist() == [True, False, True]
    assert nats[1].isnan()


def test_logits_far_apart_lose_nothing_that_counts():
    logits = torch.tensor([[3e38, -3e38, 0.0], [1000.0, 0.0, -1000.0]]).bfloat16()
    nats = fused_steps.logits_to_gradients(logits, torch.tensor([0, 1]))
    assert nats.tolist() == pytest.approx([0.0, 1000.0])
    torch.testing.assert_close(
        logits.float(), torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]]), atol=1e-30, rtol=0
    )


@pytest.mark.parametrize("wrong", [-1, 100])
def test_a_label_that_is_none_touches_no_memory(wrong):
    logits = drawn(3, 100)
    with pytest.raises(IndexError, match="not among 100 logits"):
        fused_steps.logits_to_gradients(logits, torch.tensor([1, wrong, 3]))
    assert torch.equal(logits, drawn(3, 100))


# --- in a model -----------------------------------------------------------------------------------


def learner(folder, *, dtype: torch.dtype, fused: bool) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(dtype).train()
    model.config.use_cache = False
    keep_documents_apart(model)
    use_blocked_loss(model)
    assert fuse(model) is fused
    return model


def gradients_of(model) -> tuple[float, dict[str, Tensor]]:
    ids = torch.randint(3, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    lengths = [10, 30, 25, 15]
    positions = torch.cat([torch.arange(length) for length in lengths]).view(2, 40)
    batch = {"input_ids": ids, "labels": ids, "position_ids": positions}
    loss = model(**batch, documents=lay_out(lengths), use_cache=False).loss
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}


def test_a_model_has_gradients_no_further_from_exact_ones_than_without(tiny_model, monkeypatch):
    exact_loss, exact = gradients_of(learner(tiny_model, dtype=torch.float32, fused=False))
    found_loss, found = gradients_of(learner(tiny_model, dtype=torch.bfloat16, fused=True))
    with monkeypatch.context() as without_compiler:
        without_compiler.setattr(fused_steps, "library", lambda: None)
        plain_loss, plain = gradients_of(learner(tiny_model, dtype=torch.bfloat16, fused=False))
    assert abs(found_loss - exact_loss) <= abs(plain_loss - exact_loss) + 2e-3
    assert found.keys() == exact.keys()
    for name, gradient in exact.items():
        assert error(found[name], gradient) <= 1.2 * error(plain[name], gradient), name


def test_as_many_threads_as_you_like_give_the_same(tiny_model):
    threads = torch.get_num_threads()
    outs = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            hidden = drawn(200, 64).requires_grad_()
            weight = drawn(64, seed=2).requires_grad_()
            fused_steps._Norm.apply(hidden, weight, 1e-5).float().pow(2).sum().backward()
            logits = drawn(50, 300)
            nats = fused_steps.logits_to_gradients(logits, torch.arange(50))
            outs.append((hidden.grad, weight.grad, logits, nats))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*outs, strict=True))


class Adapted(torch.nn.Module):
    """What has a weight but is more than that, and no Linear: an adapter of PEFT's kind."""

    def __init__(self, base: torch.nn.Linear) -> None:
        super().__init__()
        self.base = base

    @property
    def weight(self) -> Tensor:
        return self.base.weight


def test_layers_of_other_kinds_are_left_as_they_are():
    mlp = MistralMLP(MistralConfig(hidden_size=8, intermediate_size=8)).bfloat16()
    mlp.up_proj = torch.nn.Linear(8, 8, bias=True).bfloat16()
    assert not fuse(mlp)
    adapted = MistralMLP(MistralConfig(hidden_size=8, intermediate_size=8)).bfloat16()
    adapted.up_proj = Adapted(adapted.up_proj)
    assert not fuse(adapted)
    gelu = MistralMLP(MistralConfig(hidden_size=8, intermediate_size=8, hidden_act="gelu"))
    assert not fuse(gelu.bfloat16())
    assert not fuse(torch.nn.LayerNorm(8).bfloat16())
    assert not fuse(MistralRMSNorm(8))  # float32


def test_what_the_attention_refuses_is_refused_here_too(tiny_model):
    from biomistral.errors import ModelError

    model = learner(tiny_model, dtype=torch.bfloat16, fused=True)
    with pytest.raises(ModelError, match="got an attention_mask"):
        model(input_ids=torch.ones(1, 4, dtype=torch.int64), attention_mask=torch.ones(1, 1, 4, 4))


def test_the_loss_in_blocks_uses_it(monkeypatch):
    hidden, weight = drawn(30, 16).requires_grad_(), drawn(50, 16, seed=1).requires_grad_()
    labels = torch.arange(30)
    exact = F.cross_entropy(hidden.double() @ weight.double().T, labels, reduction="sum")
    calls = []
    real = fused_steps.logits_to_gradients
    monkeypatch.setattr(
        fused_steps, "logits_to_gradients", lambda *both: calls.append(1) or real(*both)
    )
    loss = linear_cross_entropy(hidden, weight, labels, 1.0)
    assert calls == [1]
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=2e-3)
