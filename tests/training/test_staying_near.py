"""The divergence beside the next-token loss, against plain autograd and finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from biomistral.errors import ModelError
from biomistral.models.loading import load_model
from biomistral.training import staying_near
from biomistral.training.answer_loss import jeffreys_divergence
from biomistral.training.staying_near import stay_near, summed_divergence


def drawn(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_gradients_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setattr(staying_near, "_BLOCK_LOGITS", 14)  # two tokens a block
    hidden, head = drawn(5, 3, seed=0).requires_grad_(), drawn(7, 3, seed=1).requires_grad_()
    start, start_head = drawn(5, 3, seed=2), drawn(7, 3, seed=3)

    def summed(own: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return summed_divergence(own, weight, start, start_head)

    assert torch.autograd.gradcheck(summed, (hidden, head))


@pytest.fixture
def pair(make_model):
    cpu = torch.device("cpu")
    return tuple(load_model(make_model(seed), precision="float32", device=cpu) for seed in (0, 1))


IDS = torch.arange(3, 51).view(2, 24)


def test_loss_and_gradients_are_those_of_the_formula(pair):
    model, start = pair
    labels = IDS.clone()
    labels[0, :9] = -100
    logits = model(IDS, use_cache=False).logits[:, :-1]
    with torch.no_grad():
        start_logits = start(IDS, use_cache=False).logits[:, :-1]
    asked = labels[:, 1:] != -100
    nats = F.cross_entropy(logits[asked], labels[:, 1:][asked], reduction="none")
    expected = (nats + 0.3 * jeffreys_divergence(logits[asked], start_logits[asked])).mean()
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    stay_near(model, start, 0.3)
    loss = model.train()(input_ids=IDS, labels=labels, use_cache=False).loss
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in start.parameters())


def test_measuring_leaves_the_divergence_out(pair):
    model, start = pair
    plain = model(IDS, labels=IDS, use_cache=False).loss.detach()
    stay_near(model, start, 5.0)
    measured = model.eval()(input_ids=IDS, labels=IDS, use_cache=False).loss
    torch.testing.assert_close(measured, plain)
    assert model.train()(input_ids=IDS, labels=IDS, use_cache=False).loss > plain + 0.1
    assert model(input_ids=IDS, use_cache=False).logits.shape == (2, 24, model.config.vocab_size)


def test_an_unknown_head_is_refused(pair):
    model, start = pair
    model.config.model_type = "other"
    with pytest.raises(ModelError, match="other is not known to be one"):
        stay_near(model, start, 0.1)


def test_pre_training_stays_nearer_with_the_divergence(tiny_model, make_tokens, tmp_path):
    from biomistral.recipe.settings import PretrainSettings
    from biomistral.training import pretrain

    tokens = make_tokens(8, 2)
    start = load_model(tiny_model, precision="float32", device=torch.device("cpu"))
    with torch.no_grad():
        start_logits = start(IDS, use_cache=False).logits
    distances = []
    for weight in (0.0, 3.0):
        settings = PretrainSettings.model_validate(
            {
                "name": "trained",
                "model": "base",
                "epochs": 3,
                "rows_per_step": 4,
                "learning_rate": 3e-3,
                "precision": "float32",
                "jeffreys_weight": weight,
            }
        )
        out = pretrain(settings, tiny_model, tokens, tmp_path / str(weight))
        trained = load_model(out, precision="float32", device=torch.device("cpu"))
        with torch.no_grad():
            logits = trained(IDS, use_cache=False).logits
        distances.append(float(jeffreys_divergence(logits, start_logits).mean()))
    assert distances[1] < 0.7 * distances[0]
