"""What fine-tuning and preference tuning share: how a run is driven, watched and written down.

A thin layer over the Transformers Trainer. On a CPU the same settings and number of threads give
the same files, undisturbed or resumed. Knows nothing about losses.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PrinterCallback

from biomistral import artifacts, versions
from biomistral.artifacts import Draft, Origin
from biomistral.disk import check_space
from biomistral.errors import InputError
from biomistral.models.cards import Card, write_card
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.loading import load_tokenizer, pick_device, quiet_transformers
from biomistral.models.writing import copy_companions
from biomistral.progress import Progress
from biomistral.recipe.tuning import SftSettings, TuningSettings
from biomistral.records import Request
from biomistral.training import guards, memory
from biomistral.training.checkpointing import newest_complete, step_of
from biomistral.training.low_rank import num_trained, save_adapter
from biomistral.training.tracking import THROUGHPUT, Trackers
from biomistral.training.trainer import run_trainer
from biomistral.training.training_log import training_log, write_log
from biomistral.training.watching import Watch, Watcher

Item = TypeVar("Item")


def origin_of(
    settings: TuningSettings,
    model: Path,
    files: Sequence[Path],
    requests: Sequence[Request],
    test_runs: Path | None,
    seed: int,
) -> Origin:
    """What a run by itself, without a pipeline, is made from."""
    inputs = {"model": artifacts.fingerprint_of_files([model])}
    inputs |= {f"data/{path.name}": artifacts.file_digest(path) for path in files}
    if test_runs is not None:
        inputs["test_runs"] = artifacts.file_digest(test_runs)
    asked = [[r.prompt, *r.continuations, r.gold] for r in requests]
    return Origin(
        "adapter" if settings.makes_adapter else "model",
        settings.name,
        {**settings.model_dump(mode="json"), "run_seed": seed},
        {**inputs, "requests": artifacts.digest_of(asked)},
        versions.STEP_VERSIONS["sft" if isinstance(settings, SftSettings) else "dpo"],
    )


def num_steps(settings: TuningSettings, num_rows: int) -> int:
    """Optimizer steps of a run; the last one of an epoch may have fewer rows."""
    an_epoch = math.ceil(num_rows / (settings.rows_per_step * settings.accumulation_steps))
    return max(1, math.ceil(round(settings.epochs * an_epoch, 6)))  # 1.1 x 10 is more than 11


def arguments_of(settings: TuningSettings, work: Path, seed: int, num_rows: int) -> dict[str, Any]:
    """What ``TrainingArguments`` are made of."""
    steps = num_steps(settings, num_rows)
    constant = settings.schedule == "constant"
    return {
        "output_dir": str(work),
        "per_device_train_batch_size": settings.rows_per_step,
        "gradient_accumulation_steps": settings.accumulation_steps,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if constant else settings.schedule,
        "warmup_steps": round(settings.warmup_fraction * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_gradient_norm,
        "bf16": settings.precision == "mixed",
        # Each step, or a resumed run would average over other steps than an undisturbed one.
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # would hide a loss that is not a number
        "include_num_input_tokens_seen": "all",
        "save_steps": settings.save_every_steps,
        "save_total_limit": settings.keep_checkpoints,
        "seed": seed,
        "remove_unused_columns": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
    }


def refuse_several_processes() -> None:
    """Raise ``InputError`` where torchrun or accelerate started more than one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"training: was started in {os.environ['WORLD_SIZE']} processes (WORLD_SIZE), and "
            "tuning runs in one; start it without torchrun or accelerate launch"
        )


def limit_of(settings: TuningSettings, learner: Any) -> tuple[int, str]:
    """Most tokens of an example, and why not more; rows of several may be longer than the context."""
    context = getattr(learner.config, "max_position_embeddings", None)
    if context is not None and context < settings.sequence_length:
        return context, "longer than the model's context"
    return settings.sequence_length, "longer than sequence_length"


def short_enough(
    items: Sequence[Item], length_of: Callable[[Item], int], limit: int, name: str
) -> list[Item]:
    """Leave out what is longer than ``limit``. Raises ``InputError`` if nothing is left."""
    kept = [item for item in items if length_of(item) <= limit]
    if not kept:
        shortest = min(map(length_of, items), default=0)
        raise InputError(
            f"{name}: there is nothing to learn from that fits into {limit} tokens "
            f"({len(items)} examples, the shortest of {shortest}); raise sequence_length, or take a model with a "
            "longer context"
        )
    return kept


