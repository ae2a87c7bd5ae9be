"""What fine-tuning and preference tuning share: how a run is driven, watched and written down.

A thin layer over the Transformers Trainer. On a CPU the same settings and number of threads give
the same files, undisturbed or resumed. Knows nothing about losses.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch
from transformers import PrinterCallback, TrainerCallback

from biomistral import artifacts, versions
from biomistral.artifacts import Draft, Origin
from biomistral.errors import InputError, ModelError
from biomistral.models.cards import Card, write_card
from biomistral.models.loading import load_tokenizer, pick_device, quiet_transformers
from biomistral.models.writing import copy_companions
from biomistral.progress import Progress
from biomistral.recipe.tuning import SftSettings, TuningSettings
from biomistral.records import Request
from biomistral.training.checkpointing import mark_complete, newest_complete
from biomistral.training.low_rank import check_trained_weights, num_trained, save_adapter

TRAINING_LOG = "training_log.jsonl"
_LOGS_A_RUN = 60  # points on a training curve

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
        "save_total_limit": 2,
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


def short_enough(
    items: Sequence[Item], length_of: Callable[[Item], int], limit: int, name: str
) -> list[Item]:
    """Leave out what is longer than a row. Raises ``InputError`` if nothing is left."""
    kept = [item for item in items if length_of(item) <= limit]
    if not kept:
        shortest = min(map(length_of, items), default=0)
        raise InputError(
            f"{name}: there is nothing to learn from that fits into {limit} tokens "
            f"({len(items)} examples, the shortest of {shortest}); raise sequence_length"
        )
    return kept


class Watcher(TrainerCallback):
    """Report progress, mark whole checkpoints, stop at what is no number."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.text = "steps"

    def on_step_end(self, *event: Any, **_: Any) -> None:
        """Report; and save nothing after the last step."""
        _, state, control = event
        self.progress(state.global_step, state.max_steps, self.text)
        if state.global_step >= state.max_steps:
            # The Trainer would save here; resuming from it would add a step, and nothing is left.
            control.should_save = False

    def on_log(self, *event: Any, **facts: Any) -> None:
        """Raise ``ModelError`` at a loss that is no number."""
        _, state, _ = event
        loss = facts["logs"].get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            advice = (
                "the model that training starts from is broken, check it"
                if state.global_step <= 1  # that loss is taken before any change
                else "lower learning_rate or max_gradient_norm, or use precision: float32"
            )
            raise ModelError(f"training: the loss is {loss} at step {state.global_step}; {advice}")
        self.text = f"steps, loss {loss:.3f}"

    def on_save(self, *event: Any, **_: Any) -> None:
        """Mark what was saved as whole."""
        args, state, _ = event
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries, and their warnings of each other's old names, for a while."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def run(trainer: Any, work: Path) -> None:
    """Train, from the newest whole checkpoint if there is one."""
    trainer.remove_callback(PrinterCallback)
    trainer.args._n_gpu = min(1, trainer.args.n_gpu)  # else a second GPU would double the rows
    start = newest_complete(work)
    try:
        with quiet():
            trainer.train(resume_from_checkpoint=str(start) if start else None)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"training: the device is out of memory ({str(error).splitlines()[0]}); lower "
            "rows_per_step and raise accumulation_steps by the same factor, set "
            "gradient_checkpointing: true or method: qlora, and run again"
        ) from error


def finish(
    settings: TuningSettings,
    trainer: Any,
    learner: Any,
    base: Path,
    draft: Draft,
    card: Card,
    measures: Mapping[str, str] | None = None,
) -> None:
    """Write what was trained, its log and its card; ``measures`` are logged values to keep."""
    check_trained_weights(learner)
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
    log = training_log(trainer.state, measures or {})
    lines = (json.dumps(entry, sort_keys=True) for entry in log)
    (draft.folder / TRAINING_LOG).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    write_card(draft.folder, card)
    draft.device = str(pick_device())
    draft.threads = torch.get_num_threads()
    if draft.device != "cpu":
        draft.not_deterministic = "GPU kernels of the backward pass add in varying order"
    draft.counts.update(
        steps=trainer.state.global_step,
        tokens=log[-1]["tokens"],
        final_loss=log[-1]["loss"],
    )


def training_log(state: Any, measures: Mapping[str, str]) -> list[dict[str, Any]]:
    """Mean loss and last learning rate of some steps; nothing in it depends on the clock.

    A loss at one step is the mean since the one before; so are ``measures``, which name logged
    values by the name that they get.
    """
    every = max(1, round(state.max_steps / _LOGS_A_RUN))
    lines: list[dict[str, Any]] = []
    since: list[dict[str, Any]] = []
    for entry in state.log_history:
        if "loss" not in entry:
            continue
        since.append(entry)
        step = entry["step"]
        if step % every == 0 or step == state.max_steps:
            means = {
                name: fmean(e[key] for e in since)
                for name, key in {"loss": "loss", **measures}.items()
            }
            tokens = int(entry["num_input_tokens_seen"])
            rate = entry["learning_rate"]
            lines.append({"step": step, "tokens": tokens, "learning_rate": rate, **means})
            since.clear()
    return lines


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
