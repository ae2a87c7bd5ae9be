"""The edge of prediction: one model and requests in, a file of predictions out.

Requests come in groups of one task, language, seed and scoring, whose prompts begin alike. A group
is scored whole and kept whole, so a run that is killed goes on behind the last finished group.
How a request is scored is in ``models.scoring``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import ModelError
from biomistral.evaluation.columns import PREDICTIONS
from biomistral.models.loading import load_model, load_tokenizer, pick_device
from biomistral.progress import Progress, ignore
from biomistral.records import Prediction, Request, write_records

if TYPE_CHECKING:
    from biomistral.models.continuations import TextEncoder
    from biomistral.models.scoring import Scored
    from biomistral.recipe.settings import EvaluateSettings

# What changes the answers of one model; which other models are evaluated does not.
_SETTINGS_OF_ANSWERS = {"batch_tokens", "precision"}


def predict(
    settings: EvaluateSettings,
    model: Path | str,
    requests: Iterable[Request],
    out: Path,
    *,
    name: str,
    revision: str | None = None,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Score ``requests`` with ``model`` and write the predictions of ``name``, in their order.

    ``model`` is a folder or a hub id with its ``revision``. A run that was interrupted goes on
    where it was. Raises ``InputError`` or ``ModelError`` if model, tokenizer and requests do not
    go together, ``ModelError`` if the memory of the GPU is too small for a batch.
    """
    if origin is None:
        requests = list(requests)
        origin = _origin(settings, model, requests, name=name, revision=revision)
    total = len(requests) if isinstance(requests, Sized) else None
    with artifacts.create(out, origin, resume=True) as draft:
        draft.device = pick_device().type
        if draft.device != "cpu":
            draft.not_deterministic = "GPU kernels add in varying order"
        draft.threads = torch.get_num_threads()
        engine = _Engine(settings, model, revision)
        totals = dict.fromkeys(("predictions", "prompts", "prompt_tokens", "forward_tokens"), 0)
        parts = []
        for index, group in enumerate(_groups(requests)):
            part = draft.work / f"{index:05}-{_digest(group)[:16]}.parquet"
            if not part.exists():
                listener = _ahead(progress, totals["predictions"], total, _words(group[0]))
                _write_part(part, name, group, engine.score(group, listener))
            for key, count in json.loads(part.with_suffix(".json").read_text()).items():
                totals[key] += count
            parts.append(part)
            progress(totals["predictions"], total, _words(group[0]))
        _join(parts, draft.folder / PREDICTIONS)
        draft.counts.update(totals)
    return out


class _Engine:
    """The model and its tokenizer, opened when the first group is to be scored."""

    def __init__(self, settings: EvaluateSettings, model: Path | str, revision: str | None) -> None:
        self._settings = settings
        self._path = model
        self._revision = revision
        self._opened: tuple[Any, TextEncoder] | None = None

    def score(self, group: Sequence[Request], progress: Progress) -> Scored:
        from biomistral.models.continuations import TextEncoder
        from biomistral.models.scoring import score_requests

        if self._opened is None:
            # The tokenizer first: it is refused in no time, the model takes minutes to load.
            tokenizer = load_tokenizer(self._path, self._revision)
            model = load_model(
                self._path, revision=self._revision, precision=self._settings.precision
            )
            self._opened = model, TextEncoder(tokenizer)
        batch_tokens = self._settings.batch_tokens
        try:
            return score_requests(
                *self._opened, group, batch_tokens=batch_tokens, progress=progress
            )
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"evaluate.batch_tokens: {batch_tokens} tokens at a time are more than the memory "
                f"of the GPU holds beside the model {self._path}; lower it (finished groups are "
                "kept), or evaluate a quantized model"
            ) from error


def _origin(
    settings: EvaluateSettings,
    model: Path | str,
    requests: Sequence[Request],
    *,
    name: str,
    revision: str | None,
) -> Origin:
    folder = Path(model)
    fingerprint = artifacts.fingerprint_of_files([folder]) if folder.is_dir() else ""
    return Origin(
        kind="predictions",
        name=name,
        settings={
            **settings.model_dump(mode="json", include=_SETTINGS_OF_ANSWERS),
            "model": fingerprint or str(model),
            "revision": revision,
            "name": name,
        },
        inputs={"requests": _digest(requests)},
    )


def _groups(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Cut the requests where task, language, seed, shots or scoring changes."""
    for _, group in itertools.groupby(
        requests, key=lambda r: (r.task, r.language, r.shots, r.seed, r.scoring)
    ):
        yield list(group)


def _digest(requests: Iterable[Request]) -> str:
    return artifacts.digest_of(
        [artifacts.digest_of(dataclasses.asdict(request)) for request in requests]
    )


def _words(request: Request) -> str:
    return f"{request.task}, {request.language}, seed {request.seed}, {request.scoring}"


def _ahead(progress: Progress, start: int, whole: int | None, words: str) -> Progress:
    """Report progress within a group as progress of the whole."""

    def listen(done: float, total: float | None, text: str) -> None:  # noqa: ARG001
        progress(start + done, whole, words)

    return listen


def _write_part(part: Path, name: str, group: Sequence[Request], scored: Scored) -> None:
    """Write the predictions of a group and what they cost; the rename says that both are there."""
    artifacts.write_json(
        part.with_suffix(".json"),
        {
            "predictions": len(group),
            "prompts": len({request.prompt for request in group}),
            "prompt_tokens": scored.num_prompt_tokens,
            "forward_tokens": scored.num_forward_tokens,
        },
    )
    records = (
        Prediction(
            question_id=request.question_id,
            task=request.task,
            language=request.language,
            model=name,
            shots=request.shots,
            seed=request.seed,
            scoring=request.scoring,
            logprobs=logprobs,
            gold=request.gold,
        )
        for request, logprobs in zip(group, scored.logprobs, strict=True)
    )
    unfinished = part.with_suffix(".unfinished")
    write_records(unfinished, records, Prediction)
    unfinished.rename(part)


def _join(parts: Sequence[Path], path: Path) -> None:
    if parts:
        pq.write_table(pa.concat_tables(map(pq.read_table, parts)), path, compression="zstd")
    else:
        write_records(path, [], Prediction)
