"""The loss of answers in blocks is that of all their logits at once, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from biomistral.training import answer_head
from biomistral.training.answer_head import Answers, Start, head_of, use_answer_loss
from biomistral.training.answer_loss import Calibrating, answer_losses
from biomistral.training.fine_tuning import attend_within_examples
from biomistral.training.lessons import Lesson, collate_lessons

LESSONS = [
    [Lesson((1, 5, 6, 7, 8, 2), (False, False, True, True, True, True))],
    [
        Lesson((1, 9, 40, 2), (False, False, True, True), (40, 41, 42), 2),
        Lesson((1, 4), (False, True)),
    ],
]
WAYS = [
    Calibrating(),
    Calibrating(smoothing=0.3),
    Calibrating(entropy_weight=0.5),
    Calibrating(jeffreys_weight=2.0),
    Calibrating(0.1, 0.2, 0.3),
]


def opened(folder) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()


def read_of(batch) -> dict[str, object]:
    read = {name: batch[name] for name in ("input_ids", "position_ids", "documents")}
    return {**read, "use_cache": False}


def at_once(model, batch, calibrating: Calibrating, start_logits: Tensor | None) -> Tensor:
    """The slow way: all logits, then those that are due."""
    targets = batch["labels"][:, 1:]
    due = targets != -100
    logits = model(**read_of(batch)).logits[:, :-1][due]
    more = {"letters": batch["letters"], "calibrating": calibrating, "start_logits": start_logits}
    return answer_losses(logits, targets[due], **more).sum()


@pytest.mark.parametrize("block", [1, 2, 1 << 20], ids=["one", "two", "all"])
@pytest.mark.parametrize("calibrating", WAYS, ids=str)
def test_loss_and_gradients_are_those_of_all_logits_at_once(
    calibrating, block, tiny_model, monkeypatch
):
    batch = collate_lessons(LESSONS)
    slow, fast = opened(tiny_model), opened(tiny_model)
    monkeypatch.setattr(answer_head, "BLOCK_LOGITS", block * fast.config.vocab_size)
    drawn = torch.randn(7, fast.config.vocab_size, generator=torch.Generator().manual_seed(0))
    for each in (slow, fast):
        attend_within_examples(each)
    expected = at_once(slow, batch, calibrating, drawn)
    expected.backward()
    use_answer_loss(fast)
    start = Start(drawn, lambda logits: logits) if calibrating.jeffreys_weight else None
    answers = Answers(batch["labels"], batch["letters"], calibrating, start)
    loss = fast(**read_of(batch), answers=answers).loss
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-5)
    for (name, one), other in zip(slow.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-4, rtol=1e-4, msg=name)


def test_a_head_with_an_adapter_is_called_and_learns(tiny_model):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["lm_head", "q_proj"], init_lora_weights=False)
    model = peft.get_peft_model(opened(tiny_model), config)
    attend_within_examples(model)
    batch = collate_lessons(LESSONS)
    with torch.no_grad():
        expected = at_once(model.get_base_model(), batch, Calibrating(), None)
    use_answer_loss(model)
    loss = model(**read_of(batch), answers=Answers(batch["labels"], batch["letters"])).loss
    torch.testing.assert_close(loss.detach(), expected, atol=1e-4, rtol=1e-5)
    loss.backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient.abs().max() > 0 for gradient in trained.values())
    assert any("lm_head" in name for name in trained)


def test_a_model_whose_head_is_not_known_is_asked_for_its_own_logits(tiny_model):
    batch = collate_lessons(LESSONS)
    expected = at_once(opened(tiny_model), batch, Calibrating(), None)
    model = opened(tiny_model)
    model.config.model_type = "gemma2"
    use_answer_loss(model)
    calls = []
    model.lm_head.register_forward_hook(lambda *call: calls.append(call[2].shape))
    loss = model(**read_of(batch), answers=Answers(batch["labels"], batch["letters"])).loss
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-5)
    assert len(calls) == 1
    assert head_of(model)(batch["labels"]) is batch["labels"]


def test_where_nothing_is_learned_the_loss_is_nought_and_every_weight_has_a_gradient(tiny_model):
    """As processes want it that share a step in which one has nothing to do."""
    for calibrating in WAYS[:2]:
        model = opened(tiny_model)
        attend_within_examples(model)
        use_answer_loss(model)
        batch = collate_lessons([[], []])
        assert batch["input_ids"].shape == (2, 1)
        answers = Answers(batch["labels"], batch["letters"], calibrating)
        loss = model(**read_of(batch), answers=answers).loss
        loss.backward()
        assert loss.item() == 0
        assert all(float(p.grad.abs().max()) == 0 for p in model.parameters())


def test_without_answers_a_model_is_as_it_was(tiny_model):
    model = opened(tiny_model)
    ids = torch.tensor([[1, 5, 6]])
    expected = model(input_ids=ids, labels=ids)
    use_answer_loss(model)
    given = model(input_ids=ids, labels=ids)
    assert torch.equal(given.logits, expected.logits)
    assert torch.equal(given.loss, expected.loss)
