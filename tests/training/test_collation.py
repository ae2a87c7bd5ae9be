"""Documents in one row do not know of each other, in attention and in the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from biomistral.training.attention import keep_documents_apart
from biomistral.training.collation import Row, collate
from biomistral.training.cross_entropy import IGNORED, use_blocked_loss

EOS = 2


def document(length: int, seed: int) -> np.ndarray:
    words = np.random.default_rng(seed).integers(3, 300, size=length - 2)
    return np.concatenate([[1], words, [EOS]])


def packed(documents: list[np.ndarray], length: int) -> Row:
    ids = np.full(length, EOS)
    ids[: sum(map(len, documents))] = np.concatenate(documents)
    return ids, tuple(map(len, documents))


DOCUMENTS = [[document(9, 1), document(17, 2), document(2, 3)], [document(30, 4), document(5, 5)]]
ROWS = [packed(documents, 40) for documents in DOCUMENTS]  # with 12 and 5 places of padding


@pytest.fixture(scope="module")
def model(tiny_model):
    opened = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    keep_documents_apart(opened)
    return opened.eval()


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def plain(request, tiny_model):
    """The library's own attention."""
    opened = AutoModelForCausalLM.from_pretrained(
        tiny_model, dtype=torch.float32, attn_implementation=request.param
    )
    return opened.eval()


def alone(model, ids: np.ndarray) -> torch.Tensor:
    """Logits of one document in a forward pass of its own.  # (T, V)."""
    with torch.no_grad():
        return model(torch.from_numpy(ids)[None], use_cache=False).logits[0]


def greatest_leak(model, rows: list[Row], documents: list[list[np.ndarray]], **options) -> float:
    """Greatest difference of any logit between packed documents and the same ones alone."""
    batch = collate(rows, **options)
    with torch.no_grad():
        logits = model(**batch, use_cache=False).logits  # (B, T, V)
    leaks = []
    for row, contents in enumerate(documents):
        ends = np.cumsum([len(ids) for ids in contents])
        for ids, end in zip(contents, ends, strict=True):
            inside = logits[row, end - len(ids) : end]
            leaks.append(float((inside - alone(model, ids)).abs().max()))
    return max(leaks)


@pytest.mark.parametrize("num_rows", [1, 2])
def test_packing_never_attends_across_documents(model, num_rows):
    assert greatest_leak(model, ROWS[:num_rows], DOCUMENTS[:num_rows]) < 1e-5


def test_a_row_without_padding_or_with_one_document_is_no_exception(model):
    documents = [[document(8, 6), document(12, 7)], [document(20, 8)], [document(4, 9)]]
    rows = [packed(contents, 20) for contents in documents]
    assert greatest_leak(model, rows, documents) < 1e-5
    for row, contents in zip(rows, documents, strict=True):
        assert greatest_leak(model, [row], [contents]) < 1e-5


def test_across_documents_it_leaks_when_asked_to(plain):
    assert greatest_leak(plain, ROWS, DOCUMENTS, cross_document=True) > 1e-2


@pytest.mark.parametrize("mask", ["ones", "none, but a cache"])
def test_the_library_leaks_without_a_warning_when_asked_wrongly(plain, mask):
    # Why attention is ours: position_ids that restart are honoured on one of many paths.
    batch = {key: value for key, value in collate(ROWS[:1]).items() if key != "documents"}
    extra = {"attention_mask": torch.ones_like(batch["input_ids"])} if mask == "ones" else {}
    with torch.no_grad():
        logits = plain(**batch, **extra, use_cache=mask != "ones").logits[0, 9:26]
    assert float((logits - alone(plain, DOCUMENTS[0][1])).abs().max()) > 1e-2


def test_the_trainer_keeps_documents_apart_too(tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    keep_documents_apart(model)
    use_blocked_loss(model)
    seen = []

    class Spying(Trainer):
        def compute_loss(self, model, inputs, **options):
            seen.append(dict(inputs))
            return super().compute_loss(model, inputs, **options)

    model.config.use_cache = False
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=1,
        learning_rate=0.0,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Spying(model=model, args=arguments, train_dataset=ROWS, data_collator=collate)
    loss = trainer.train().training_loss
    [inputs] = seen
    assert "attention_mask" not in inputs
    assert {*collate(ROWS)} <= {*inputs} <= {*collate(ROWS), "num_items_in_batch"}
    assert loss == pytest.approx(mean_loss_alone(model), abs=1e-5)


def mean_loss_alone(model) -> float:
    """Mean over all predicted tokens of all documents, each in a forward pass of its own."""
    nats, num_tokens = 0.0, 0
    for ids in (ids for contents in DOCUMENTS for ids in contents):
        targets = torch.from_numpy(ids)[1:]
        nats += float(F.cross_entropy(alone(model.eval(), ids)[:-1], targets, reduction="sum"))
        num_tokens += len(targets)
    return nats / num_tokens


def test_the_loss_is_the_token_weighted_loss_of_the_documents_alone(model):
    batch = collate(ROWS)
    with torch.no_grad():
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False).logits
    loss = float(F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()))
    assert loss == pytest.approx(mean_loss_alone(model), abs=1e-5)


# --- the tensors ----------------------------------------------------------------------------------


def test_first_tokens_and_padding_are_not_asked_for():
    batch = collate([packed([np.array([1, 7, 2]), np.array([1, 8, 9, 2])], 10)])
    i = IGNORED
    assert batch["input_ids"].tolist() == [[1, 7, 2, 1, 8, 9, 2, 2, 2, 2]]
    assert batch["labels"].tolist() == [[i, 7, 2, i, 8, 9, 2, i, i, i]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 0, 1, 2]]


def test_across_documents_only_the_first_token_and_padding_are_not_asked_for():
    batch = collate([packed([np.array([1, 7, 2]), np.array([1, 8, 2])], 8)], cross_document=True)
    assert set(batch) == {"input_ids", "labels"}
    assert batch["labels"].tolist() == [[IGNORED, 7, 2, 1, 8, 2, IGNORED, IGNORED]]


lengths_of_pieces = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@settings(deadline=None)
@given(rows=st.lists(lengths_of_pieces, min_size=1, max_size=3), spare=st.integers(0, 6))
def test_every_piece_counts_its_places_from_zero(rows, spare):
    length = max(map(sum, rows)) + spare
    batch = collate([(np.arange(length), tuple(lengths)) for lengths in rows])
    for index, lengths in enumerate(rows):
        positions, labels = [], []
        for piece in [*lengths, length - sum(lengths)]:
            start = len(positions)
            positions += range(piece)
            labels += [IGNORED, *range(start + 1, start + piece)][:piece]
        labels[sum(lengths) :] = [IGNORED] * (length - sum(lengths))
        assert batch["position_ids"][index].tolist() == positions
        assert batch["labels"][index].tolist() == labels
    documents = batch.pop("documents")
    padding = [divmod(length - sum(lengths), 32) for lengths in rows]
    pieces = [[*own, *[32] * n, rest] for own, (n, rest) in zip(rows, padding, strict=True)]
    assert documents.lengths == tuple(piece for row in pieces for piece in row if piece)
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_long_padding_is_cut_so_that_its_attention_costs_nothing():
    batch = collate([packed([document(5, 1)], 100)])
    assert batch["documents"].lengths == (5, 32, 32, 31)
    assert batch["position_ids"][0, 5:].tolist() == list(range(95))
