"""The edge of prediction: one model and requests in, a file of predictions out.

The predictions are put together from *units* (``units``), which are scored where they are not kept
already. So a run that was killed goes on behind its last batch, and a model, task, language, seed
or scoring that is added costs what is new and no more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from biomistral import artifacts, versions
from biomistral.artifacts import Draft, Origin
from biomistral.errors import ModelError
from biomistral.evaluation.columns import PREDICTIONS, VALIDATION
from biomistral.evaluation.endpoints.engine import EndpointEngine, in_words
from biomistral.evaluation.engine import Engine, TransformersEngine
from biomistral.evaluation.long_prompts import FewerShots, Fitted, Rule, fit
from biomistral.evaluation.units import Store, Unit, cut
from biomistral.evaluation.vllm_engine import VllmEngine
from biomistral.models.adapted import adapted
from biomistral.models.hub import local_folder
from biomistral.models.loading import pick_device
from biomistral.progress import Progress, ignore
from biomistral.recipe.endpoints import EndpointModel
from biomistral.records import Prediction, Request, write_records
from biomistral.workers import num_elsewhere, run_all

if TYPE_CHECKING:
    from biomistral.recipe.settings import EvaluateSettings

# What changes the answers of one model; which other models are evaluated does not.
_SETTINGS_OF_ANSWERS = {"batch_tokens", "precision", "engine", "long_prompts"}
_COSTS = ("prompt_tokens", "forward_tokens")


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Where answers are kept, and how files are told apart: what a run knows and a step does not."""

    units: Path | None = None  # folder of answers; None: they live as long as the draft
    digest: Callable[[Path], str] = artifacts.file_digest  # may remember files that did not change


@dataclasses.dataclass(frozen=True)
class Asked:
    """Requests, and how to build the same ones with fewer worked examples, if that is wanted."""

    requests: Sequence[Request]
    fewer_shots: FewerShots | None = None


