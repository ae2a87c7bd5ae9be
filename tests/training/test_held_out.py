"""The held-out loss is the mean over tokens, whatever the batches."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from biomistral.models.loading import load_model
from biomistral.models.rows import DOCUMENTS, PackedRows, Row, write_rows
from biomistral.training.attention import keep_documents_apart
from biomistral.training.cross_entropy import use_blocked_loss
from biomistral.training.held_out import held_out_loss


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model, precision="float32", device=torch.device("cpu"))


@pytest.fixture(scope="module")
def rows(make_tokens):
    return PackedRows(make_tokens(1, 7), "held_out")


def loss_document_by_document(model, rows) -> float:
    nats, num_tokens = 0.0, 0
    for ids, lengths in rows:
        start = 0
        for length in lengths:
            piece = torch.from_numpy(ids[start : start + length])
            with torch.no_grad():
                logs = model(piece[None], use_cache=False).logits[0].log_softmax(-1)
            nats -= float(logs[:-1].gather(1, piece[1:, None]).sum())
            num_tokens += length - 1
            start += length
    return nats / num_tokens


@pytest.mark.parametrize("rows_per_batch", [1, 3, 7, 100])
def test_it_is_the_mean_over_tokens_however_batched(model, rows, rows_per_batch):
    loss = held_out_loss(model, rows, rows_per_batch=rows_per_batch).loss
    assert loss == pytest.approx(loss_document_by_document(model, rows), abs=1e-5)


def test_across_documents_more_tokens_are_asked_for(model, rows):
    apart = held_out_loss(model, rows, rows_per_batch=4)
    across = held_out_loss(model, rows, rows_per_batch=4, cross_document=True)
    assert across.loss != pytest.approx(apart.loss, abs=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_came(model, rows, training):
    model.train(training)
    before = torch.random.get_rng_state()
    held_out_loss(model, rows, rows_per_batch=4)
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_batch_in_which_nothing_is_predicted_counts_for_nothing(model, tmp_path):
    only_starts = Row((np.array([1]), np.array([1])), (0, 1))
    write_rows(tmp_path, [], [only_starts], sequence_length=8, vocabulary_size=300, eos_id=2)
    held_out = PackedRows(tmp_path, "held_out")
    assert math.isnan(held_out_loss(model, held_out, rows_per_batch=1).loss)


def test_across_documents_a_first_token_counts_for_its_own_document(model, tmp_path):
    """Where documents are joined, the first of one is predicted at the last of the one before."""
    row = Row((np.arange(3, 8), np.arange(8, 15)), (0, 1))
    write_rows(tmp_path, [], [row], sequence_length=12, vocabulary_size=300, eos_id=2)
    pq.write_table(pa.table({"id": ["a", "b"], "language": ["en", "fr"]}), tmp_path / DOCUMENTS)
    rows = PackedRows(tmp_path, "held_out")
    found = held_out_loss(model, rows, rows_per_batch=1, cross_document=True)
    ids = torch.arange(3, 15)
    with torch.no_grad():
        logs = model(ids[None], use_cache=False).logits[0].log_softmax(-1)
    nats = -logs[:-1].gather(1, ids[1:, None]).flatten()  # of tokens 1 to 11
    expected = {"en": float(nats[:4].mean()), "fr": float(nats[4:].mean())}
    assert found.by_language == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("blocked", [False, True])
def test_each_language_has_the_loss_of_its_documents_and_they_add_up(blocked, make_model, tmp_path):
    model = load_model(make_model(0), precision="float32", device=torch.device("cpu"))
    if blocked:
        keep_documents_apart(model)
        use_blocked_loss(model)
    rng = np.random.default_rng(3)
    lengths = [(5, 9), (7,), (3, 4, 6)]
    documents = [(0, 1), (2,), (3, 0, 1)]
    languages = ["en", "fr", "fr", ""]
    packed = [
        Row(tuple(rng.integers(3, 300, size) for size in own), places)
        for own, places in zip(lengths, documents, strict=True)
    ]
    write_rows(tmp_path, [], packed, sequence_length=16, vocabulary_size=300, eos_id=2)
    ids = [f"d{i}" for i in range(4)]
    pq.write_table(pa.table({"id": ids, "language": languages}), tmp_path / DOCUMENTS)
    rows = PackedRows(tmp_path, "held_out")
    found = held_out_loss(model, rows, rows_per_batch=2)
    expected: dict[str, list[float]] = {"en": [], "fr": [], "": []}
    for row in packed:
        for piece, place in zip(row.pieces, row.documents, strict=True):
            with torch.no_grad():
                logs = (
                    model(torch.from_numpy(piece)[None], use_cache=False).logits[0].log_softmax(-1)
                )
            tokens = torch.from_numpy(piece)[1:, None]
            expected[languages[place]] += (-logs[:-1].gather(1, tokens)).flatten().tolist()
    assert found.by_language == {
        name: pytest.approx(np.mean(expected[name]), abs=1e-5) for name in ("en", "fr")
    }
    assert found.loss == pytest.approx(
        np.mean([x for each in expected.values() for x in each]), abs=1e-5
    )
