"""The merge step: checkpoint folders in, one checkpoint folder out, whole or absent.

The only module of merging that writes files other than weights. What is refused beforehand is in
``plan``, the work on weights in ``engine``; needs no PyTorch itself.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral import artifacts
from biomistral.artifacts import Draft, Origin
from biomistral.errors import InputError, ModelError
from biomistral.merging.card_text import shown_configuration
from biomistral.merging.chat_templates import write_chat_template
from biomistral.merging.config import MergeConfig, from_settings, load_config
from biomistral.merging.engine import Engine, available_threads
from biomistral.merging.plan import Plan, find_folders, plan_merge
from biomistral.merging.references import labels, shown
from biomistral.models.adapters import ADAPTER_CONFIG, ADAPTER_FILE, PICKLED_ADAPTER_FILE
from biomistral.models.cards import (
    CARD,
    README,
    Card,
    read_card,
    read_front_matter,
    write_card,
)
from biomistral.models.checkpoints import COMPANIONS, CONFIG, INDEX, PICKLED_INDEX
from biomistral.models.writing import (
    DEFAULT_SHARD_BYTES,
    CheckpointWriter,
    copy_companions,
    has_finished,
    write_config,
)
from biomistral.progress import Progress, ignore
from biomistral.versions import STEP_VERSIONS

if TYPE_CHECKING:
    from biomistral.recipe.settings import MergeSettings

# Of a model or an adapter; its weights are named by the plan.
_BESIDE_WEIGHTS = (
    *(CONFIG, INDEX, PICKLED_INDEX, *COMPANIONS, CARD, README),
    *(ADAPTER_CONFIG, ADAPTER_FILE, PICKLED_ADAPTER_FILE),
)


@dataclass(frozen=True)
class MergeOptions:
    """How a merge is carried out. The first three decide what comes out; a GPU may round otherwise."""

    seed: int = 42  # of random dropping, unless the configuration names one
    shard_bytes: int = DEFAULT_SHARD_BYTES  # of one file of weights, at most
    allow_non_finite: bool = False  # take NaN and infinity as they come
    allow_pickle: bool = False  # read pytorch_model.bin
    threads: int | None = None  # default: OMP_NUM_THREADS, else all processors
    device: str = "cpu"  # or cuda: computes the methods that have no compiled loops


def merge(
    settings: MergeSettings,
    out: Path,
    *,
    models: Mapping[str, Path] | None = None,
    options: MergeOptions = MergeOptions(),
    origin: Origin | None = None,
    card: Card | None = None,
    progress: Progress = ignore,
) -> Path:
    """Merge models as the entry of a recipe says; return ``out``, a checkpoint folder.

    The names in ``settings`` are looked up in ``models``; without it they are folders or names of
    the hub. Config, tokenizer and, if no ``dtype`` is set, the type of each tensor are those of the
    base (without one: of the first model). ``card`` takes the place of the card that is written.

    Raises ``RecipeError``, ``ModelError`` or ``InputError`` before anything is written, except
    that NaN and infinity are found on the way; ``out`` is then left as it was. An interrupted merge
    goes on from the files of weights that are finished when it is asked for again.
    """
    config = from_settings(settings)
    folders = find_folders(config, models, allow_pickle=options.allow_pickle)
    seed = options.seed if config.seed is None else config.seed
    values = settings.model_dump(mode="json")
    if "seed" in values:
        values["seed"] = seed
    artifacts.check_apart(out, folders)
    plan = plan_merge(config, folders, allow_pickle=options.allow_pickle)
    origin = origin or _origin(settings.name, values, plan, folders, options)
    card = card or _card(config, settings.name, folders, _details(settings))
    return _make(plan, out, options, origin, card, progress, digest=True)


def merge_config(
    path: Path, out: Path, *, options: MergeOptions = MergeOptions(), progress: Progress = ignore
) -> Path:
    """Merge models as a configuration in mergekit's YAML says; return ``out``.

    Everything else is as in ``merge``. The manifest has no content digest: making one would cost
    as much again as a simple merge.
    """
    config = load_config(path)
    folders = find_folders(config, allow_pickle=options.allow_pickle)
    artifacts.check_apart(out, {**folders, str(path): path})
    plan = plan_merge(config, folders, allow_pickle=options.allow_pickle)
    text = path.read_text(encoding="utf-8")
    name = out.resolve().name
    values = {"configuration": text, "seed": options.seed}
    origin = _origin(name, values, plan, folders, options)
    card = _card(config, name, folders, {"method": config.method}, text)
    return _make(plan, out, options, origin, card, progress, digest=False)


def _make(
    plan: Plan,
    out: Path,
    options: MergeOptions,
    origin: Origin,
    card: Card,
    progress: Progress,
    *,
    digest: bool,
) -> Path:
    _check_device(options.device)
    with artifacts.create(out, origin, resume=True) as draft:
        draft.digest = digest
        _check_room(plan, draft, out)
        with _kept_if_worth_it(draft):
            _write_weights(plan, draft, options, progress)
        write_config(draft.folder, dict(plan.output_config))
        if plan.vocabulary is None:
            copy_companions(plan.base.folder, draft.folder)
        else:
            from biomistral.merging.vocabularies import write_tokenizer

            write_tokenizer(plan.vocabulary, draft.folder)
        if plan.chat_template is not None:
            write_chat_template(plan.chat_template, draft.folder)
        write_card(draft.folder, card)
        draft.counts["tensors"] = len(plan.jobs)
        draft.counts["parameters"] = sum(job.output.num_elements for job in plan.jobs)
        draft.counts["warnings"] = list(plan.warnings)
    return out


def _write_weights(plan: Plan, draft: Draft, options: MergeOptions, progress: Progress) -> None:
    """Write file after file of weights; those that an interrupted merge finished are kept."""
    outputs = [job.output for job in plan.jobs]
    writer = CheckpointWriter(draft.work, outputs, max_shard_bytes=options.shard_bytes, resume=True)
    jobs = {job.output.name: job for job in plan.jobs}
    seed = options.seed if plan.config.seed is None else plan.config.seed
    threads = options.threads or available_threads()
    engine = Engine(seed, threads, options.allow_non_finite, options.device)
    draft.device = options.device
    waiting = [job for file in writer.unfinished for job in writer.shards[file]]
    done = len(jobs) - len(waiting)
    progress(done, len(jobs), "tensors merged")
    with engine:
        for file in writer.unfinished:
            in_file = [jobs[place.name] for place in writer.shards[file]]
            for _ in engine.run(in_file, writer.places):
                done += 1
                progress(done, len(jobs), "tensors merged")
            writer.finish_shard(file)
    writer.finish()
    for file in writer.files:
        file.rename(draft.folder / file.name)


# --- what is refused ------------------------------------------------------------------------------


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    import torch

    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise InputError(f"merge: the device {device!r} is none of cpu, cuda, cuda:0, cuda:1, ...")
    if not torch.cuda.is_available():
        raise InputError(
            f"merge: PyTorch sees no GPU to use as {device!r}; leave --device out to merge on the "
            "CPU, or install a build of PyTorch for the GPU"
        )


def _check_room(plan: Plan, draft: Draft, out: Path) -> None:
    """Raise ``InputError`` if the disk is too small, before anything is computed."""
    free = shutil.disk_usage(draft.folder).free
    there = sum(path.stat().st_blocks * 512 for path in draft.work.glob("*.safetensors"))
    if plan.write_bytes > free + there:
        raise InputError(
            f"{out}: the merged weights need {plan.write_bytes / 1e9:.1f} GB and the disk has "
            f"{free / 1e9:.1f} GB left; free some or choose another output folder"
        )


@contextlib.contextmanager
def _kept_if_worth_it(draft: Draft) -> Iterator[None]:
    """Leave finished files of weights for the next try, unless it would fail like this one."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, ModelError) or not has_finished(draft.work):
            shutil.rmtree(draft.work)
        raise


