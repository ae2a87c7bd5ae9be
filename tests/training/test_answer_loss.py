"""The loss on answers, against slow formulas and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from biomistral.training.answer_loss import Calibrating, answer_losses, jeffreys_divergence

LETTERS = torch.tensor([[2, 5, 7], [1, 3, -1], [-1, -1, -1]])  # three letters, two, none
TARGETS = torch.tensor([5, 1, 4])


def drawn(seed: int, *, wanted: bool = True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 9, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(wanted)


def test_without_calibrating_it_is_cross_entropy():
    logits = drawn(0)
    expected = F.cross_entropy(logits, TARGETS, reduction="none")
    torch.testing.assert_close(answer_losses(logits, TARGETS, letters=LETTERS), expected)


def test_smoothing_is_cross_entropy_against_the_smoothed_target():
    logits = drawn(1)
    target = torch.zeros(3, 9, dtype=torch.float64)
    for row, rivals in enumerate([[2, 5, 7], [1, 3], list(range(9))]):
        target[row, rivals] = 0.3 / len(rivals)
        target[row, TARGETS[row]] += 0.7
    expected = -(target * F.log_softmax(logits, -1)).sum(-1)
    found = answer_losses(logits, TARGETS, letters=LETTERS, calibrating=Calibrating(smoothing=0.3))
    torch.testing.assert_close(found, expected)


def test_smoothing_without_letters_is_that_of_pytorch():
    logits = drawn(2)
    expected = F.cross_entropy(logits, TARGETS, reduction="none", label_smoothing=0.2)
    found = answer_losses(logits, TARGETS, calibrating=Calibrating(smoothing=0.2))
    torch.testing.assert_close(found, expected)


def test_entropy_is_that_of_the_letters_renormalised():
    logits = drawn(3)
    plain = answer_losses(logits, TARGETS)
    found = answer_losses(
        logits, TARGETS, letters=LETTERS, calibrating=Calibrating(entropy_weight=0.5)
    )
    for row, rivals in enumerate([[2, 5, 7], [1, 3], list(range(9))]):
        p = F.softmax(logits[row, rivals], -1)
        entropy = -sum(value * math.log(value) for value in p.tolist())
        assert float(plain[row] - found[row]) == pytest.approx(0.5 * entropy)


def test_jeffreys_is_both_divergences_together():
    p, q = drawn(4), drawn(5)
    log_p, log_q = F.log_softmax(p, -1), F.log_softmax(q, -1)
    there = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
    back = F.kl_div(log_p, log_q, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(jeffreys_divergence(p, q), there + back)
    torch.testing.assert_close(jeffreys_divergence(p, q), jeffreys_divergence(q, p))
    assert float(jeffreys_divergence(p, p + 3).abs().max()) < 1e-12  # shifted logits are the same


def test_a_hand_worked_jeffreys_divergence():
    p, q = torch.tensor([0.5, 0.5]).double().log(), torch.tensor([0.25, 0.75]).double().log()
    # (1/2 - 1/4) ln 2 + (1/2 - 3/4) ln (2/3) = 1/4 ln 3
    assert float(jeffreys_divergence(p, q)) == pytest.approx(math.log(3) / 4)


@pytest.mark.parametrize(
    "calibrating",
    [
        Calibrating(smoothing=0.2),
        Calibrating(entropy_weight=0.7),
        Calibrating(jeffreys_weight=0.4),
        Calibrating(0.1, 0.3, 0.2),
    ],
)
def test_gradients_are_those_of_finite_differences(calibrating):
    start = drawn(6, wanted=False)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return answer_losses(
            logits, TARGETS, letters=LETTERS, calibrating=calibrating, start_logits=start
        ).sum()

    assert torch.autograd.gradcheck(loss, (drawn(7),), eps=1e-6, atol=1e-7)


def test_the_gradient_of_jeffreys_is_the_one_worked_out_on_paper():
    p_logits, q_logits = drawn(8), drawn(9, wanted=False)
    jeffreys_divergence(p_logits, q_logits).sum().backward()
    p, q = F.softmax(p_logits.detach(), -1), F.softmax(q_logits, -1)
    ratio = p.log() - q.log()
    # d J / d z = p (ratio - sum p ratio) + p - q
    expected = p * (ratio - (p * ratio).sum(-1, keepdim=True)) + p - q
    torch.testing.assert_close(p_logits.grad, expected)


def test_low_precision_logits_are_computed_in_float32():
    logits = drawn(10, wanted=False)
    found = answer_losses(logits.bfloat16(), TARGETS, calibrating=Calibrating(0.1, 0.1))
    assert found.dtype == torch.float32
    exact = answer_losses(logits.bfloat16().double(), TARGETS, calibrating=Calibrating(0.1, 0.1))
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)


def test_extreme_logits_give_finite_gradients():
    logits = torch.tensor([[0.0, 800.0, -800.0]], requires_grad=True)
    calibrating = Calibrating(0.1, 0.1, 0.1)
    losses = answer_losses(
        logits,
        torch.tensor([0]),
        letters=torch.tensor([[0, 1]]),
        calibrating=calibrating,
        start_logits=torch.zeros(1, 3),
    )
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(logits.grad).all()
