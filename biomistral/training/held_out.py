"""The loss on rows that are not trained on: mean natural-log loss per predicted token.

Every token counts alike, however rows are filled and batched, so the exponential is the perplexity.
In several processes each takes a part of the rows. Knows nothing about training or files.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed

from biomistral.models.rows import PackedRows
from biomistral.training.collation import Row, collate
from biomistral.training.cross_entropy import losses_of


@dataclass(frozen=True)
class HeldOutLoss:
    """In nats per predicted token; NaN where no token is predicted."""

    loss: float
    by_language: dict[str, float] = field(default_factory=dict)  # where there are several


def held_out_loss(
    model: Any, rows: PackedRows, *, rows_per_batch: int, cross_document: bool = False
) -> HeldOutLoss:
    """Return the loss of ``model`` on ``rows``, and that of each language.

    Documents are kept apart as in training. The model is left in the mode it came in.
    """
    was_training = model.training
    model.eval()
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])  # language: nats, tokens
    with torch.no_grad():
        for part in _batches(len(rows), rows_per_batch):
            chosen = [_row(rows, index) for index in part]
            batch = collate(chosen, cross_document=cross_document)
            asked = (batch["labels"] >= 0)[:, 1:].numpy()  # (B, T - 1)
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            nats = losses_of(model, batch).double().cpu().numpy()[:, :-1]
            for place, index in enumerate(part):
                _add(totals, rows, index, nats[place], asked[place])
    model.train(was_training)
    return _means(_of_all_processes(totals, rows))


def _batches(num_rows: int, rows_per_batch: int) -> list[range]:
    """Batches of this process. All have as many, as sharded models want; the last may be empty."""
    rank, world = _place()
    starts = range(0, num_rows, rows_per_batch)
    own = list(starts)[rank::world]
    own += [num_rows] * (math.ceil(len(starts) / world) - len(own))
    return [range(s, min(s + rows_per_batch, num_rows) if s < num_rows else s + 1) for s in own]


def _row(rows: PackedRows, index: int) -> Row:
    """A row; past the end one of padding."""
    if index < len(rows):
        return rows[index]
    return np.zeros(rows.sequence_length, dtype=np.int64), ()


def _add(
    totals: dict[str, list[float]],
    rows: PackedRows,
    index: int,
    nats: np.ndarray[Any, Any],
    asked: np.ndarray[Any, Any],
) -> None:
    """Add the losses of one row, (T - 1,), to the languages of its documents."""
    if index >= len(rows):
        return
    _, lengths = rows[index]
    start = 0
    for length, language in zip(lengths, rows.languages(index), strict=True):
        # Token t is predicted at t - 1; the first of a document only where documents are joined.
        own = slice(max(start - 1, 0), start + length - 1)
        totals[language][0] += float(nats[own].sum())
        totals[language][1] += int(asked[own].sum())
        start += length


def _means(totals: dict[str, list[float]]) -> HeldOutLoss:
    nats = sum(total[0] for total in totals.values())
    num_tokens = sum(total[1] for total in totals.values())
    known = {name: t for name, t in sorted(totals.items()) if name and t[1]}
    by_language = {name: t[0] / t[1] for name, t in known.items()} if len(known) > 1 else {}
    return HeldOutLoss(nats / num_tokens if num_tokens else math.nan, by_language)


def _of_all_processes(totals: dict[str, list[float]], rows: PackedRows) -> dict[str, list[float]]:
    """Sum over processes."""
    _, world = _place()
    if world == 1:
        return totals
    names = sorted({name for index in range(len(rows)) for name in rows.languages(index)})
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    table = torch.tensor([totals[name] for name in names], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(table)
    return dict(zip(names, table.tolist(), strict=True))


def _place() -> tuple[int, int]:
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()
