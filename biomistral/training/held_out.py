"""The loss on rows that are not trained on: mean natural-log loss per predicted token.

Every token counts alike, however rows are filled and batched, so the exponential is the perplexity.
Knows nothing about training or files.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from biomistral.models.rows import PackedRows
from biomistral.training.collation import collate
from biomistral.training.cross_entropy import IGNORED


def held_out_loss(
    model: Any, rows: PackedRows, *, rows_per_batch: int, cross_document: bool = False
) -> float:
    """Return the loss of ``model`` on ``rows``, in nats per token; NaN if no token is predicted.

    Documents are kept apart as in training. The model is left in the mode it came in.
    """
    was_training = model.training
    model.eval()
    nats, num_tokens = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), rows_per_batch):
            part = [rows[i] for i in range(start, min(start + rows_per_batch, len(rows)))]
            batch = collate(part, cross_document=cross_document)
            num_predicted = int((batch["labels"][:, 1:] != IGNORED).sum())
            if num_predicted == 0:  # the model would divide by it
                continue
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            nats += float(model(**batch, use_cache=False).loss) * num_predicted
            num_tokens += num_predicted
    model.train(was_training)
    return nats / num_tokens if num_tokens else math.nan