# --- what made it ---------------------------------------------------------------------------------


def _origin(
    name: str,
    values: Mapping[str, Any],
    plan: Plan,
    folders: Mapping[str, Path],
    options: MergeOptions,
) -> Origin:
    settings = {
        **values,
        "shard_bytes": options.shard_bytes,
        "allow_non_finite": options.allow_non_finite,
    }
    if options.device != "cpu":
        settings["device"] = options.device
    inputs = {
        text: artifacts.fingerprint_of_files(_files_read(folder, plan))
        for text, folder in folders.items()
    }
    return Origin("model", name, settings, inputs, STEP_VERSIONS["merge"])


def _files_read(folder: Path, plan: Plan) -> list[Path]:
    """Return what a merge reads of a folder; the folder itself if a manifest speaks for it."""
    if artifacts.read_manifest(folder) is not None:
        return [folder]
    beside = [path for name in _BESIDE_WEIGHTS if (path := folder / name).is_file()]
    models = {stored.file for model in plan.models.values() for stored in model.tensors.values()}
    return sorted({*beside, *(file for file in models if file.parent == folder)})


def _details(settings: MergeSettings) -> dict[str, str]:
    """Say what an entry of a recipe sets, for the card."""
    values = settings.model_dump(mode="json", exclude={"name", "base", "models"}, exclude_none=True)
    details: dict[str, str] = {"method": settings.method}
    details |= {key: json.dumps(value) for key, value in values.items() if key != "method"}
    for entry in settings.models:
        numbers = entry.model_dump(mode="json", exclude={"model"})
        details[shown(entry.model)] = json.dumps(numbers) if numbers else "as it is"
    return details


def _card(
    config: MergeConfig,
    name: str,
    folders: Mapping[str, Path],
    details: dict[str, str],
    text: str = "",
) -> Card:
    """Say how the model was made; data sets and languages are those that the models' cards state."""
    read = (read_card(folder) or read_front_matter(folder) for folder in folders.values())
    cards = [card for card in read if card]
    names = labels(list(config.references))
    block = ""
    if text:
        block = f"\n\n```yaml\n{shown_configuration(text, config.references).strip()}\n```"
    return Card(
        name=name,
        base_models=tuple(dict.fromkeys(names.values())),
        relation="merge",
        description=f"{name} is {config.rules.title} {len(names)} models, with "
        f"config and tokenizer of {names[config.donor]}.{block}",
        details=details,
        languages=_union([card.languages for card in cards]),
        topics=_union([card.topics for card in cards]),
        datasets=_union([card.datasets for card in cards]),
    )


def _union(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for items in lists for item in items))