def predict(
    settings: EvaluateSettings,
    model: Path | str | EndpointModel,
    requests: Iterable[Request],
    out: Path,
    *,
    name: str,
    revision: str | None = None,
    fewer_shots: FewerShots | None = None,
    validation: Asked | None = None,
    keeping: Keeping | None = None,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Score ``requests`` with ``model`` and write the predictions of ``name``, in their order.

    ``model`` is a folder, a hub id with its ``revision``, or one behind an endpoint. Answers that
    ``keeping`` has already are taken from there. ``fewer_shots`` builds the same requests with fewer
    worked examples, for ``long_prompts: drop_shots``. The answers to ``validation`` requests go into
    a file of their own.

    Raises ``InputError`` or ``ModelError`` if model, tokenizer and requests do not go together, a
    prompt is too long by the rule of ``settings``, or the memory is too small for any batch.
    """
    keeping = keeping or Keeping()
    requests = list(requests)
    validation = validation or Asked([])
    origin = origin or _origin(
        settings, model, requests, validation.requests, name=name, revision=revision
    )
    with artifacts.create(out, origin, resume=True) as draft, contextlib.ExitStack() as stack:
        store = Store(keeping.units or draft.work)
        engine = _engine(settings, model, revision, keeping, store)
        if isinstance(engine, VllmEngine):
            stack.callback(engine.close)
        _describe(draft, engine)
        rule = settings.long_prompts
        tested = _fitted(Asked(requests, fewer_shots), engine, rule)
        other = _fitted(validation, engine, rule)
        if isinstance(engine, EndpointEngine) and tested.requests:
            progress(0, None, engine.expect([*tested.requests, *other.requests]).words)
        units, others = _units(engine, tested.requests), _units(engine, other.requests)
        _tell_what_is_asked_again(name, store, [*units, *others])
        if (
            not isinstance(model, EndpointModel)
            and settings.engine == "own"
            and num_elsewhere(gpu=True) > 1
        ):
            elsewhere = [*units, *others]
            devices = _score_elsewhere(settings, model, revision, elsewhere, store, progress)
            _describe(draft, engine, *sorted(devices))
        tables, counts = _answers(engine, units, store, name=name, progress=progress)
        if tested.shortened or tested.skipped:
            counts["long_prompts"] = {
                "shortened": tested.shortened,
                "skipped": list(tested.skipped),
            }
        _join(tables, draft.folder / PREDICTIONS)
        draft.counts.update(counts)
        if isinstance(engine, EndpointEngine):
            draft.counts["in_words"] = in_words(tables)
        if other.requests:
            tables, _ = _answers(engine, others, store, name=name, progress=progress)
            _join(tables, draft.folder / VALIDATION)
            draft.counts["validation_predictions"] = len(other.requests)
    return out


def _engine(
    settings: EvaluateSettings,
    model: Path | str | EndpointModel,
    revision: str | None,
    keeping: Keeping,
    store: Store,
) -> Engine:
    """Return what answers for a model: a server, vLLM, or the engine of our own."""
    if isinstance(model, EndpointModel):
        return EndpointEngine(model, store.folder)
    if settings.engine == "vllm":
        if adapted(model, revision):
            raise ModelError(
                f"{model}: is a model with an adapter, which is not given to vLLM here; merge the two "
                "(biomistral merge, see docs/merging.md), or use engine: own"
            )
        return VllmEngine(
            local_folder(model, revision), precision=settings.precision, digest=keeping.digest
        )
    return TransformersEngine(settings, model, revision, keeping.digest)


def _describe(draft: Draft, engine: Engine, *elsewhere: str) -> None:
    """Say in the manifest where the answers come from, and why they may not come again.

    ``elsewhere`` are the devices of other machines that answered.
    """
    if isinstance(engine, EndpointEngine):
        draft.not_deterministic = "a server's answers may change"
        return
    draft.device = ", ".join(elsewhere) or pick_device().type
    if isinstance(engine, VllmEngine):
        draft.not_deterministic = "vLLM's numbers depend on what is asked at the same time"
        return
    if draft.device != "cpu":
        draft.not_deterministic = "GPU kernels add in varying order"
    draft.threads = torch.get_num_threads()


def _fitted(asked: Asked, engine: Engine, rule: Rule) -> Fitted:
    """Apply the rule for long prompts; nothing is opened where nothing is asked."""
    if not asked.requests:
        return Fitted([])
    return fit(asked.requests, engine, rule, asked.fewer_shots)


def _answers(
    engine: Engine, units: Sequence[Unit], store: Store, *, name: str, progress: Progress
) -> tuple[list[pa.Table], dict[str, Any]]:
    """Return the predictions of all units, scored or kept, and counts of them."""
    tables: list[pa.Table] = []
    counts: dict[str, Any] = {"predictions": 0, "prompts": 0, **dict.fromkeys(_COSTS, 0)}
    num_requests = sum(len(unit.requests) for unit in units)
    for unit in units:
        found = store.read(unit, name)
        if found is None:
            listener = _ahead(progress, counts["predictions"], num_requests, unit.words)
            _score(engine, unit, store, listener)
            found = store.read(unit, name)
            assert found is not None, "a unit that was just written can be read"
        table, cost = found
        tables.append(table)
        counts["predictions"] += len(unit.requests)
        counts["prompts"] += len({request.prompt for request in unit.requests})
        for key in _COSTS:  # once unknown, the sum is
            known = counts[key] is not None and cost[key] is not None
            counts[key] = counts[key] + cost[key] if known else None
        progress(counts["predictions"], num_requests, unit.words)
    return tables, {key: count for key, count in counts.items() if count is not None}


def _units(engine: Engine, requests: Sequence[Request]) -> list[Unit]:
    return list(cut(requests, engine.facts() if requests else {}))


def _tell_what_is_asked_again(name: str, store: Store, units: Sequence[Unit]) -> None:
    """Warn of answers that are kept but not used: who has them does not expect to wait."""
    for why, outdated in store.outdated(units).items():
        more = f" and {len(outdated) - 3} more" if len(outdated) > 3 else ""
        listed = "; ".join(unit.words for unit in outdated[:3])
        warnings.warn(
            f"{name}: scoring {len(outdated)} of {len(units)} units again, although {store.folder} "
            f"keeps answers to them: {why} ({listed}{more})",
            stacklevel=2,
        )


def _score_elsewhere(
    settings: EvaluateSettings,
    model: Path | str,
    revision: str | None,
    units: Iterable[Unit],
    store: Store,
    progress: Progress,
) -> set[str]:
    """Have the units that are not kept scored on a cluster; return the devices that did it.

    Each task loads the model once.
    """
    missing = [unit for unit in units if not store.has(unit)]
    shares = _shares(missing, num_elsewhere(gpu=True))
    work = functools.partial(score_units, settings, model, revision, store.folder)
    done = 0
    devices: set[str] = set()
    for index, device in run_all(work, shares, len(shares), gpu=True):
        devices.add(device)
        done += len(shares[index])
        progress(done, len(missing), "units on the cluster")
    return devices


def _shares(units: Sequence[Unit], most: int) -> list[list[Unit]]:
    """Divide units into at most so many shares of about as many characters to read."""
    shares: list[list[Unit]] = [[] for _ in range(min(most, len(units)))]
    loads = [0] * len(shares)
    sized = [(sum(len(request.prompt) for request in unit.requests), unit) for unit in units]
    for size, unit in sorted(sized, key=lambda pair: -pair[0]):
        least = loads.index(min(loads))
        shares[least].append(unit)
        loads[least] += size
    return shares


def score_units(
    settings: EvaluateSettings,
    model: Path | str,
    revision: str | None,
    folder: Path,
    units: Sequence[Unit],
) -> str:
    """Score those of some units that ``folder`` does not keep yet, keep them there; say on what."""
    store = Store(folder)
    engine = TransformersEngine(settings, model, revision, artifacts.file_digest)
    for unit in units:
        if not store.has(unit):
            _score(engine, unit, store, ignore)
    return pick_device().type


def _score(engine: Engine, unit: Unit, store: Store, progress: Progress) -> None:
    """Score what is left of one unit and keep it."""
    with store.begin(unit) as unfinished:
        missing = unfinished.missing
        cost: dict[str, int | None] = dict.fromkeys(_COSTS)

        def keep(
            indices: Sequence[int], logprobs: Sequence[tuple[float, ...]], tops: Sequence[str]
        ) -> None:
            unfinished.keep([missing[index] for index in indices], logprobs, tops)

        if missing:
            start = len(unit.requests) - len(missing)
            listener = _ahead(progress, start, None, unit.words)
            asked = [unit.requests[index] for index in missing]
            found = engine.score(asked, keep=keep, progress=listener)
            cost = cost if unfinished.resumed else found
        unfinished.finish(cost)


def _origin(
    settings: EvaluateSettings,
    model: Path | str | EndpointModel,
    requests: Sequence[Request],
    validation: Sequence[Request],
    *,
    name: str,
    revision: str | None,
) -> Origin:
    if isinstance(model, EndpointModel):
        fingerprint = model.digest()
    else:
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
        inputs={"requests": _digest(requests), "validation": _digest(validation)},
        step_version=versions.STEP_VERSIONS["predict"],
    )


def _digest(requests: Iterable[Request]) -> str:
    return artifacts.digest_of([artifacts.digest_of(dataclasses.asdict(r)) for r in requests])


def _ahead(progress: Progress, start: int, whole: int | None, words: str) -> Progress:
    """Report progress within a part as progress of the whole."""

    def listen(done: float, total: float | None, text: str) -> None:  # noqa: ARG001
        progress(start + done, whole, words)

    return listen


def _join(tables: Sequence[pa.Table], path: Path) -> None:
    if tables:
        pq.write_table(pa.concat_tables(tables), path, compression="zstd")
    else:
        write_records(path, [], Prediction)
