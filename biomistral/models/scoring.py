"""Log-probabilities of continuations: the engine under every benchmark number.

The contract. Given a model, an encoder of its tokenizer's texts and a list of requests, return for
each request one number per continuation, in order, all natural logarithms:

    letter   log P(letter | prompt) over the whole vocabulary, read at one position
    cloze    log P(continuation | prompt), summed over its tokens, per UTF-8 byte of its text

Worked example. The prompt ``Answer:(`` is the tokens ``<s> Answer : (`` and the letters A and B
are one token each. The model reads the four tokens once; at the fourth, the logits' log-softmax
holds -1.9 for ``A`` and -2.3 for ``B``: the answer is ``(-1.9, -2.3)``. For the prompt
``Answer:`` and the continuations `` bark`` (one token, 5 bytes) and `` cold water`` (two tokens,
11 bytes) the row ``<s> Answer : cold`` is read. Its third position holds -4.0 for ``bark`` and
-2.0 for ``cold``, its fourth -2.7 for ``water``: the answer is ``(-4.0/5, (-2.0-2.7)/11)``.

    published  as letter, but the letter's log-probability is the largest of all tokens that decode
            to it (``A``, `` A`` and the byte ``<0x41>``), which is what the published scripts did

How. What prompts begin with alike (instruction, worked examples, question) is found in their token
ids and run once. What is left of a request is one row: the rest of its prompt (the trunk) and behind
it the continuations (the branches), each of which sees the trunk and itself only. Only positions
that are read go through the output head, and both head and softmax are taken in float32. Models
built like Mistral are run by ``packed``, any other by ``padded``. Hand over requests that share a
long beginning in one call.

Where a prompt ends and a continuation begins is decided in ``continuations``. Knows nothing about
tasks, choices, right answers or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from biomistral.errors import ModelError
from biomistral.models.continuations import Encoded, TextEncoder, encode_requests
from biomistral.models.packed import is_supported, run_packed
from biomistral.models.padded import run_padded
from biomistral.models.reading import Reads, float32_head, read
from biomistral.progress import Progress, ignore
from biomistral.records import Request

# Raised when the numbers may change, so that kept ones are not mixed with new ones.
ENGINE_VERSION = 5
# Larger batches are slower on a CPU, where they fall out of the caches: measured on a model of 4
# million parameters, 16,384 tokens took 20 to 50 % more processor time than 2,048.
_MOST_TOKENS_ON_CPU = 2048


@dataclass(frozen=True, slots=True)
class Scored:
    """What a call of ``score_requests`` found, and what it cost."""

    logprobs: list[tuple[float, ...]]  # per request, per continuation
    num_prompt_tokens: int  # of all prompts, as if each were read by itself
    num_forward_tokens: int  # that went through the model, padding included
    # Per request the text of the most probable token of the whole vocabulary; only if published.
    tops: list[str] = field(default_factory=list)


# Called with the indices of requests, their log-probabilities and their most probable tokens.
OnBatch = Callable[[list[int], list[tuple[float, ...]], list[str]], None]


@torch.inference_mode()
def score_requests(
    model: Any,
    encoder: TextEncoder,
    requests: Sequence[Request],
    *,
    batch_tokens: int = 16_384,
    progress: Progress = ignore,
    on_batch: OnBatch | None = None,
) -> Scored:
    """Score requests; neither their order nor ``batch_tokens`` changes a result.

    On a CPU this holds to the last bit for models that ``packed`` runs, else up to rounding.
    ``batch_tokens`` bounds the tokens of a forward pass, those run once for several apart; a
    bfloat16 model takes a float32 copy of its head besides (0.5 GB for Mistral 7B). ``on_batch`` is
    told results as they come, so that they can be kept.

    Raises ``ModelError`` if a prompt does not fit into the model's context, if a letter is not one
    token, if the tokenizer is of another model, or if the model gives no finite number.
    """
    if not requests:
        return Scored([], 0, 0)
    encoded = encode_requests(encoder, requests)
    _check_fit(model, requests, encoded)
    if model.device.type == "cpu":
        batch_tokens = min(batch_tokens, _MOST_TOKENS_ON_CPU)
    run = run_packed if is_supported(model) else run_padded
    logits_of = float32_head(model.get_output_embeddings())
    logprobs: list[tuple[float, ...]] = [()] * len(requests)
    tops = [""] * len(requests)
    num_forward_tokens = done = 0
    for indices, hidden, reads, num_tokens in run(model, encoded, batch_tokens):
        found, best = read(logits_of, hidden, reads)
        rows = _per_request(requests, indices, reads, found)
        for index, row, top in zip(
            indices, rows, _tops(encoder, requests, indices, encoded, best), strict=True
        ):
            logprobs[index], tops[index] = _finish(requests[index], row), top
        if on_batch:
            on_batch(indices, [logprobs[i] for i in indices], [tops[i] for i in indices])
        num_forward_tokens += num_tokens
        done += len(indices)
        progress(done, len(requests), "questions")
    return Scored(
        logprobs, sum(item.num_prompt_tokens for item in encoded), num_forward_tokens, tops
    )


def _check_fit(model: Any, requests: Sequence[Request], encoded: Sequence[Encoded]) -> None:
    """Refuse prompts longer than the context, ids past the embedding, and heads unlike a matrix."""
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, name, None) not in {None, 1.0}:
            raise ModelError(
                f"the model's logits are bent by {name}, which scoring does not do; "
                "use a model of the Mistral or Llama kind"
            )
    limit = getattr(model.config, "max_position_embeddings", None)
    num_embeddings = model.get_input_embeddings().weight.shape[0]
    for request, item in zip(requests, encoded, strict=True):
        where = f"question {request.question_id!r} of {request.task} ({request.language})"
        if limit is not None and item.num_tokens > limit:
            raise ModelError(
                f"{where}: its prompt with {request.shots} worked examples and the longest choice "
                f"is {item.num_tokens} tokens, the model's context is {limit}; use fewer shots"
            )
        largest = max(map(max, [item.trunk, *item.tails, *filter(None, item.alternatives)]))
        if largest >= num_embeddings:
            raise ModelError(
                f"{where}: the tokenizer gives the id {largest}, the model's embedding ends at "
                f"{num_embeddings - 1}; use the tokenizer that belongs to this model"
            )


# --- results --------------------------------------------------------------------------------------


def _per_request(
    requests: Sequence[Request], indices: Sequence[int], reads: Reads, found: np.ndarray
) -> list[list[float]]:
    """Join the log-probabilities of the tokens of each continuation: their sum, or the largest."""
    sums = np.bincount(reads.continuations, found, minlength=reads.num_continuations)
    largest = np.full(reads.num_continuations, -np.inf)
    with np.errstate(invalid="ignore"):  # NaN is refused later, by name
        np.maximum.at(largest, reads.continuations, found)
    rows = []
    start = 0
    for index in indices:
        stop = start + len(requests[index].continuations)
        numbers = largest if requests[index].scoring == "published" else sums
        rows.append(numbers[start:stop].tolist())
        start = stop
    return rows


def _tops(
    encoder: TextEncoder,
    requests: Sequence[Request],
    indices: Sequence[int],
    encoded: Sequence[Encoded],
    best: np.ndarray,
) -> list[str]:
    """Return the text of the most probable token behind each prompt, where it counts."""
    tops = []
    place = 0
    for index in indices:
        is_wanted = requests[index].scoring == "published"
        tops.append(encoder.tokenizer.decode([int(best[place])]) if is_wanted else "")
        place += 1 + sum(len(tail) - 1 for tail in encoded[index].tails)
    return tops


def _finish(request: Request, sums: list[float]) -> tuple[float, ...]:
    """Divide by bytes if that is the scoring; refuse what is no number."""
    if not np.isfinite(sums).all():
        raise ModelError(
            f"question {request.question_id!r} of {request.task} ({request.language}): the model "
            f"gave the log-probabilities {sums}; its weights are broken, or it was run in too low "
            "a precision: try precision: float32"
        )
    if request.scoring != "cloze":
        return tuple(sums)
    num_bytes = [len(text.encode()) for text in request.continuations]
    return tuple(total / count for total, count in zip(sums, num_bytes, strict=True))
