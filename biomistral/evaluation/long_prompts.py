"""What to do with prompts that are longer than a model's context.

    refuse      an error that names the first and says how many there are
    drop_shots  as many worked examples fewer as it takes; without any, it is refused
    skip        their questions are not asked, with no seed, and counted

Nothing is ever cut inside a question: a model that sees half of one answers another. Knows nothing
about how prompts are made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from biomistral.errors import ModelError
from biomistral.records import Request

if TYPE_CHECKING:
    from biomistral.evaluation.engine import Engine

Rule = Literal["refuse", "drop_shots", "skip"]
FewerShots = Callable[[int], Sequence[Request]]  # number of shots -> the same requests with so many


@dataclass(frozen=True)
class Fitted:
    """Requests that fit. Shortened ones keep the number of shots of their cell."""

    requests: list[Request]
    shortened: int = 0
    skipped: tuple[str, ...] = ()  # their questions, as task/language/id


def fit(
    requests: Sequence[Request],
    engine: Engine,
    rule: Rule,
    fewer_shots: FewerShots | None = None,
) -> Fitted:
    """Apply the rule to the requests that do not fit; their order stays.

    Raises ``ModelError`` by the rule, and with ``drop_shots`` if one does not fit without shots.
    """
    long = engine.too_long(requests)
    if not long:
        return Fitted(list(requests))
    if rule == "skip":
        # With every seed and scoring, or accuracies would be of different questions.
        gone = dict.fromkeys(_question(requests[index]) for index in sorted(long))
        return Fitted([r for r in requests if _question(r) not in gone], 0, tuple(gone))
    if rule == "refuse" or fewer_shots is None:
        advice = "use fewer shots, or long_prompts: drop_shots or skip"
        raise _refusal(requests, long, engine, requests[min(long)].shots, advice)
    fitted = list(requests)
    left = dict(long)
    for shots in reversed(range(max(requests[index].shots for index in long))):
        found = {_key(request, shots): request for request in fewer_shots(shots)}
        for index in left:
            same = found[_key(requests[index], shots)]
            shown = requests[index].shots, requests[index].seed
            fitted[index] = dataclasses.replace(same, shots=shown[0], seed=shown[1])
        indices = list(left)
        still = engine.too_long([fitted[index] for index in indices])
        left = {indices[place]: length for place, length in still.items()}
        if not left:
            return Fitted(fitted, len(long))
    raise _refusal(requests, left, engine, 0, "use long_prompts: skip, or another model")


def _question(request: Request) -> str:
    return f"{request.task}/{request.language}/{request.question_id}"


def _key(request: Request, shots: int) -> tuple[object, ...]:
    # Without shots all seeds are alike, and only one is built.
    seed = request.seed if shots else 0
    return request.task, request.language, request.question_id, request.scoring, request.order, seed


def _refusal(
    requests: Sequence[Request], long: dict[int, int], engine: Engine, shots: int, advice: str
) -> ModelError:
    first = requests[min(long)]
    others = f" ({len(long)} of {len(requests)} prompts are too long)" if len(long) > 1 else ""
    return ModelError(
        f"question {first.question_id!r} of {first.task} ({first.language}): its prompt with "
        f"{shots} worked examples and the longest choice is {long[min(long)]} tokens, the "
        f"model's context is {engine.context_tokens}{others}; {advice}"
    )
