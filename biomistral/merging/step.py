"""The merge step: checkpoint folders in, one checkpoint folder out, a tensor at a time.

The only module of merging that reads weights and writes files. The arithmetic is in ``methods``,
what is refused beforehand in ``plan``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError, ModelError
from biomistral.merging.catalogue import METHODS as RULES
from biomistral.merging.configuration import from_settings
from biomistral.merging.dropping import dropping_key
from biomistral.merging.jobs import Job
from biomistral.merging.methods import METHODS, Share, places
from biomistral.merging.plan import Plan, find_folders, plan_merge
from biomistral.merging.references import shown
from biomistral.models.cards import Card, read_card, write_card
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.writing import CheckpointWriter, copy_companions, write_config
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import MergeSettings


def merge(
    settings: MergeSettings,
    out: Path,
    *,
    models: Mapping[str, Path] | None = None,
    seed: int = 42,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Merge models into the checkpoint folder ``out`` and return it.

    The names in ``settings`` are looked up in ``models``; without it they are folders. ``seed`` is
    that of DARE's dropping unless ``settings`` names one. Config, tokenizer and, if no ``dtype``
    is set, the type of each tensor are those of the base (linear without one: of the first model).

    Raises ``RecipeError``, ``ModelError`` or ``InputError`` before anything is written, except
    that NaN and infinity are found on the way; ``out`` is then left as it was.
    """
    config = from_settings(settings)
    folders = find_folders(config, models)
    _refuse_overwriting(out, folders)
    plan = plan_merge(config, folders)
    drop_seed = getattr(settings, "seed", None)
    drop_seed = seed if drop_seed is None else drop_seed
    origin = origin or _origin(settings, folders, drop_seed)
    with artifacts.create(out, origin) as draft:
        _write_weights(plan, draft.folder, drop_seed, progress)
        write_config(draft.folder, dict(plan.output_config))
        copy_companions(plan.base.folder, draft.folder)
        write_card(draft.folder, _card(settings, folders))
        draft.counts["tensors"] = len(plan.jobs)
        draft.counts["parameters"] = sum(job.output.num_elements for job in plan.jobs)
        draft.counts["warnings"] = list(plan.warnings)
    return out


def _write_weights(plan: Plan, folder: Path, drop_seed: int, progress: Progress) -> None:
    writer = CheckpointWriter(folder, [job.output for job in plan.jobs])

    def write(job: Job) -> None:
        name, dtype = job.output.name, getattr(torch, job.output.dtype)
        writer.write_blocks(name, _stored(_merged_blocks(plan, job, drop_seed), dtype, name))

    progress(0, len(plan.jobs), "tensors merged")
    with _workers() as workers:
        for done, _ in enumerate(workers.map(write, plan.jobs), start=1):
            progress(done, len(plan.jobs), "tensors merged")
    writer.finish()


@contextlib.contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Run as many threads as PyTorch is set to, each on a tensor of its own.

    Sharing every operation among all threads means waiting for the slowest of them each time: on
    a busy machine of two cores that was ten times slower than one thread alone (measured).
    """
    num_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            num_threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            yield pool
    finally:
        torch.set_num_threads(num_threads)


def _merged_blocks(plan: Plan, job: Job, drop_seed: int) -> Iterator[Tensor]:
    """Apply the method to one tensor of all models."""
    base = None
    if job.base is not None:
        base = _finite_values(plan.models[job.base.model], job.base.stored.name)
    shares = [
        Share(
            values=_finite_values(plan.models[entry.model], entry.stored.name),
            key=dropping_key(drop_seed, index, job.output.name),
            row_elements=job.output.shape[-1] if job.output.shape else 1,
            **entry.numbers,
        )
        for index, entry in enumerate(job.inputs)
    ]
    options: dict[str, Any] = dict(job.options)
    return METHODS[job.method](base, shares, **options)


def _finite_values(checkpoint: Checkpoint, name: str) -> Tensor:
    """Return a tensor as one vector (n,). Raises ``ModelError`` if it holds NaN or infinity."""
    values = checkpoint.tensor(name).reshape(-1)
    if not all(_is_finite(values[place]) for place in places(values)):
        raise ModelError(
            f"{checkpoint.tensors[name].file}: {name} holds NaN or infinity; the model is broken "
            "(a diverged training or a damaged copy): fetch it again or use another checkpoint"
        )
    return values


def _stored(blocks: Iterable[Tensor], dtype: torch.dtype, name: str) -> Iterator[Tensor]:
    """Round blocks to the type they are stored in."""
    for block in blocks:
        rounded = block.to(dtype)
        if not _is_finite(rounded):
            raise ModelError(
                f"merge: {name} has values beyond the range of {str(dtype).removeprefix('torch.')}"
                f" (up to {float(block.abs().max()):g}); set dtype: bfloat16 or float32, or "
                "smaller weights"
            )
        yield rounded


def _is_finite(values: Tensor) -> bool:
    """Whether there is no NaN or infinity: one in a sum stays, and a sum is quick to make."""
    total = values.sum(dtype=torch.float32)
    return bool(total.isfinite()) or bool(values.isfinite().all())


def _refuse_overwriting(out: Path, folders: Mapping[str, Path]) -> None:
    for name, folder in folders.items():
        if folder.resolve() == out.resolve():
            raise InputError(
                f"{out}: is the model {name!r}, which the merge reads; name another output folder"
            )


def _origin(settings: MergeSettings, folders: Mapping[str, Path], drop_seed: int) -> Origin:
    values = settings.model_dump(mode="json")
    if "seed" in values:
        values["seed"] = drop_seed
    inputs = {name: artifacts.fingerprint_of_files([folder]) for name, folder in folders.items()}
    return Origin("model", settings.name, values, inputs)


def _card(settings: MergeSettings, folders: Mapping[str, Path]) -> Card:
    """Say how the model was made; data sets and languages are those of the models' own cards."""
    cards = [card for folder in folders.values() if (card := read_card(folder))]
    names = list(folders)
    values = settings.model_dump(mode="json", exclude={"name", "base", "models"}, exclude_none=True)
    details = {key: json.dumps(value) for key, value in values.items() if key != "method"}
    for entry in settings.models:
        numbers = entry.model_dump(mode="json", exclude={"model"})
        details[shown(entry.model)] = json.dumps(numbers) if numbers else "as it is"
    return Card(
        name=settings.name,
        base_models=tuple(shown(name) for name in names),
        relation="merge",
        description=f"{settings.name} is {RULES[settings.method].title} {len(names)} models, with "
        f"config and tokenizer of {shown(names[0])}.",
        details={"method": settings.method, **details},
        languages=_union([card.languages for card in cards]) or ("en",),
        datasets=_union([card.datasets for card in cards]),
    )


def _union(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for items in lists for item in items))
