"""Rows of packed documents to batches, with each document kept to itself.

Attention is kept inside documents by ``attention.document_attention``, which is told where they lie;
``position_ids`` restart at each. The loss never asks for the first token of a document, nor for
padding. There is never an ``attention_mask``: with one, Transformers (5.x) would let documents see
each other without a warning.

Knows nothing about models or files. Shapes: B rows, T tokens in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biomistral.training.attention import lay_out
from biomistral.training.cross_entropy import IGNORED

_PADDING_TOKENS = 32  # padding is cut into documents of this length, whose attention costs nothing

Row = tuple[NDArray[np.int64], tuple[int, ...]]  # token ids (T,), lengths of its pieces


def collate(rows: Sequence[Row], *, cross_document: bool = False) -> dict[str, Any]:
    """Stack rows into ``input_ids``, ``labels`` and, unless ``cross_document``, what keeps apart.

    That is ``position_ids`` and ``documents``. Tensors are int64 of shape (B, T). Nothing attends to
    padding; with ``cross_document`` (the published behaviour) attention and loss run over whole rows.
    """
    input_ids = torch.from_numpy(np.stack([ids for ids, _ in rows]))  # (B, T)
    labels = input_ids.clone()
    labels[:, 0] = IGNORED  # nothing predicts it, and the Trainer counts what is asked for
    positions = torch.zeros_like(input_ids)
    documents: list[int] = []
    for index, (ids, lengths) in enumerate(rows):
        padding = len(ids) - sum(lengths)
        pieces = [*lengths, padding]
        starts = np.cumsum([0, *pieces[:-1]])
        labels[index, starts[-1] :] = IGNORED
        if not cross_document:
            labels[index, [start for start in starts if start < len(ids)]] = IGNORED
        positions[index] = torch.cat([torch.arange(length) for length in pieces])
        documents += [*lengths, *_cut(padding)]
    batch = {"input_ids": input_ids, "labels": labels}
    if cross_document:
        return batch
    return {**batch, "position_ids": positions, "documents": lay_out(documents)}


def _cut(padding: int) -> list[int]:
    whole, rest = divmod(padding, _PADDING_TOKENS)
    return [_PADDING_TOKENS] * whole + [rest] * (rest > 0)