def watcher(settings: TuningSettings, progress: Progress) -> Watcher:
    """What watches a run: progress, whole checkpoints, and a stop at a loss that is wrong."""
    return Watcher(
        Watch(
            progress,
            tokens_seen=lambda state: int(state.num_input_tokens_seen),
            largest_loss_rise=settings.largest_loss_rise,
        )
    )


def check_room(settings: TuningSettings, model: Path, out: Path, num_rows: int) -> None:
    """Refuse what surely does not fit into memory or onto the disk, before a model is loaded."""
    shape = memory.shape_of(Checkpoint(model).config)
    if shape is None:
        return
    memory.check_fits(memory.estimate_tuning(settings, shape), memory.device_bytes(), settings)
    size = memory.tuning_disk_bytes(settings, shape, num_steps(settings, num_rows))
    check_space(out, size, f"{settings.name} and its checkpoints")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries, and their warnings of each other's old names, for a while."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def run(settings: TuningSettings, trainer: Any, learner: Any, watching: Watcher) -> None:
    """Train, from the newest whole checkpoint if there is one."""
    odd = guards.odd_rate(settings.learning_rate, num_trained(learner))
    if odd:
        warnings.warn(f"{settings.name}: {odd}", stacklevel=2)
    trainer.remove_callback(PrinterCallback)
    trainer.args._n_gpu = min(1, trainer.args.n_gpu)  # else a second GPU would double the rows
    start = newest_complete(Path(trainer.args.output_dir))
    trackers = watching.watch.trackers = Trackers(settings, step_of(start))
    try:
        with quiet():
            run_trainer(trainer, start)
    finally:
        trackers.close()


def finish(
    settings: TuningSettings,
    trainer: Any,
    learner: Any,
    base: Path,
    draft: Draft,
    card: Card,
    *,
    watching: Watcher,
    measures: Mapping[str, str] | None = None,
) -> None:
    """Write what was trained, its log and its card; ``measures`` are logged values to keep."""
    guards.check_weights(learner)
    draft.counts["trained_parameters"] = num_trained(learner)
    if settings.makes_adapter:
        save_adapter(learner, base, draft.folder)
    else:
        learner.config.use_cache = True
        if settings.precision == "mixed":
            learner.to(torch.bfloat16)
        with quiet_transformers():
            learner.save_pretrained(draft.folder)
        if not copy_companions(base, draft.folder):
            load_tokenizer(base).save_pretrained(draft.folder)
    state = trainer.state
    log = training_log(
        state.log_history, state.max_steps, lambda e: int(e["num_input_tokens_seen"]), measures
    )
    write_log(draft.folder, log)
    artifacts.write_json(draft.folder / THROUGHPUT, watching.meter.facts())
    write_card(draft.folder, card)
    draft.device = str(pick_device())
    draft.threads = torch.get_num_threads()
    if draft.device != "cpu":
        draft.not_deterministic = "GPU kernels of the backward pass add in varying order"
    draft.counts.update(
        steps=state.global_step,
        tokens=log[-1]["tokens"],
        final_loss=log[-1]["loss"],
    )


def card_of(
    settings: TuningSettings, description: str, details: Mapping[str, str], **more: Any
) -> Card:
    """The card of a tuned model or adapter."""
    adapter = {
        "Adapter": f"LoRA, rank {settings.rank}, alpha {settings.alpha:g}, on "
        f"{', '.join(settings.target_names)}",
        "Base while training": f"{settings.bits} bits (bitsandbytes)"
        if settings.method == "qlora"
        else "",
    }
    return Card(
        name=settings.name,
        base_models=(settings.model,),
        relation="adapter" if settings.makes_adapter else "finetune",
        description=description,
        details={
            **details,
            **(adapter if settings.makes_adapter else {"Method": "all weights trained"}),
            "Epochs": f"{settings.epochs:g}",
            "Peak learning rate": f"{settings.learning_rate:g}, {settings.schedule}",
            "Rows per optimizer step": str(settings.rows_per_step * settings.accumulation_steps),
        },
        **more,
    )
