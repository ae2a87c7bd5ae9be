"""What a variant of a model lost, on text that nobody trained on: perplexity before and after.

Both models read the same rows, so the difference is known better than either: its interval is that
of the mean over rows of paired differences (normal, 1.96 standard errors). Knows nothing about
files or about how the variant was made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Row = tuple[Tensor, Sequence[int]]  # ids int64 (T,) without padding, lengths of its documents


@torch.no_grad()
def row_losses(model: Any, rows: Sequence[Row]) -> list[tuple[float, int]]:
    """Loss of each row in nats, and the tokens predicted; documents do not see each other."""
    found = []
    for ids, lengths in rows:
        positions = torch.cat([torch.arange(length) for length in lengths])
        # Restarting positions, no mask and no cache: only so are documents kept apart.
        logits = model(
            input_ids=ids[None].to(model.device),
            position_ids=positions[None].to(model.device),
            use_cache=False,
        ).logits[0, :-1]
        wanted = ids[1:].to(logits.device)
        losses = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
        inside = (positions[1:] > 0).to(logits.device)  # the first token of a document is given
        found.append((float(losses[inside].double().sum()), int(inside.sum())))
    return found


def compare_losses(
    before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]
) -> dict[str, float | int]:
    """Perplexities on the same rows, and the loss per token that was added, with its interval."""
    num_tokens = sum(tokens for _, tokens in before)
    totals = [sum(nats for nats, _ in losses) / num_tokens for losses in (before, after)]
    added = totals[1] - totals[0]
    # Rows differ in tokens: the variance of a ratio, by its residuals.
    residuals = [b[0] - a[0] - added * a[1] for a, b in zip(before, after, strict=True)]
    num_rows = len(residuals)
    spread = math.sqrt(sum(r * r for r in residuals) * num_rows / max(1, num_rows - 1)) / num_tokens
    return {
        "rows": num_rows,
        "tokens": num_tokens,
        "perplexity_before": math.exp(totals[0]),
        "perplexity_after": math.exp(totals[1]),
        "added_nats_per_token": added,
        "added_nats_per_token_low": added - 1.96 * spread,
        "added_nats_per_token_high": added + 1.96 * spread,
    }
