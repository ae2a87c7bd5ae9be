"""Rows of packed documents to batches, with each document kept to itself.

Attention is kept inside documents through ``position_ids`` that restart at each one: Transformers
(5.x) builds its document mask from them, but only if no ``attention_mask`` is given and no cache is
used; any other combination leaks between documents without a warning. The loss never asks for the
first token of a document, nor for padding.

Knows nothing about models or files. Shapes: B rows, T tokens in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100  # label that cross-entropy leaves out

Row = tuple[NDArray[np.int64], tuple[int, ...]]  # token ids (T,), lengths of its pieces


def collate(rows: Sequence[Row], *, cross_document: bool = False) -> dict[str, Tensor]:
    """Stack rows into ``input_ids``, ``labels`` and, unless ``cross_document``, ``position_ids``.

    All are int64 of shape (B, T). Padding is a document of its own, so that nothing attends to it;
    with ``cross_document`` (the published behaviour) attention and loss run over whole rows.
    """
    input_ids = torch.from_numpy(np.stack([ids for ids, _ in rows]))  # (B, T)
    labels = input_ids.clone()
    positions = torch.zeros_like(input_ids)
    for index, (ids, lengths) in enumerate(rows):
        pieces = [*lengths, len(ids) - sum(lengths)]
        starts = np.cumsum([0, *pieces[:-1]])
        labels[index, starts[-1] :] = IGNORED
        if not cross_document:
            labels[index, [start for start in starts if start < len(ids)]] = IGNORED
        positions[index] = torch.cat([torch.arange(length) for length in pieces])
    batch = {"input_ids": input_ids, "labels": labels}
    return batch if cross_document else {**batch, "position_ids": positions}
