"""The loss in blocks is the loss, and so are its gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from biomistral.training import cross_entropy
from biomistral.training.cross_entropy import (
    IGNORED,
    linear_cross_entropy,
    token_losses,
    use_blocked_loss,
)


def drawn(num_tokens: int = 50, vocabulary: int = 91, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(num_tokens, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, 16, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(vocabulary, (num_tokens,), generator=generator)
    labels[::7] = IGNORED
    return hidden, weight, labels


def plain(hidden, weight, labels, reduction: str = "mean"):
    return F.cross_entropy((hidden @ weight.T).float(), labels, reduction=reduction)


@pytest.fixture(params=[1, 7, 1000], ids=lambda rows: f"{rows} rows a block")
def blocks(request, monkeypatch):
    """Blocks of so many rows; inside, two rows at once."""
    monkeypatch.setattr(cross_entropy, "_BLOCK_LOGITS", {"cpu": request.param * 91})
    monkeypatch.setattr(cross_entropy, "_INNER_LOGITS", {"cpu": 2 * 91})


def test_loss_and_gradients_are_those_of_all_logits_at_once(blocks):
    hidden, weight, labels = drawn()
    ours = linear_cross_entropy(hidden, weight, labels)
    expected = plain(hidden, weight, labels)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    pairs = zip(
        torch.autograd.grad(ours * 2.5, (hidden, weight)),
        torch.autograd.grad(expected * 2.5, (hidden, weight)),
        strict=True,
    )
    for gradient, other in pairs:
        assert torch.allclose(gradient, other, atol=1e-5)


def test_gradients_are_those_of_finite_differences(blocks):
    hidden, weight, labels = (t.double() if t.is_floating_point() else t for t in drawn(6, 9))
    hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    gradients = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), (hidden, weight))
    for tensor, gradient in zip((hidden, weight), gradients, strict=True):
        for place in (0, 17, 40):
            moved = []
            for step in (1e-3, -1e-3):
                with torch.no_grad():
                    tensor.view(-1)[place] += step
                    moved.append(float(plain(hidden, weight, labels)))
                    tensor.view(-1)[place] -= step
            slope = (moved[0] - moved[1]) / 2e-3
            assert float(gradient.view(-1)[place]) == pytest.approx(slope, abs=1e-4)


def test_a_given_number_of_items_divides_the_sum():
    hidden, weight, labels = drawn()
    total = float(plain(hidden, weight, labels, "sum"))
    assert float(linear_cross_entropy(hidden, weight, labels, 200)) == pytest.approx(total / 200)
    number = torch.tensor(200)
    assert float(linear_cross_entropy(hidden, weight, labels, number)) == pytest.approx(total / 200)


def test_in_bfloat16_blocks_add_no_error_of_their_own(blocks):
    hidden, weight, labels = drawn(dtype=torch.bfloat16)
    exact = [t.detach().float().requires_grad_() for t in (hidden, weight)]
    expected = torch.autograd.grad(plain(*exact, labels), exact)
    library = torch.autograd.grad(plain(hidden, weight, labels), (hidden, weight))
    ours = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), (hidden, weight))
    for true, theirs, own in zip(expected, library, ours, strict=True):
        assert own.dtype == torch.bfloat16
        assert (own.float() - true).norm() < 1.2 * (theirs.float() - true).norm()


def test_under_autocast_products_are_in_its_type_and_gradients_in_that_of_the_weights():
    hidden, weight, labels = drawn()
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, labels)
        expected = plain(hidden, weight, labels)
    assert float(loss) == pytest.approx(float(expected), rel=1e-3)
    assert float(loss) != float(linear_cross_entropy(hidden, weight, labels))
    gradients = torch.autograd.grad(loss, (hidden, weight))
    others = torch.autograd.grad(expected, (hidden, weight))
    for gradient, other in zip(gradients, others, strict=True):
        assert gradient.dtype == torch.float32
        assert torch.allclose(gradient, other, atol=2e-3)


def test_a_head_that_is_not_trained_gets_no_gradient():
    hidden, weight, labels = drawn()
    weight.requires_grad_(False)
    (ours,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), hidden)
    (expected,) = torch.autograd.grad(plain(hidden, weight, labels), hidden)
    assert torch.allclose(ours, expected, atol=1e-5)


def test_when_nothing_is_asked_for_it_is_as_in_pytorch():
    hidden, weight, labels = drawn()
    nothing = torch.full_like(labels, IGNORED)
    assert math.isnan(float(linear_cross_entropy(hidden, weight, nothing)))
    loss = linear_cross_entropy(hidden, weight, nothing, 10)
    loss.backward()
    assert float(loss) == 0
    assert float(hidden.grad.abs().sum() + weight.grad.abs().sum()) == 0


def test_losses_of_tokens_are_those_that_are_summed(blocks):
    hidden, weight, labels = drawn()
    losses = token_losses(hidden, weight, labels)
    expected = F.cross_entropy(hidden @ weight.T, labels, reduction="none")
    assert torch.allclose(losses, expected, atol=1e-5)
    assert losses[labels == IGNORED].tolist() == [0.0] * int((labels == IGNORED).sum())


def test_a_loss_that_is_not_a_number_stays_one():
    hidden, weight, labels = drawn()
    with torch.no_grad():
        hidden[1, 0] = torch.inf
    assert not math.isfinite(float(linear_cross_entropy(hidden, weight, labels)))


# --- in a model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_has_the_same_loss_and_gradients_and_keeps_no_logits(tied, make_model):
    folder = make_model(0, tie_word_embeddings=tied)
    ids = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :4] = IGNORED
    results = []
    for blocked in (False, True):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert not blocked or use_blocked_loss(model)
        output = model(input_ids=ids, labels=labels, use_cache=False, num_items_in_batch=64)
        output.loss.backward()
        results.append((float(output.loss), {n: p.grad for n, p in model.named_parameters()}))
        assert (output.logits is None) == blocked
        assert model(input_ids=ids).logits.shape == (2, 20, model.config.vocab_size)
    (loss, gradients), (other, others) = results
    assert other == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, others[name], atol=1e-5), name


def test_a_model_with_another_head_is_left_as_it_is(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.model_type = "gemma2"  # caps its logits
    before = model.forward
    assert use_blocked_loss(model) is False
    assert model.forward == before


def test_saving_leaves_no_trace(tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    use_blocked_loss(model)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again(input_ids=torch.tensor([[5, 6]]), labels=torch.tensor([[5, 6]])).logits is not None


def test_a_model_whose_loss_is_in_blocks_can_be_compiled(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert use_blocked_loss(model)
    torch.compile(model, backend="eager")  # refuses what is no plain function
